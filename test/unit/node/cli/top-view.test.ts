import { expect, test } from 'vitest';
import { createOffloadTally } from '../../../../node/builds/offload-tally.ts';
import type { RunningAction } from '../../../../node/builds/records.ts';
import { nothingMoved } from '../../../../node/builds/summary.ts';
import type { TopFrame } from '../../../../node/builds/top.ts';
import { topLines } from '../../../../node/cli/top-view.ts';
import type { PeerLine } from '../../../../node/mesh/status.ts';

const wide = { columns: 200, rows: undefined };

function peer(name: string, change: Partial<PeerLine> = {}): PeerLine {
  return {
    peerId: `12D3KooW-${name}`,
    name,
    status: 'alive',
    site: 'office',
    roles: [],
    connected: true,
    roundTripMs: 0.4,
    guestSlots: 3,
    drained: null,
    addresses: [],
    lastSeen: null,
    ...change,
  };
}

function action(target: string, change: Partial<RunningAction> = {}): RunningAction {
  return {
    action: `sha256/${'0123456789abcdef'.repeat(4)}/140`,
    mnemonic: 'CppCompile',
    target,
    stage: 'executing',
    node: null,
    ageMs: 1_200,
    decision: null,
    history: [],
    ...change,
  };
}

function frame(change: Partial<TopFrame> = {}): TopFrame {
  return {
    time: '2026-11-20T12:00:00.000Z',
    name: 'laptop',
    peerId: '12D3KooW-laptop',
    state: 'serving',
    slots: 4,
    executing: 2,
    executingElsewhere: 1,
    queued: 7,
    peers: [peer('anna'), peer('ben', { drained: 'by hand', guestSlots: 0 })],
    actions: [action('//a'), action('//b', { node: '12D3KooW-anna', stage: 'fetching' })],
    guests: [{ action: 'sha256/feedfeedfeedfeed/1', submitter: '12D3KooW-ben', ageMs: 40, frozen: true }],
    builds: [],
    counts: createOffloadTally().now(),
    moved: nothingMoved,
    ...change,
  };
}

test('one frame shows slots, nodes, who is drained and why, and what runs where', () => {
  const text = topLines(frame(), undefined, wide).join('\n');
  expect(text).toMatch(/Slots +1 of 4 busy, 1 actions on peers, 7 queued; 1 guests here/);
  expect(text).toMatch(/Mesh +2 other nodes alive, 3 slots lent/);
  expect(text).toMatch(/anna +alive +office +0\.4 ms +3 +1$/m);
  expect(text).toMatch(/ben +alive .*drained: by hand$/m);
  expect(text).toMatch(/1\.2 s +executing +here +0123456789ab +CppCompile \/\/a$/m);
  expect(text).toMatch(/1\.2 s +fetching +anna +0123456789ab +CppCompile \/\/b$/m);
  expect(text).toMatch(/40 ms +frozen +here +feedfeedfeed +for ben$/m);
});

test('transfers are rates between two frames, and sums without one before', () => {
  const moved = { ...nothingMoved, subnet: { receivedBytes: 30e6, servedBytes: 2e6 } };
  const later = frame({ time: '2026-11-20T12:00:02.000Z', moved });
  expect(topLines(later, undefined, wide).join('\n')).toContain('same subnet 30 MB in, 2 MB out');
  expect(topLines(later, frame(), wide).join('\n')).toContain('same subnet 15 MB/s in, 1 MB/s out');
});

test('nothing is wider or higher than the screen', () => {
  const actions = Array.from({ length: 300 }, (_, at) => action(`//a/very/long/path/to/a/package:target-${at}`));
  for (const [columns, rows] of [
    [80, 24],
    [20, 5],
    [1, 1],
  ] as const) {
    const lines = topLines(frame({ actions }), undefined, { columns, rows });
    expect(lines).toHaveLength(rows);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(columns);
  }
});

test('names that others chose cannot write to the terminal', () => {
  const text = topLines(frame({ actions: [action('\x1b[2J\nevil')], peers: [peer('\x1b[31m')] }), undefined, wide).join(
    '',
  );
  expect(text).not.toMatch(/\p{Cc}/u);
});

test('a node at rest says so', () => {
  const lines = topLines(frame({ peers: [], actions: [], guests: [] }), undefined, wide);
  expect(lines.at(-1)).toBe('Nothing runs.');
});

import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { GroupEnvelope } from '../../../../mesh/core/messages.ts';
import type { PeerMessage } from '../../../../mesh/core/peer.ts';
import type { Register } from '../../../../mesh/core/registers/types.ts';
import {
  BrokenRule,
  bodiesOf,
  type ControlBody,
  createSnapshotParts,
  decodeControl,
  encodeControl,
  messageIn,
} from '../../../../mesh/net/control/codec.ts';
import * as limits from '../../../../mesh/net/control/limits.ts';
import { ends, messages } from './messages.ts';

/** The same link, seen from its other end. */
const there = { self: ends.far, far: ends.self };

function arrive(frames: readonly Uint8Array[]): PeerMessage | undefined {
  const parts = createSnapshotParts();
  let message: PeerMessage | undefined;
  for (const frame of frames) message = messageIn(decodeControl(frame), there, parts);
  return message;
}

function framesOf(message: PeerMessage): Uint8Array[] {
  return bodiesOf(message, ends).map(encodeControl);
}

function receive(body: ControlBody): PeerMessage | undefined {
  return arrive([encodeControl(body)]);
}

describe.each(Object.entries(messages))('%s', (_, message) => {
  test('every message comes back as it was', () => {
    fc.assert(
      fc.property(message, (sent) => {
        expect(arrive(framesOf(sent))).toEqual(sent);
      }),
    );
  });

  test('cut off or altered, it is refused, or is another message, and never crashes in another way', () => {
    const damage = fc.record({ at: fc.nat(), byte: fc.integer({ min: 0, max: 255 }), cut: fc.boolean() });
    fc.assert(
      fc.property(message, damage, (sent, { at, byte, cut }) => {
        const frames = framesOf(sent);
        const last = Buffer.from(frames.at(-1) as Uint8Array);
        const where = at % last.byteLength;
        if (!cut) last[where] = byte;
        try {
          arrive([...frames.slice(0, -1), cut ? last.subarray(0, where) : last]);
        } catch (error) {
          expect(error).toBeInstanceOf(BrokenRule);
        }
      }),
      { numRuns: 300 },
    );
  });
});

test('bytes that are anything else are refused or are no message, and never crash in another way', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        arrive([bytes]);
      } catch (error) {
        expect(error).toBeInstanceOf(BrokenRule);
      }
    }),
    { numRuns: 500 },
  );
});

test('what breaks a rule is refused', () => {
  const record = { id: 'a', incarnation: 1, presence: 1, attributes: { coordinator: 2 }, signature: 's' };
  const rumour = { record, verdict: 1, by: 'b' };
  const swim = (value: object) => ({ case: 'swim', value: { kind: 1, ...value } }) as ControlBody;
  const within = (outer: string, name: string, value: object | number, rest: object = {}) =>
    ({ case: outer, value: { ...rest, message: { case: name, value } } }) as ControlBody;
  const token = { generation: 1n, term: 1n, counter: 1n };
  const generation = { number: 1n, hash: 1, forced: false };
  const raft = { shard: 0, generation, fromDisk: 1n, toDisk: 2n, term: 1n };
  const claim = { shard: 0, key: 'k', token };
  const promise = { holder: 'h', storeGeneration: 1n, timeMs: 1 };
  expect(receive(swim({ rumours: [rumour] }))).toBeDefined();
  expect(receive(within('raft', 'voted', {}, raft))).toBeDefined();
  expect(receive(within('claims', 'start', claim))).toBeDefined();
  for (const body of [
    swim({ kind: 0 }),
    swim({ kind: 99 }),
    swim({ rumours: [{ ...rumour, verdict: 0 }] }),
    swim({ rumours: [{ verdict: 1, by: 'b' }] }),
    swim({ rumours: [{ ...rumour, record: { ...record, incarnation: -1 } }] }),
    swim({ rumours: [{ ...rumour, record: { ...record, incarnation: 0.5 } }] }),
    swim({ rumours: [{ ...rumour, record: { ...record, presence: 9 } }] }),
    swim({ rumours: [{ ...rumour, record: { ...record, id: 'x'.repeat(limits.textMax + 1) } }] }),
    swim({ rumours: new Array(limits.rumoursMax + 1).fill(rumour) }),
    within('provider', 'announce', { add: [Number.NaN] }),
    within('provider', 'announce', { add: [-1] }),
    within('provider', 'whoHas', { places: new Array(limits.placesMax + 1).fill(0) }),
    within('provider', 'holders', { nodes: ['a'], lists: [{ at: [1] }] }),
    { case: 'provider', value: {} } as ControlBody,
    { case: 'keeping', value: {} } as ControlBody,
    within('keeping', 'keep', { forMs: Number.POSITIVE_INFINITY }),
    { case: 'raft', value: raft } as ControlBody,
    within('raft', 'voted', {}, { ...raft, shard: limits.shardsMax }),
    within('raft', 'voted', {}, { ...raft, generation: undefined }),
    within('raft', 'voted', {}, { ...raft, term: 2n ** 60n }),
    within('raft', 'append', { entries: new Array(limits.entriesMax + 1).fill({}) }, raft),
    within('raft', 'append', { entries: [{ index: 1n, term: 1n }] }, raft),
    within('raft', 'append', { entries: [{ data: { case: 'configuration', value: { voters: ['nobody'] } } }] }, raft),
    within('raft', 'append', { entries: [{ data: { case: 'configuration', value: { voters: ['a~01'] } } }] }, raft),
    within('raft', 'append', { entries: [{ data: { case: 'batch', value: { shardMs: Number.NaN } } }] }, raft),
    { case: 'heartbeats', value: { runs: [{ sentAtMs: Number.NaN }] } } as ControlBody,
    {
      case: 'heartbeats',
      value: { runs: [{ beats: new Array(limits.heartbeatsMax + 1).fill({}) }] },
    } as ControlBody,
    { case: 'snapshotPart', value: { ...raft, part: 1, parts: 1, snapshot: { configuration: {} } } } as ControlBody,
    { case: 'snapshotPart', value: { ...raft, part: 0, parts: limits.snapshotPartsMax + 1 } } as ControlBody,
    { case: 'snapshotPart', value: { ...raft, part: 0, parts: 1 } } as ControlBody,
    { case: 'registers', value: {} } as ControlBody,
    within('registers', 'lookup', { keys: [''] }),
    within('registers', 'lookup', { keys: ['x'.repeat(limits.keyMax + 1)] }),
    within('registers', 'written', { outcomes: [0] }),
    within('registers', 'offer', { registers: [{ key: 'k', register: { result: 'r', executor: 'e' } }] }),
    within('registers', 'publish', { key: 'k', command: { result: 'r', executor: '' } }),
    { case: 'shards', value: {} } as ControlBody,
    within('shards', 'ask', { shards: [limits.shardsMax] }),
    within('shards', 'formRequest', { generation, one: generation }),
    { case: 'claims', value: {} } as ControlBody,
    within('claims', 'start', { ...claim, token: undefined }),
    within('claims', 'requestStates', { states: [{ request: 'r' }] }),
    within('claims', 'requestStates', { states: [{ request: 'r', state: { case: 'ended', value: 0 } }] }),
    within('claims', 'submit', { items: [{ request: 'r', key: 'k', invocation: 'i', expectedMs: -1 }] }),
    within('claims', 'submit', { items: [{ request: 'r', key: 'k', invocation: 'i', deaths: 4 }] }),
    within('claims', 'commit', { claim, result: 'r', promises: [{ ...promise, timeMs: Number.NaN }] }),
    within('claims', 'commit', { claim, result: 'r', promises: new Array(limits.promisesMax + 1).fill(promise) }),
    within('claims', 'pull', { capabilities: new Array(limits.capabilitiesMax + 1).fill('a=b') }),
    { case: 'agents', value: { key: 'k', token } } as ControlBody,
    within('agents', 'handOverRefused', {}, { key: 'k' }),
  ]) {
    expect(() => receive(body), JSON.stringify(body, (_, value) => String(value)).slice(0, 100)).toThrow(BrokenRule);
  }
});

test('a member speaks for replicas of its own node only', () => {
  const generation = { number: 1, hash: 1, forced: false };
  const message = { kind: 'timeoutNow', term: 1 } as const;
  const envelope = { shard: 0, generation, from: `${ends.self}~1`, to: `${ends.far}~2`, message };
  expect(arrive(framesOf({ kind: 'raft', ...envelope }))).toMatchObject({ from: `${ends.self}~1` });
  expect(() => framesOf({ kind: 'raft', ...envelope, from: 'another~1' })).toThrow();
});

test('a member tells of work at itself only', () => {
  const hint = { shard: 0, key: 'a', state: 'ready', requires: [] } as const;
  const hints = [
    { ...hint, leader: 'another' },
    { ...hint, leader: ends.self },
  ];
  expect(arrive(framesOf({ kind: 'hints', hints }))).toEqual({ kind: 'hints', hints: [hints[1]] });
});

test('heartbeats of many groups are small', () => {
  const beats: GroupEnvelope[] = Array.from({ length: 64 }, (_, shard) => ({
    shard,
    generation: { number: 1, hash: 0x9e3779b1, forced: false },
    from: `${ends.self}~140000000000000`,
    to: `${ends.far}~140000000000001`,
    message: { kind: 'heartbeat', term: 12, commit: 4_711, sentAtMs: 12_345.678, readRound: 3, sleep: false },
  }));
  const [frame, ...more] = framesOf({ kind: 'heartbeats', beats });
  expect(more).toEqual([]);
  expect((frame as Uint8Array).byteLength / beats.length).toBeLessThan(24);
});

test('a snapshot larger than a frame comes in parts, and is whole or nothing', () => {
  const register = (at: number): Register => ({
    kind: 'result',
    result: `sha256/${'0'.repeat(64)}/${at}`,
    class: 'claimed',
    token: { generation: 1, term: 1, counter: at },
    executor: 'e'.repeat(52),
    holders: [{ holder: 'e'.repeat(52), storeGeneration: 1, untilMs: at }],
    writtenAtMs: at,
    nonDeterministic: false,
  });
  const registers = Array.from(
    { length: 16_384 },
    (_, at) => [`sha256/${'a'.repeat(64)}/${at}/`, register(at)] as const,
  );
  const snapshot = {
    index: 7,
    term: 3,
    configuration: { voters: [`${ends.self}~1`], learners: [] },
    sizeBytes: 4_000_000,
    state: { shardMs: 5, registers, evictedToken: undefined, history: 9 },
  };
  const generation = { number: 1, hash: 1, forced: false };
  const of = { shard: 0, generation, from: `${ends.self}~1`, to: `${ends.far}~2` };
  const sent: PeerMessage = { kind: 'raft', ...of, message: { kind: 'snapshot', term: 4, snapshot } };
  const frames = framesOf(sent);
  expect(frames.length).toBeGreaterThan(4);
  expect(Math.max(...frames.map(({ byteLength }) => byteLength))).toBeLessThan(limits.frameBytesMax);
  expect(arrive(frames)).toEqual(sent);
  expect(arrive(frames.slice(1))).toBeUndefined();
  expect(arrive(frames.toSpliced(2, 1))).toBeUndefined();
  // A second try after a part that was lost.
  expect(arrive([...frames.slice(0, 3), ...frames])).toEqual(sent);
});

test('the largest messages that the machines make fit into a frame', () => {
  const source = readFileSync(new URL('../../../../mesh/core/providers/limits.ts', import.meta.url), 'utf8');
  const placesPerAnnouncement = Number(/placesPerAnnouncement = ([\d_]+)/.exec(source)?.[1]?.replaceAll('_', ''));
  const add = Array.from({ length: placesPerAnnouncement }, () => 2 ** 52 - 1);
  const announce = { kind: 'announce', seq: 1, life: 1, generation: 1, add, remove: add, clear: [] } as const;
  expect(framesOf(announce)[0]?.byteLength).toBeLessThan(limits.frameBytesMax);
});

import { expect, test } from 'vitest';
import type { PeerNote } from '../../../../mesh/core/peer.ts';
import type { Coordination } from '../../../../mesh/core/shards/coordination.ts';
import { createCoordinationLog } from '../../../../node/mesh/coordination-log.ts';
import { until } from '../../../support/until.ts';

const generation = { number: 2, hash: 1, forced: true };
/** Shard 0 is led here, every other one elsewhere. */
const coordination = { leaderOf: (shard: number) => (shard === 0 ? 'me' : 'other') } as unknown as Coordination;

test('what happens to many shards at once is one line', async () => {
  const lines: string[] = [];
  using log = createCoordinationLog('me', (level, text) => void lines.push(`${level}: ${text}`));
  for (const shard of [0, 1, 2]) log.onNote({ kind: 'generationForced', shard, generation }, coordination);
  for (const shard of [1, 2]) {
    log.onNote({ kind: 'merged', shard, generation, offered: 10, accepted: 4 }, coordination);
  }
  await until(() => lines.length > 0);
  expect(lines).toEqual([
    expect.stringMatching(/^warning: formed 3 shards anew /) as string,
    expect.stringMatching(/^info: 2 shards had gone two ways: of 20 results .* 8 were taken/) as string,
  ]);
});

test('commits are counted where they are decided', () => {
  using log = createCoordinationLog('me', () => {});
  const token = { generation: 1, term: 1, counter: 1 };
  const written = (shard: number, command: 'commit' | 'publish', outcome: 'accepted' | 'stale'): PeerNote => ({
    kind: 'registerWritten',
    shard,
    generation,
    index: 1,
    key: 'key',
    command,
    token,
    outcome,
  });
  for (const note of [
    written(0, 'commit', 'accepted'),
    written(0, 'commit', 'stale'),
    written(0, 'publish', 'accepted'),
    written(1, 'commit', 'accepted'),
  ]) {
    log.onNote(note, coordination);
  }
  log.onNote({ kind: 'staleRefused', shard: 0, key: 'key', token }, coordination);
  expect(log.commits()).toEqual({ accepted: 1, stale: 2 });
});

// Goal: the small parts under Raft do what their naive twins do.
// Method: fast-check against deliberately simple versions; a few cases by hand where the point is one case.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { replicaId } from '../../../../mesh/core/ids.ts';
import { raftLimits } from '../../../../mesh/core/limits.ts';
import type { GroupEnvelope } from '../../../../mesh/core/messages.ts';
import { isSingleChange, makeConfiguration } from '../../../../mesh/core/raft/configuration.ts';
import { createHeartbeats } from '../../../../mesh/core/raft/heartbeats.ts';
import { createLog } from '../../../../mesh/core/raft/log.ts';
import { majority, quorumValue, tally } from '../../../../mesh/core/raft/quorum.ts';
import { blankDisk, foldRecord, recordsOf } from '../../../../mesh/core/raft/recovery.ts';
import type { Entry, RaftRecord } from '../../../../mesh/core/raft/types.ts';

describe('quorum', () => {
  test('a quorum value is the highest that a majority has reached', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(9), { minLength: 1, maxLength: 7 }), (values) => {
        const naive = Math.max(
          ...[0, ...values].filter((v) => values.filter((other) => other >= v).length > values.length / 2),
        );
        expect(quorumValue([...values.keys()], (i) => values[i] ?? 0, 0)).toBe(naive);
      }),
    );
  });

  test('any two majorities of one configuration, and of two that differ by one voter, share a voter', () => {
    for (let voters = 1; voters <= 7; voters++) {
      expect(2 * majority(voters)).toBeGreaterThan(voters);
      expect(majority(voters) + majority(voters + 1)).toBeGreaterThan(voters + 1);
    }
  });

  test('silence counts for neither side', () => {
    const voters = ['a', 'b', 'c'];
    expect(tally(voters, new Map([['a', true]]))).toBe('open');
    expect(
      tally(
        voters,
        new Map([
          ['a', true],
          ['b', true],
        ]),
      ),
    ).toBe('won');
    expect(
      tally(
        voters,
        new Map([
          ['a', true],
          ['b', false],
          ['c', false],
        ]),
      ),
    ).toBe('lost');
    expect(
      tally(
        voters,
        new Map([
          ['x', true],
          ['y', true],
        ]),
      ),
    ).toBe('open');
  });
});

test('two configurations with a single change between them have overlapping majorities', () => {
  const names = ['a', 'b', 'c', 'd', 'e', 'f'];
  fc.assert(
    fc.property(fc.subarray(names, { minLength: 1 }), fc.subarray(names, { minLength: 1 }), (from, to) => {
      if (!isSingleChange(makeConfiguration(from), makeConfiguration(to))) return;
      const shared = from.filter((name) => to.includes(name)).length;
      // The worst two majorities: as few shared voters in each as can be.
      const inFrom = majority(from.length) - (from.length - shared);
      const inTo = majority(to.length) - (to.length - shared);
      expect(inFrom + inTo).toBeGreaterThan(shared);
    }),
  );
});

const noop = (index: number, term: number): Entry<string> => ({ index, term, data: { kind: 'noop' } });

test('a log is its entries: appended, cut, compacted and installed like a plain list', () => {
  const step = fc.record({
    kind: fc.constantFrom('append', 'cut', 'compact', 'install'),
    at: fc.nat(20),
    size: fc.nat(4),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const log = createLog<string, string>(undefined, []);
      let entries: Entry<string>[] = [];
      let base = 0;
      let term = 1;
      for (const { kind, at, size } of steps) {
        const last = entries.at(-1)?.index ?? base;
        if (kind === 'append' || kind === 'cut') {
          term += 1;
          const from = kind === 'append' ? last + 1 : Math.max(base + 1, Math.min(last + 1, at));
          const added = Array.from({ length: size + 1 }, (_, i) => noop(from + i, term));
          entries = [...entries.filter((entry) => entry.index < from), ...added];
          log.append(added);
        } else if (kind === 'compact') {
          const index = base + (at % (last - base + 1));
          const snapshot = {
            index,
            term: log.termAt(index) ?? 0,
            configuration: makeConfiguration([]),
            state: '',
            sizeBytes: 0,
          };
          log.compact(snapshot, 0);
          base = index;
          entries = entries.filter((entry) => entry.index > index);
        } else {
          const index = last + at + 1;
          term += 1;
          const snapshot = { index, term, configuration: makeConfiguration([]), state: '', sizeBytes: 0 };
          expect(log.install(snapshot)).toBe('dropped');
          base = index;
          entries = [];
        }
        expect(log.lastIndex).toBe(entries.at(-1)?.index ?? base);
        expect(log.slice(base + 1, log.lastIndex)).toEqual(entries);
        expect(log.termAt(log.lastIndex + 1)).toBeUndefined();
      }
    }),
  );
});

test('slices are bounded in entries and bytes, and carry at least one entry', () => {
  const command = (index: number): Entry<string> => ({
    index,
    term: 1,
    data: { kind: 'command', command: 'x', sizeBytes: 100 },
  });
  const log = createLog<string, string>(undefined, [1, 2, 3, 4].map(command));
  expect(log.slice(1, 4, 2)).toHaveLength(2);
  expect(log.slice(1, 4, 9, 250)).toHaveLength(2);
  expect(log.slice(1, 4, 9, 1)).toHaveLength(1);
});

test('rewriting a log file with the fewest records changes nothing', () => {
  const record: fc.Arbitrary<RaftRecord<string, string>> = fc.oneof(
    fc.record({ kind: fc.constant('hardState' as const), term: fc.nat(9), vote: fc.constantFrom('a', undefined) }),
    fc.tuple(fc.integer({ min: 1, max: 6 }), fc.nat(4)).map(([index, term]) => ({
      kind: 'append' as const,
      entries: [noop(index, term), noop(index + 1, term)],
    })),
    fc.record({
      kind: fc.constant('snapshot' as const),
      whole: fc.boolean(),
      snapshot: fc.record({
        index: fc.integer({ min: 1, max: 6 }),
        term: fc.nat(4),
        configuration: fc.constant(makeConfiguration(['a'])),
        state: fc.string(),
        sizeBytes: fc.nat(),
      }),
    }),
    fc.record({ kind: fc.constant('removed' as const), forgotten: fc.constant({ index: 7, term: 3 }) }),
  );
  fc.assert(
    fc.property(fc.array(record, { maxLength: 12 }), (records) => {
      const disk = records.reduce(foldRecord<string, string>, blankDisk());
      expect(recordsOf(disk).reduce(foldRecord<string, string>, blankDisk())).toEqual(disk);
    }),
  );
});

describe('heartbeats', () => {
  const beat = (shard: number, node: string, kind: 'heartbeatAck' | 'timeoutNow' = 'heartbeatAck'): GroupEnvelope => ({
    shard,
    generation: { number: 1, hash: 0, forced: false },
    from: 'me~1',
    to: replicaId(node, 1),
    message: kind === 'timeoutNow' ? { kind, term: 1 } : { kind, term: 1, sentAtMs: 0, readRound: 0, asleep: false },
  });

  test('those of many groups to one node travel as one message, after the last disk write that any of them waits for', () => {
    const heartbeats = createHeartbeats();
    expect(heartbeats.add(beat(1, 'ann'), 4)).toBeUndefined();
    expect(heartbeats.add(beat(2, 'ben'))).toBeUndefined();
    expect(heartbeats.add(beat(3, 'ann'), 9)).toBeUndefined();
    const sent = heartbeats.flush();
    expect(sent.map(({ to, after }) => [to, after])).toEqual([
      ['ann', 9],
      ['ben', undefined],
    ]);
    expect(sent[0]?.message).toMatchObject({ kind: 'heartbeats', beats: [{ shard: 1 }, { shard: 3 }] });
    expect(heartbeats.flush()).toEqual([]);
  });

  test('anything else leaves at once', () => {
    const heartbeats = createHeartbeats();
    expect(heartbeats.add(beat(1, 'ann', 'timeoutNow'), 2)).toMatchObject({
      to: 'ann',
      after: 2,
      message: { kind: 'raft' },
    });
    expect(heartbeats.waiting).toBe(false);
  });

  test('one message is bounded', () => {
    const heartbeats = createHeartbeats();
    for (let shard = 0; shard <= raftLimits.heartbeatsPerMessage; shard++) heartbeats.add(beat(shard, 'ann'));
    expect(heartbeats.flush()).toHaveLength(2);
  });
});

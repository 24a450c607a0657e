// Goal: where groups should be, and that a leader gets them there one legal step at a time.
// Method: placement alone; steering applied until it rests, as if every step succeeded.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { nodeOf, type ReplicaId, replicaId } from '../../../../mesh/core/ids.ts';
import { shardLimits } from '../../../../mesh/core/limits.ts';
import { isSingleChange, makeConfiguration } from '../../../../mesh/core/raft/configuration.ts';
import type { Configuration } from '../../../../mesh/core/raft/types.ts';
import { preferredVoters, ranking, voterCount } from '../../../../mesh/core/shards/placement.ts';
import { nextStep, type SteeringView } from '../../../../mesh/core/shards/steering.ts';
import type { MemberView } from '../../../../mesh/core/shards/types.ts';

function member(
  node: string,
  fields: Partial<MemberView> = {},
  stability: Partial<MemberView['stability']> = {},
): MemberView {
  return {
    node,
    disk: 1,
    status: 'alive',
    lastAliveAtMs: 0,
    aliveSinceMs: 0,
    ...fields,
    stability: { alwaysOn: false, mainsPower: false, wired: false, optedOut: false, ...stability },
  };
}
const names = ['n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7', 'n8', 'n9'];
const r = (node: string): ReplicaId => replicaId(node, 1);

describe('placement', () => {
  test('one, three or five voters by the number of members', () => {
    expect([1, 2, 3, 8, 9, 300].map(voterCount)).toEqual([1, 1, 3, 3, 5, 5]);
  });

  test('steadier members come first, and only opting out or absence excludes', () => {
    const members = [
      member('laptop'),
      member('desktop', {}, { mainsPower: true, wired: true }),
      member('runner', {}, { alwaysOn: true }),
      member('shy', {}, { alwaysOn: true, optedOut: true }),
      member('away', { status: 'suspended' }, { alwaysOn: true }),
    ];
    for (let shard = 0; shard < 8; shard++) {
      expect(ranking(shard, members, 0).map(({ node }) => node)).toEqual(['runner', 'desktop', 'laptop']);
    }
  });

  test('all who see the same members name the same voters, whatever the order', () => {
    const members = names.map((node) => member(node));
    fc.assert(
      fc.property(fc.shuffledSubarray(members, { minLength: 9 }), fc.nat(63), (shuffled, shard) => {
        expect(preferredVoters(shard, shuffled, 0)).toEqual(preferredVoters(shard, members, 0));
      }),
    );
  });

  test('a member that leaves moves only what it had', () => {
    const members = names.slice(0, 8).map((node) => member(node));
    for (let shard = 0; shard < 64; shard++) {
      const before = preferredVoters(shard, members, 0);
      const after = preferredVoters(
        shard,
        members.filter(({ node }) => node !== 'n3'),
        0,
      );
      if (before.includes(r('n3'))) expect(before.filter((v) => after.includes(v))).toHaveLength(2);
      else expect(after).toEqual(before);
    }
  });

  test('shards spread over equal members', () => {
    const leads = new Map<string, number>();
    const members = names.map((node) => member(node));
    for (let shard = 0; shard < 900; shard++) {
      const first = nodeOf(preferredVoters(shard, members, 0)[0] ?? '');
      leads.set(first, (leads.get(first) ?? 0) + 1);
    }
    for (const name of names) expect(leads.get(name)).toBeGreaterThan(60);
  });
});

/** Applies steps as if each succeeded at once, and returns where it ended. */
function steer(
  start: { leader: ReplicaId; configuration: Configuration },
  view: Pick<SteeringView, 'preferred' | 'preferredForMs' | 'members'>,
): { leader: ReplicaId; configuration: Configuration; steps: number } {
  let { leader, configuration } = start;
  for (let steps = 0; steps < 60; steps++) {
    const step = nextStep({ self: leader, configuration, lagOf: () => 0, leaving: false, ...view });
    if (!step) return { leader, configuration, steps };
    if (step.kind === 'transfer') {
      expect(configuration.voters).toContain(step.to);
      expect(step.to).not.toBe(leader);
      leader = step.to;
    } else {
      expect(isSingleChange(configuration, step.configuration)).toBe(true);
      expect(step.configuration).not.toEqual(configuration);
      expect(step.configuration.voters).toContain(leader);
      configuration = step.configuration;
    }
  }
  throw new Error('steering does not rest');
}

describe('steering', () => {
  const everybody = names.map((node) => member(node));

  test('from any group, a settled preference is reached by legal steps, and nothing moves after', () => {
    fc.assert(
      fc.property(
        fc.subarray(names, { minLength: 1, maxLength: 5 }),
        fc.subarray(names, { maxLength: 3 }),
        fc.subarray(names, { minLength: 3 }),
        fc.nat(63),
        (voters, learners, alive, shard) => {
          const leader = voters[0] ?? 'n1';
          const members = everybody.map((m) =>
            alive.includes(m.node) || m.node === leader ? m : member(m.node, { status: 'dead' }),
          );
          const preferred = preferredVoters(shard, members, 0);
          const configuration = makeConfiguration(voters.map(r), learners.map(r));
          const end = steer(
            { leader: r(leader), configuration },
            { preferred, preferredForMs: shardLimits.settleMs, members },
          );
          expect(end.configuration).toEqual(makeConfiguration([...preferred]));
          expect(end.leader).toBe(preferred[0]);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('a voter that is away is replaced at once; a better one waits for the preference to settle', () => {
    const group = { leader: r('n1'), configuration: makeConfiguration(['n1', 'n2', 'n3'].map(r)) };
    const preferred = ['n1', 'n4', 'n3'].map(r);
    const calm = { preferred, preferredForMs: 0, members: everybody.slice(0, 4) };
    expect(steer(group, calm).steps).toBe(0);
    const without2 = everybody.slice(0, 4).map((m) => (m.node === 'n2' ? member('n2', { status: 'dead' }) : m));
    expect(steer(group, { ...calm, members: without2 }).configuration.voters).toEqual(['n1', 'n3', 'n4'].map(r));
  });

  test('a suspected voter keeps its seat', () => {
    const group = { leader: r('n1'), configuration: makeConfiguration(['n1', 'n2', 'n3'].map(r)) };
    const members = everybody.slice(0, 4).map((m) => (m.node === 'n2' ? member('n2', { status: 'suspect' }) : m));
    const preferred = ['n1', 'n3', 'n4'].map(r);
    expect(steer(group, { preferred, preferredForMs: 0, members }).steps).toBe(0);
  });

  test('a node that came back with another disk is another replica', () => {
    const group = { leader: r('n1'), configuration: makeConfiguration(['n1', 'n2', 'n3'].map(r)) };
    const members = [member('n1'), member('n2', { disk: 2 }), member('n3')];
    const preferred = [r('n1'), replicaId('n2', 2), r('n3')];
    const end = steer(group, { preferred, preferredForMs: 0, members });
    expect(end.configuration.voters).toEqual(['n1~1', 'n2~2', 'n3~1']);
  });

  test('a learner that lags is not made a voter', () => {
    const view: SteeringView = {
      self: r('n1'),
      configuration: makeConfiguration([r('n1')], [r('n2')]),
      preferred: ['n1', 'n2', 'n3'].map(r),
      preferredForMs: 0,
      members: everybody.slice(0, 3),
      lagOf: () => shardLimits.promoteLag,
      leaving: false,
    };
    expect(nextStep(view)).toBeUndefined();
    expect(nextStep({ ...view, lagOf: () => 0 })).toEqual({
      kind: 'change',
      configuration: makeConfiguration(['n1', 'n2'].map(r)),
    });
  });
});

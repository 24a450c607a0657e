// Goal: no schedule of delays, losses, repetitions, crashes, elections, changes and compactions breaks Raft's safety.
// Method: fast-check draws the schedule; the cluster checks the four properties of figure 3.2 and reads at every step.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { makeConfiguration } from '../../../../mesh/core/raft/configuration.ts';
import { createRng } from '../../../../mesh/core/rng.ts';
import { type Cluster, checkLogMatching, createCluster, snapshotOf } from './cluster.ts';

const ids = ['a~1', 'b~1', 'c~1', 'd~1', 'e~1'];

// One stretch of bad weather: who can talk to whom, how much is lost, how slow disks are, how often somebody crashes.
const weather = fc.record({
  kind: fc.constant('weather' as const),
  seed: fc.nat(),
  ms: fc.integer({ min: 50, max: 6_000 }),
  inside: fc.nat(31),
  lossPerMille: fc.constantFrom(0, 0, 50, 300),
  deliverPerMille: fc.constantFrom(150, 500, 1_000),
  syncPerMille: fc.constantFrom(50, 300, 1_000),
  crashPerMille: fc.constantFrom(0, 2, 10),
  proposePerMille: fc.constantFrom(0, 100, 300),
});
const act = fc.record({
  kind: fc.constantFrom(
    'propose',
    'read',
    'read',
    'change',
    'change',
    'transfer',
    'compact',
    'crash',
    'restart',
    'restart',
  ),
  at: fc.nat(4),
  pick: fc.nat(4),
});
const operation = fc.oneof({ weight: 2, arbitrary: weather }, { weight: 3, arbitrary: act });
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

function rage(cluster: Cluster, w: typeof weather extends fc.Arbitrary<infer T> ? T : never): void {
  const rng = createRng(w.seed);
  const hits = (perMille: number): boolean => rng.below(1_000) < perMille;
  const inside = (replica: string): boolean => ((w.inside >> ids.indexOf(replica)) & 1) === 1;
  for (let end = cluster.nowMs + w.ms; cluster.nowMs < end; ) {
    cluster.advance(25);
    for (const id of ids) {
      if (hits(w.syncPerMille)) cluster.sync(id);
      if (hits(w.crashPerMille)) cluster.crash(id);
      if (hits(w.crashPerMille * 4)) cluster.restart(id);
      if (hits(w.proposePerMille) && cluster.raft(id).status.role === 'leader') {
        cluster.propose(id, `${id}@${cluster.nowMs}`);
        if (hits(300)) cluster.read(id);
      }
    }
    for (let left = cluster.network.length; left > 0; left--) {
      const at = rng.below(cluster.network.length);
      const flight = cluster.network[at];
      if (!flight || !hits(w.deliverPerMille)) continue;
      if (inside(flight.from) !== inside(flight.to) || hits(w.lossPerMille)) cluster.drop(at);
      else cluster.deliver(at, hits(50));
      if (cluster.network.length === 0) break;
    }
  }
}

function apply(cluster: Cluster, op: Operation, step: number): void {
  if (op.kind === 'weather') return rage(cluster, op);
  const id = ids[op.pick] ?? 'a~1';
  const other = ids[op.at] ?? 'a~1';
  switch (op.kind) {
    case 'crash':
      return cluster.crash(id);
    case 'restart':
      return cluster.restart(id);
    case 'propose':
      return cluster.propose(cluster.leader() ?? id, `x${step}`);
    case 'read':
      return void cluster.read(cluster.leader() ?? id);
    case 'change': {
      const leader = cluster.leader();
      if (!leader) return;
      const { voters } = cluster.raft(leader).status.configuration;
      const next = voters.includes(other) ? voters.filter((v) => v !== other) : [...voters, other];
      return void cluster.change(leader, makeConfiguration(next, op.pick > 2 ? [id] : []));
    }
    case 'transfer':
      return void cluster.step(id, { kind: 'transferLeadership', to: other });
    case 'compact': {
      const { index, state } = snapshotOf(cluster, id);
      return void cluster.step(id, { kind: 'compact', index, state, sizeBytes: 0 });
    }
  }
}

test('no schedule breaks election safety, log matching, leader completeness, state machine safety or reads', () => {
  const observed = { leaders: 0, commits: 0, reads: 0, restores: 0, configurations: 0 };
  fc.assert(
    fc.property(fc.array(operation, { minLength: 10, maxLength: 60, size: 'max' }), fc.nat(), (operations, seed) => {
      const cluster = createCluster(ids.slice(0, 3), seed);
      for (const id of ids.slice(3)) cluster.add(id);
      for (const [step, op] of operations.entries()) {
        apply(cluster, op, step);
        checkLogMatching(cluster);
      }
      for (const { effect } of cluster.seen) {
        if (effect.kind === 'role' && effect.role === 'leader') observed.leaders++;
        if (effect.kind === 'apply') observed.commits += effect.entries.length;
        if (effect.kind === 'apply' && effect.entries.some((e) => e.data.kind === 'configuration'))
          observed.configurations++;
        if (effect.kind === 'readable') observed.reads++;
        if (effect.kind === 'restore') observed.restores++;
      }
    }),
    { numRuns: 150, seed: 20 },
  );
  // A run that saw nothing proves nothing.
  for (const [what, count] of Object.entries(observed)) expect(count, what).toBeGreaterThan(10);
});

test('after any schedule, healing elects a leader and everybody applies the same commands', () => {
  fc.assert(
    fc.property(fc.array(operation, { minLength: 5, maxLength: 30, size: 'max' }), fc.nat(), (operations, seed) => {
      const cluster = createCluster(ids.slice(0, 3), seed);
      for (const id of ids.slice(3)) cluster.add(id);
      for (const [step, op] of operations.entries()) apply(cluster, op, step);
      for (const id of ids) cluster.restart(id);
      cluster.settle(12_000);
      const leader = cluster.leader();
      expect(leader).toBeDefined();
      if (!leader) return;
      cluster.propose(leader, 'last');
      cluster.settle(2_000);
      expect(cluster.applied(leader)).toContain('last');
      const { voters } = cluster.raft(leader).status.configuration;
      for (const voter of voters) expect(cluster.applied(voter)).toEqual(cluster.applied(leader));
    }),
    { numRuns: 60, seed: 21 },
  );
});

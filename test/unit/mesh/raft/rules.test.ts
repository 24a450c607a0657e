// Goal: each rule of Raft that safety or liveness hangs on, one test each, with the section of the dissertation it is from.
// Method: bring a small cluster to the state, apply the one event, and look at what left the machine.
import { expect, test } from 'vitest';
import { raftLimits } from '../../../../mesh/core/limits.ts';
import { makeConfiguration } from '../../../../mesh/core/raft/configuration.ts';
import { createRaft } from '../../../../mesh/core/raft/raft.ts';
import { blankDisk, foldRecord, genesisRecords } from '../../../../mesh/core/raft/recovery.ts';
import type { RaftMessage } from '../../../../mesh/core/raft/types.ts';
import { createRng } from '../../../../mesh/core/rng.ts';
import { type Cluster, type Command, type State, createCluster, snapshotOf } from './cluster.ts';

const [a, b, c, d] = ['a~1', 'b~1', 'c~1', 'd~1'] as const;
const three = [a, b, c] as const;
type Message = RaftMessage<Command, State>;

/** A cluster of three whose leader is `a`. */
function led(): Cluster {
  const cluster = createCluster(three);
  cluster.settle(3_000);
  const leader = cluster.leader();
  if (leader !== a && leader) {
    cluster.step(leader, { kind: 'transferLeadership', to: a });
    cluster.settle(3_000);
  }
  expect(cluster.leader()).toBe(a);
  cluster.seen.length = 0;
  return cluster;
}

const term = (cluster: Cluster, id: string): number => cluster.raft(id).status.term;
const sent = (effects: readonly { kind: string }[]): Message[] =>
  effects.flatMap((effect) => (effect.kind === 'send' ? [(effect as unknown as { message: Message }).message] : []));
const vote = (fields: Partial<Extract<Message, { kind: 'vote' }>>): Message => ({
  kind: 'vote',
  term: 99,
  pre: false,
  transfer: false,
  lastIndex: 99,
  lastTerm: 99,
  ...fields,
});

test('3.4: a vote is promised on disk before it is sent, and only one a term', () => {
  const cluster = createCluster(three);
  cluster.nowMs = 5_000;
  const effects = cluster.step(b, { kind: 'message', from: a, message: vote({ term: 2 }) });
  const persists = effects.filter((effect) => effect.kind === 'persist');
  expect(persists.at(-1)?.record).toEqual({ kind: 'hardState', term: 2, vote: a });
  expect(effects).toContainEqual(
    expect.objectContaining({
      kind: 'send',
      after: persists.at(-1)?.id,
      message: expect.objectContaining({ granted: true }),
    }),
  );
  const second = sent(cluster.step(b, { kind: 'message', from: c, message: vote({ term: 2 }) }));
  expect(second).toEqual([expect.objectContaining({ kind: 'voted', granted: false })]);
});

test('3.4: a vote survives a crash, so a restarted replica does not vote twice in a term', () => {
  const cluster = createCluster(three);
  cluster.nowMs = 5_000;
  cluster.step(b, { kind: 'message', from: a, message: vote({ term: 2 }) });
  cluster.sync(b);
  cluster.crash(b);
  cluster.restart(b);
  cluster.nowMs = 10_000;
  const answer = sent(cluster.step(b, { kind: 'message', from: c, message: vote({ term: 2 }) }));
  expect(answer).toEqual([expect.objectContaining({ kind: 'voted', granted: false })]);
});

test('3.4: a candidate counts its own vote only when that is durable', () => {
  const cluster = createCluster([a]);
  cluster.advance(1);
  expect(cluster.raft(a).status.role).toBe('candidate');
  cluster.sync(a);
  expect(cluster.raft(a).status.role).toBe('leader');
});

test('3.6.1: a replica whose log is ahead refuses its vote', () => {
  const cluster = led();
  cluster.propose(a, 'x');
  cluster.settle(500);
  cluster.nowMs += 5_000;
  const { lastIndex } = cluster.raft(b).status;
  const ask = (fields: object) =>
    sent(cluster.step(b, { kind: 'message', from: c, message: vote({ term: term(cluster, b) + 1, ...fields }) }));
  expect(ask({ lastTerm: term(cluster, b), lastIndex: lastIndex - 1 })).toEqual([
    expect.objectContaining({ kind: 'voted', granted: false }),
  ]);
  expect(ask({ lastTerm: 1, lastIndex: lastIndex + 50 })).toEqual([
    expect.objectContaining({ kind: 'voted', granted: false }),
  ]);
});

test('3.6.2: a leader does not commit an entry of an older term by counting copies', () => {
  // Figure 3.7: the copies of an older term's entry reach a majority, but only an entry of the own term commits them.
  const records = [
    ...genesisRecords<Command, State>(three, []),
    { kind: 'hardState' as const, term: 2, vote: undefined },
    { kind: 'append' as const, entries: [{ index: 2, term: 2, data: { kind: 'noop' as const } }] },
  ];
  let persistId = 0;
  const raft = createRaft<Command, State>({
    self: a,
    disk: records.reduce(foldRecord<Command, State>, blankDisk()),
    rng: createRng(1),
    nextPersistId: () => ++persistId,
    nowMs: 0,
  });
  raft.step({ kind: 'wake' }, 2_500);
  raft.step({ kind: 'message', from: b, message: { kind: 'voted', term: 3, pre: true, granted: true } }, 2_500);
  raft.step({ kind: 'persisted', id: persistId }, 2_500);
  raft.step({ kind: 'message', from: b, message: { kind: 'voted', term: 3, pre: false, granted: true } }, 2_500);
  expect(raft.status).toMatchObject({ role: 'leader', term: 3, lastIndex: 3, commit: 1 });
  const copied = (index: number): Message => ({ kind: 'appended', term: 3, accepted: true, index, refusedIndex: 0 });
  raft.step({ kind: 'persisted', id: persistId }, 2_500);
  raft.step({ kind: 'message', from: b, message: copied(2) }, 2_500);
  expect(raft.status.commit).toBe(1);
  raft.step({ kind: 'message', from: b, message: copied(3) }, 2_500);
  expect(raft.status.commit).toBe(3);
});

test('3.5: a follower drops what conflicts with the leader, and answers only when the new entries are durable', () => {
  const cluster = led();
  const { lastIndex } = cluster.raft(b).status;
  const newTerm = term(cluster, b) + 1;
  const entries = [{ index: lastIndex + 1, term: newTerm, data: { kind: 'noop' as const } }];
  cluster.propose(a, 'lost');
  const append = cluster.network.find(({ to, message }) => to === b && message.kind === 'append');
  if (append) cluster.step(b, { kind: 'message', from: a, message: append.message });
  const effects = cluster.step(b, {
    kind: 'message',
    from: c,
    message: { kind: 'append', term: newTerm, prevIndex: lastIndex, prevTerm: newTerm - 1, entries, commit: 0 },
  });
  const write = effects.find((effect) => effect.kind === 'persist' && effect.record.kind === 'append');
  expect(write).toMatchObject({ record: { entries } });
  expect(effects.at(-1)).toMatchObject({
    kind: 'send',
    after: write?.kind === 'persist' ? write.id : undefined,
    message: { kind: 'appended', accepted: true, index: lastIndex + 1 },
  });
});

test('10.2.1: a leader counts its own copy only when it is durable', () => {
  const cluster = led();
  cluster.crash(c);
  const { commit } = cluster.raft(a).status;
  cluster.propose(a, 'x');
  while (cluster.network.length > 0) cluster.deliver(0);
  cluster.sync(b);
  while (cluster.network.length > 0) cluster.deliver(0);
  expect(cluster.raft(a).status.commit).toBe(commit);
  cluster.sync(a);
  expect(cluster.raft(a).status.commit).toBe(commit + 1);
});

test('9.6: a pre-vote raises no term, and a returning replica does not depose a working leader', () => {
  const cluster = led();
  const before = term(cluster, a);
  cluster.settle(20_000, ({ from, to }) => from === c || to === c);
  expect(cluster.raft(c).status.role).toBe('preCandidate');
  expect(term(cluster, c)).toBe(before);
  cluster.settle(3_000);
  expect(cluster.leader()).toBe(a);
  expect(term(cluster, a)).toBe(before);
});

test('4.2.3: who heard the leader lately does not even look at an election, unless the leader asked for it', () => {
  const cluster = led();
  const next = term(cluster, b) + 1;
  expect(cluster.step(b, { kind: 'message', from: c, message: vote({ term: next }) })).toEqual([]);
  expect(term(cluster, b)).toBe(next - 1);
  const answer = sent(cluster.step(b, { kind: 'message', from: c, message: vote({ term: next, transfer: true }) }));
  expect(answer).toEqual([expect.objectContaining({ kind: 'voted', granted: true })]);
});

test('a restarted replica votes for nobody for an election timeout: it may have acknowledged a leader before', () => {
  const cluster = led();
  cluster.crash(b);
  cluster.restart(b);
  const next = term(cluster, b) + 1;
  expect(cluster.step(b, { kind: 'message', from: c, message: vote({ term: next }) })).toEqual([]);
  cluster.nowMs += raftLimits.electionTimeoutMs;
  expect(sent(cluster.step(b, { kind: 'message', from: c, message: vote({ term: next }) }))).toEqual([
    expect.objectContaining({ granted: true }),
  ]);
});

test('6.2: a leader that no majority answers steps down within two election timeouts', () => {
  const cluster = led();
  cluster.settle(2 * raftLimits.electionTimeoutMs + 300, ({ from, to }) => from === a || to === a);
  expect(cluster.raft(a).status.role).not.toBe('leader');
});

test('3.10: leadership moves on request, at once, to a voter that has everything', () => {
  const cluster = led();
  cluster.propose(a, 'x');
  cluster.step(a, { kind: 'transferLeadership', to: b });
  expect(sent([...cluster.seen.map(({ effect }) => effect)])).toEqual([]);
  cluster.settle(200);
  expect(cluster.leader()).toBe(b);
  expect(cluster.applied(b)).toContain('x');
});

test('3.10: while it hands over, a leader takes no proposal; given up, it goes on, without a lease for that term', () => {
  const cluster = led();
  cluster.settle(500);
  expect(cluster.raft(a).holdsLease(cluster.nowMs)).toBe(true);
  cluster.step(a, { kind: 'transferLeadership', to: b });
  expect(cluster.step(a, { kind: 'propose', id: 7, command: 'x', sizeBytes: 1 })).toEqual([
    { kind: 'refused', id: 7, reason: 'transferring' },
  ]);
  cluster.settle(2_000, ({ message }) => message.kind === 'timeoutNow');
  cluster.propose(a, 'y');
  cluster.settle(500);
  expect(cluster.applied(a)).toContain('y');
  expect(cluster.raft(a).holdsLease(cluster.nowMs)).toBe(false);
});

test('4.1: one voter at a time, one change at a time, and none before the leader committed in its own term', () => {
  const cluster = led();
  const refusal = (voters: string[]) => cluster.change(a, makeConfiguration(voters)).find((e) => e.kind === 'refused');
  cluster.add(d);
  cluster.add('e~1');
  expect(refusal([a, b, c, d, 'e~1'])).toMatchObject({ reason: 'invalid' });
  expect(refusal([a, b, d])).toMatchObject({ reason: 'invalid' });
  expect(refusal([a, b, c, d])).toBeUndefined();
  expect(refusal([a, b, c])).toMatchObject({ reason: 'changePending' });
  cluster.settle(500);
  expect(cluster.raft(d).status.configuration.voters).toEqual([a, b, c, d]);
  expect(refusal([a, b, c])).toBeUndefined();

  // A new leader that has not committed anything yet.
  const fresh = led();
  fresh.step(a, { kind: 'transferLeadership', to: b });
  const noAppends = ({ message }: { message: Message }) => message.kind === 'appended';
  fresh.settle(60, noAppends);
  expect(fresh.raft(b).status.role).toBe('leader');
  expect(fresh.change(b, makeConfiguration([a, b]))).toContainEqual(expect.objectContaining({ reason: 'tooEarly' }));
});

test('4.1: a configuration is in force when it is appended, and taken back with its entry', () => {
  const cluster = led();
  cluster.change(a, makeConfiguration([a, b]));
  expect(cluster.raft(a).status).toMatchObject({ settled: false, configuration: { voters: [a, b] } });
  // Nobody heard of it; b and c elect a leader whose log is without it.
  cluster.network.length = 0;
  cluster.settle(6_000, ({ from, to }) => from === a || to === a);
  cluster.settle(3_000);
  expect(cluster.raft(a).status.configuration.voters).toEqual([...three]);
});

test('4.2.1: a learner receives the log and has no vote', () => {
  const cluster = led();
  cluster.add(d);
  cluster.propose(a, 'x');
  cluster.change(a, makeConfiguration(three, [d]));
  cluster.settle(1_000);
  expect(cluster.applied(d)).toEqual(['x']);
  // With two voters gone, the learner does not help to commit.
  cluster.crash(b);
  cluster.crash(c);
  cluster.propose(a, 'y');
  cluster.settle(500);
  expect(cluster.applied(a)).toEqual(['x']);
});

test('4.2.2: a leader that removes itself leads until that is committed, and the removed replica is told to forget', () => {
  const cluster = led();
  cluster.change(a, makeConfiguration([b, c]));
  cluster.settle(5_000);
  expect([b, c]).toContain(cluster.leader());
  expect(cluster.raft(a).status.role).not.toBe('leader');
  cluster.change(cluster.leader() ?? b, makeConfiguration([b]));
  cluster.settle(5_000);
  expect(cluster.seen).toContainEqual({ id: c, effect: { kind: 'removed' } });
});

test('a removed replica that comes back late and campaigns is told', () => {
  const cluster = led();
  cluster.crash(c);
  cluster.change(a, makeConfiguration([a, b]));
  cluster.settle(500);
  cluster.restart(c);
  cluster.settle(5_000);
  expect(cluster.seen).toContainEqual({ id: c, effect: { kind: 'removed' } });
  expect(cluster.leader()).toBe(a);
});

test('a replica that was removed, forgot its log and is taken back neither leads nor votes below what it once had', () => {
  const records = [
    ...genesisRecords<Command, State>([a], []),
    { kind: 'hardState' as const, term: 4, vote: undefined },
    { kind: 'removed' as const, forgotten: { index: 30, term: 3 } },
  ];
  let persistId = 0;
  const raft = createRaft<Command, State>({
    self: a,
    disk: records.reduce(foldRecord<Command, State>, blankDisk()),
    rng: createRng(1),
    nextPersistId: () => ++persistId,
    nowMs: 0,
  });
  // The first thing it gets is the oldest snapshot, in which it is the only voter.
  const snapshot = { index: 1, term: 1, configuration: makeConfiguration([a]), state: [], sizeBytes: 0 };
  raft.step({ kind: 'message', from: b, message: { kind: 'snapshot', term: 4, snapshot } }, 0);
  expect(raft.status.configuration.voters).toEqual([a]);
  expect(raft.status.leader).toBe(b);
  raft.step({ kind: 'wake' }, 10_000);
  // The silent leader is none any more, so that the shard may be formed anew.
  expect(raft.status).toMatchObject({ role: 'follower', leader: undefined });
  expect(raft.dueAtMs).toBe(Number.POSITIVE_INFINITY);
  const ask = (lastIndex: number) =>
    sent(raft.step({ kind: 'message', from: c, message: vote({ term: lastIndex, lastIndex, lastTerm: 3 }) }, 10_000));
  expect(ask(29)).toMatchObject([{ granted: false }]);
  expect(ask(30)).toMatchObject([{ granted: true }]);
});

test('5.1: a follower that lags behind the log gets a snapshot, and goes on from there', () => {
  const cluster = led();
  cluster.crash(c);
  for (let i = 0; i < raftLimits.keepEntries + 10; i++) cluster.propose(a, `x${i}`);
  cluster.settle(500);
  const { index, state } = snapshotOf(cluster, a);
  cluster.step(a, { kind: 'compact', index, state, sizeBytes: 10 });
  expect(cluster.raft(a).status.uncompacted).toBe(0);
  cluster.restart(c);
  cluster.propose(a, 'after');
  cluster.settle(3_000);
  expect(cluster.seen.some(({ id, effect }) => id === c && effect.kind === 'restore')).toBe(true);
  expect(cluster.applied(c)).toEqual(cluster.applied(a));
  cluster.crash(c);
  cluster.restart(c);
  cluster.settle(2_000);
  expect(cluster.applied(c)).toEqual(cluster.applied(a));
});

test('6.4: a read waits for a majority that confirms the leader after the read came', () => {
  const cluster = led();
  cluster.settle(300);
  const answered = (read: number) =>
    cluster.seen.some(({ effect }) => effect.kind === 'readable' && effect.id === read);
  const first = cluster.read(a);
  expect(answered(first)).toBe(false);
  const second = cluster.read(a);
  cluster.settle(50);
  expect(answered(first)).toBe(true);
  expect(answered(second)).toBe(true);
  const cutOff = cluster.read(a);
  cluster.settle(5_000, ({ from, to }) => from === a || to === a);
  expect(answered(cutOff)).toBe(false);
  expect(cluster.seen).toContainEqual({ id: a, effect: { kind: 'refused', id: cutOff, reason: 'lostLeadership' } });
});

test('6.4.1: the lease ends before anybody else can be elected, and a gap in time ends it at once', () => {
  const cluster = led();
  cluster.settle(500);
  const raft = cluster.raft(a);
  expect(raft.holdsLease(cluster.nowMs)).toBe(true);
  expect(raft.holdsLease(cluster.nowMs + raftLimits.electionTimeoutMs - 1)).toBe(false);
  cluster.step(a, { kind: 'gap' });
  expect(raft.holdsLease(cluster.nowMs)).toBe(false);
  cluster.settle(300);
  expect(raft.holdsLease(cluster.nowMs)).toBe(true);
});

test('an idle group sleeps without a timer, and wakes for a proposal', () => {
  const cluster = led();
  cluster.settle(raftLimits.hibernateAfterMs + 2_000);
  for (const id of three) expect(cluster.raft(id).dueAtMs, id).toBe(Number.POSITIVE_INFINITY);
  expect(cluster.raft(a).holdsLease(cluster.nowMs)).toBe(false);
  cluster.nowMs += 3_600_000;
  cluster.propose(a, 'morning');
  cluster.settle(500);
  for (const id of three) expect(cluster.applied(id)).toEqual(['morning']);
  expect(cluster.leader()).toBe(a);
});

test('a sleeping group whose leader is gone elects another when membership says so', () => {
  const cluster = led();
  cluster.settle(raftLimits.hibernateAfterMs + 2_000);
  cluster.crash(a);
  cluster.settle(60_000);
  expect(cluster.leader()).toBeUndefined();
  cluster.step(b, { kind: 'unreachable', replica: a });
  cluster.settle(5_000);
  expect([b, c]).toContain(cluster.leader());
});

test('a group of one needs nobody, and commits only what is durable', () => {
  const cluster = createCluster([a]);
  cluster.settle(100);
  expect(cluster.leader()).toBe(a);
  cluster.propose(a, 'x');
  expect(cluster.applied(a)).toEqual([]);
  cluster.sync(a);
  expect(cluster.applied(a)).toEqual(['x']);
});

test('proposals that are not committed are bounded in bytes', () => {
  const cluster = led();
  const propose = (sizeBytes: number) => cluster.step(a, { kind: 'propose', id: 1, command: 'x', sizeBytes });
  expect(propose(raftLimits.commandBytes + 1)).toMatchObject([{ reason: 'invalid' }]);
  for (let bytes = 0; bytes < raftLimits.uncommittedBytes; bytes += raftLimits.commandBytes) {
    expect(propose(raftLimits.commandBytes)[0]?.kind).not.toBe('refused');
  }
  expect(propose(1)).toMatchObject([{ kind: 'refused', reason: 'busy' }]);
});

test('appends under way to one follower are bounded, and lost ones are sent again', () => {
  const cluster = led();
  for (let i = 0; i < 3 * raftLimits.inflightAppends; i++) cluster.propose(a, `x${i}`);
  const toC = cluster.network.filter(({ to, message }) => to === c && message.kind === 'append');
  expect(toC).toHaveLength(raftLimits.inflightAppends);
  cluster.network.length = 0;
  cluster.settle(3_000);
  expect(cluster.applied(c)).toHaveLength(3 * raftLimits.inflightAppends);
});

// Goal: a shard is formed anew only as the rules allow: who may ask, who may consent, and what consent is worth.
// Method: the forming machine of one node alone; the test plays the others.
import { beforeEach, expect, test } from 'vitest';
import { type Generation, replicaId } from '../../../../mesh/core/ids.ts';
import { shardLimits } from '../../../../mesh/core/limits.ts';
import { createDirectory, type Directory } from '../../../../mesh/core/shards/directory.ts';
import { createForming, type Forming, generationHash } from '../../../../mesh/core/shards/forming.ts';
import type { FormReason, ShardMessage, ShardRecord, ShardStatus } from '../../../../mesh/core/shards/messages.ts';
import { ranking } from '../../../../mesh/core/shards/placement.ts';
import type { MemberView } from '../../../../mesh/core/shards/types.ts';

type Request = Extract<ShardMessage, { kind: 'formRequest' }>;

const day = shardLimits.dayMs;
let directory: Directory;
let members: MemberView[];
let sent: { to: string; message: ShardMessage; record: ShardRecord | undefined }[];
let forced: Generation[];
let leader: boolean;
let forming: Forming;
let self: string;
let nowMs: number;

const member = (node: string, status: MemberView['status'], lastAliveAtMs = day): MemberView => ({
  node,
  disk: 1,
  status,
  lastAliveAtMs,
  aliveSinceMs: 0,
  stability: { alwaysOn: false, mainsPower: false, wired: false, optedOut: false },
});
const status = (generation: Generation, voters: string[], term = 1): ShardStatus => ({
  shard: 0,
  generation,
  term,
  leader: undefined,
  configuration: { voters: voters.map((node) => replicaId(node, 1)), learners: [] },
  configurationIndex: 1,
});
const first: Generation = { number: 1, hash: 11, forced: false };

/** The first in line for the shard among those that are alive. */
const inLine = (): string => ranking(0, members, nowMs)[0]?.node ?? '';

function boot(node?: string): void {
  self = node ?? inLine();
  forming = createForming(
    self,
    directory,
    {
      members: () => members,
      statusOf: (shard) => directory.get(shard),
      send: (to, message, record) => void sent.push({ to, message, record }),
      hasLeader: () => leader,
      forced: (_, generation) => void forced.push(generation),
    },
    new Map(),
  );
}
function wait(ms: number): void {
  for (const end = nowMs + ms; nowMs < end; nowMs += shardLimits.formCheckMs) forming.check(1, nowMs);
}
const requests = (): Request[] => sent.flatMap(({ message }) => (message.kind === 'formRequest' ? [message] : []));

beforeEach(() => {
  nowMs = 2 * day;
  directory = createDirectory();
  directory.learn(status(first, ['v1', 'v2', 'v3']));
  members = [
    ...['n1', 'n2', 'n3'].map((node) => member(node, 'alive', nowMs)),
    member('v1', 'alive', nowMs),
    member('v2', 'dead', nowMs),
    member('v3', 'dead', nowMs),
  ];
  sent = [];
  forced = [];
  leader = false;
  boot();
});

test('the first in line asks all who are alive, after the quorum was away long enough', () => {
  wait(shardLimits.formAfterMs - shardLimits.formCheckMs);
  expect(sent).toEqual([]);
  wait(3 * shardLimits.formCheckMs);
  expect(new Set(sent.map(({ to }) => to))).toEqual(new Set(['n1', 'n2', 'n3', 'v1']));
  expect(requests()[0]).toMatchObject({ generation: { number: 2, forced: true }, because: { kind: 'quorumGone' } });
  boot(['n1', 'n2', 'n3', 'v1'].find((node) => node !== inLine()));
  sent = [];
  wait(2 * shardLimits.formAfterMs);
  expect(sent).toEqual([]);
});

test('a quorum that came back in time starts the wait anew', () => {
  wait(shardLimits.formAfterMs - shardLimits.formCheckMs);
  const away = members;
  members = members.map((m) => (m.node === 'v2' ? member('v2', 'alive') : m));
  forming.check(1, nowMs);
  members = away;
  wait(shardLimits.formAfterMs - shardLimits.formCheckMs);
  expect(sent).toEqual([]);
});

test('a node alone never asks, though nobody else was seen that day', () => {
  members = [member('n1', 'alive', nowMs), ...['v1', 'v2', 'v3'].map((node) => member(node, 'dead', 0))];
  boot('n1');
  wait(10 * shardLimits.formAfterMs);
  expect(sent).toEqual([]);
});

test('half of those seen that day are not enough', () => {
  members = [
    ...['n1', 'n2', 'n3'].map((node) => member(node, 'alive', nowMs)),
    ...['v1', 'v2', 'v3'].map((node) => member(node, 'dead', nowMs)),
  ];
  boot();
  wait(3 * shardLimits.formAfterMs);
  expect(sent).toEqual([]);
});

test('it is formed with the consent of a majority and of every voter, and not before', () => {
  wait(shardLimits.formAfterMs + shardLimits.formCheckMs);
  const [request] = requests();
  if (!request) throw new Error('not asked');
  const { generation, voters } = request;
  const reply = (from: string, consent = true): void =>
    forming.onReply(from, { kind: 'formReply', shard: 0, generation, consent, known: undefined }, nowMs);
  const willing = voters.map((voter) => voter.slice(0, 2));
  const other = ['n1', 'n2', 'n3', 'v1'].find((node) => !willing.includes(node)) ?? '';
  reply(other);
  reply(other);
  for (const node of willing.slice(1)) reply(node);
  expect(forced).toEqual([]);
  reply(willing[0] ?? '', false);
  expect(forced).toEqual([]);
  reply(willing[0] ?? '');
  expect(forced).toEqual([generation]);
  expect(sent.filter(({ message }) => message.kind === 'formed').map(({ to }) => to)).toEqual(willing);
});

test('who did not consent is no voter of the next attempt, as long as a majority did', () => {
  members = members.map((one) => (one.status === 'dead' ? member(one.node, 'dead', 0) : one));
  wait(shardLimits.formAfterMs + shardLimits.formCheckMs);
  const [request] = requests();
  if (!request) throw new Error('not asked');
  const { generation, voters } = request;
  const refusing = (voters.at(-1) ?? '').slice(0, 2);
  for (const node of ['n1', 'n2', 'n3', 'v1']) {
    const consent = node !== refusing;
    forming.onReply(node, { kind: 'formReply', shard: 0, generation, consent, known: undefined }, nowMs);
  }
  expect(forced).toEqual([]);
  sent = [];
  wait(shardLimits.formTimeoutMs + shardLimits.formCheckMs);
  const [next] = requests();
  expect(next?.voters).toHaveLength(voters.length);
  expect(next?.voters).not.toContain(voters.at(-1));
});

function ask(number: number, voters: string[], because: FormReason = { kind: 'quorumGone' }): boolean {
  const replicas = voters.map((node) => replicaId(node, 1));
  const generation = { number, hash: generationHash(0, number, replicas), forced: true };
  sent = [];
  forming.onRequest('n2', { kind: 'formRequest', shard: 0, generation, voters: replicas, because }, nowMs);
  const [reply] = sent;
  if (reply?.message.kind !== 'formReply') throw new Error('no reply');
  // Consent is durable before it leaves.
  expect(reply.record?.kind).toBe(reply.message.consent ? 'consent' : undefined);
  return reply.message.consent;
}

test('a member consents only to what it sees itself', () => {
  boot('n1');
  expect(ask(2, ['n1', 'n2', 'n3'])).toBe(false);
  wait(shardLimits.formAfterMs + shardLimits.formCheckMs);
  leader = true;
  expect(ask(2, ['n1', 'n2', 'n3'])).toBe(false);
  leader = false;
  expect(ask(1, ['n1', 'n2', 'n3'])).toBe(false);
  expect(ask(2, ['n1', 'n2', 'n3'])).toBe(true);
});

test('a member consents once for each number, and repeats its consent', () => {
  boot('n1');
  wait(shardLimits.formAfterMs + shardLimits.formCheckMs);
  expect(ask(3, ['n1', 'n2', 'n3'])).toBe(true);
  expect(ask(3, ['n1', 'n2', 'v1'])).toBe(false);
  expect(ask(2, ['n1', 'n2', 'v1'])).toBe(false);
  expect(ask(3, ['n1', 'n2', 'n3'])).toBe(true);
  expect(ask(4, ['n1', 'n2', 'v1'])).toBe(true);
});

test('a request whose name does not fit its voters is refused', () => {
  boot('n1');
  wait(shardLimits.formAfterMs + shardLimits.formCheckMs);
  const generation = { number: 2, hash: 99, forced: true };
  sent = [];
  forming.onRequest(
    'n2',
    { kind: 'formRequest', shard: 0, generation, voters: [], because: { kind: 'quorumGone' } },
    nowMs,
  );
  expect(sent[0]?.message).toMatchObject({ consent: false });
});

test('two histories of one number are reason enough, also for who knew only one of them', () => {
  const twin: Generation = { number: 1, hash: 12, forced: true };
  expect(directory.learn(status(twin, ['v2', 'v3']))).toBe('conflict');
  expect(directory.learn(status(twin, ['v2', 'v3']))).toBe('nothing');
  wait(shardLimits.conflictAfterMs + 2 * shardLimits.formCheckMs);
  expect(requests()[0]).toMatchObject({ generation: { number: 2 }, because: { kind: 'conflict' } });

  directory = createDirectory();
  directory.learn(status(first, ['v1', 'v2', 'v3']));
  boot('n1');
  leader = true;
  expect(ask(2, ['n1', 'n2'], { kind: 'conflict', one: first, other: twin })).toBe(true);
});

test('after a gap nobody was away for long', () => {
  wait(shardLimits.formAfterMs - shardLimits.formCheckMs);
  nowMs += day / 2;
  forming.gap();
  wait(shardLimits.formAfterMs - shardLimits.formCheckMs);
  expect(sent).toEqual([]);
});

test('what is known gets only fresher: generation, then term, then configuration', () => {
  const second: Generation = { number: 2, hash: 5, forced: true };
  expect(directory.learn(status(first, ['v1'], 0))).toBe('nothing');
  expect(directory.learn({ ...status(first, ['v1', 'v2']), configurationIndex: 9 })).toBe('newer');
  expect(directory.learn({ ...status(first, ['v1']), configurationIndex: 8 })).toBe('nothing');
  expect(directory.learn(status(second, ['n1'], 0))).toBe('newer');
  expect(directory.learn(status(first, ['v1'], 99))).toBe('nothing');
  expect(directory.learn({ ...status(second, ['n1'], 3), leader: 'n1' })).toBe('newer');
  directory.forgetLeader('n1');
  expect(directory.get(0)?.leader).toBeUndefined();
});

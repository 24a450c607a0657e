// Goal: the composition of groups, steering, generations and claims does what the design says at 1, 2, 3 and more nodes.
// Method: nodes that only coordinate, over a network that is partitioned by hand (see mesh.ts).
import { expect, test } from 'vitest';
import { actionKey } from '../../../../mesh/core/ids.ts';
import { shardLimits } from '../../../../mesh/core/limits.ts';
import { recoverCoordination } from '../../../../mesh/core/shards/recovery.ts';
import { shardOf } from '../../../../mesh/core/shards/placement.ts';
import type { RegisterMessage } from '../../../../mesh/core/registers/messages.ts';
import { createMesh, type Mesh } from './mesh.ts';

const promises = [{ holder: 'n1', storeGeneration: 1, pinnedForMs: 3_600_000 }];
const key = actionKey('main', 'sha256', 'aa', 7);

function grown(shards: number, names: string[]): Mesh {
  const mesh = createMesh(shards);
  for (const [i, name] of names.entries()) mesh.add(name, i === 0);
  mesh.run(10_000);
  return mesh;
}

const answers = (mesh: Mesh, id: number): RegisterMessage[] =>
  mesh.inbox.flatMap(({ message }) =>
    (message.kind === 'written' || message.kind === 'lookedUp' || message.kind === 'redirect') && message.id === id
      ? [message]
      : [],
  );
const publish = (mesh: Mesh, at: string, id: number, result: string, of = key): void => {
  const leader = mesh.node(at).leaderOf(0) ?? at;
  mesh.send(at, leader, { kind: 'publish', id, shard: 0, key: of, result, executor: at, promises });
};
const lookup = (mesh: Mesh, at: string, id: number, fresh = false, of = key): void => {
  const leader = mesh.node(at).leaderOf(0) ?? at;
  mesh.send(at, leader, { kind: 'lookup', id, shard: 0, keys: [of], fresh });
};
const found = (mesh: Mesh, id: number): string[] =>
  answers(mesh, id).flatMap((answer) =>
    answer.kind === 'lookedUp' ? answer.found.map(({ register }) => `${register.kind} ${register.result}`) : [],
  );
const voters = (mesh: Mesh, shard = 0): string[] => {
  const [leader] = mesh.leaders(shard);
  return [...(mesh.node(leader ?? '').groupOf(shard)?.status.configuration.voters ?? [])];
};

test('a single node is its own group, at once', () => {
  const mesh = createMesh(4);
  mesh.add('n1', true);
  mesh.run(200);
  for (let shard = 0; shard < 4; shard++) expect(mesh.leaders(shard)).toEqual(['n1']);
  publish(mesh, 'n1', 1, 'r1');
  mesh.run(200);
  lookup(mesh, 'n1', 2);
  mesh.run(200);
  expect(answers(mesh, 1)).toMatchObject([{ kind: 'written', outcomes: ['accepted'] }]);
  expect(found(mesh, 2)).toEqual(['result r1']);
});

test('two nodes have one voter each shard, and share the shards between them', () => {
  const mesh = grown(8, ['n1', 'n2']);
  mesh.run(120_000);
  const led = Array.from({ length: 8 }, (_, shard) => mesh.leaders(shard)[0]);
  expect(new Set(led)).toEqual(new Set(['n1', 'n2']));
  for (let shard = 0; shard < 8; shard++) expect(voters(mesh, shard)).toHaveLength(1);
});

test('three nodes have three voters each shard; a fourth takes the place of one that dies', () => {
  const mesh = grown(4, ['n1', 'n2', 'n3']);
  for (let shard = 0; shard < 4; shard++) expect(voters(mesh, shard)).toEqual(['n1~1', 'n2~1', 'n3~1']);
  mesh.add('n4');
  mesh.run(3_000);
  mesh.crash('n2');
  mesh.run(20_000);
  for (let shard = 0; shard < 4; shard++) expect(voters(mesh, shard)).toEqual(['n1~1', 'n3~1', 'n4~1']);
});

test('nine nodes have five voters', () => {
  const mesh = grown(2, ['n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7', 'n8', 'n9']);
  mesh.run(30_000);
  for (let shard = 0; shard < 2; shard++) expect(voters(mesh, shard)).toHaveLength(5);
});

test('any member reads and writes through the leader, and a restart forgets nothing', () => {
  const mesh = grown(1, ['n1', 'n2', 'n3', 'n4']);
  publish(mesh, 'n4', 1, 'r1');
  mesh.run(500);
  for (const id of ['n1', 'n2', 'n3', 'n4']) mesh.crash(id);
  for (const id of ['n1', 'n2', 'n3', 'n4']) mesh.restart(id);
  mesh.run(10_000);
  lookup(mesh, 'n4', 2, true);
  mesh.run(500);
  expect(found(mesh, 2)).toEqual(['result r1']);
});

test('a node that says goodbye hands over what it leads before it goes', () => {
  const mesh = grown(4, ['n1', 'n2', 'n3']);
  mesh.goodbye('n1');
  mesh.run(1_000);
  for (let shard = 0; shard < 4; shard++) expect(mesh.leaders(shard)).not.toContain('n1');
});

test('the sole voter that says goodbye hands over to the other node', () => {
  const mesh = grown(2, ['n1', 'n2']);
  publish(mesh, 'n1', 1, 'r1');
  mesh.run(300);
  mesh.goodbye('n1');
  mesh.run(5_000);
  mesh.crash('n1');
  mesh.run(3_000);
  expect(mesh.leaders(0)).toEqual(['n2']);
  lookup(mesh, 'n2', 2, true);
  mesh.run(300);
  expect(found(mesh, 2)).toEqual(['result r1']);
});

test('a node alone never forms a shard anew', () => {
  const mesh = grown(1, ['n1', 'n2', 'n3']);
  mesh.partition(['n1'], ['n2'], ['n3']);
  mesh.run(5 * shardLimits.formAfterMs);
  expect(mesh.notes.filter(({ note }) => note.kind === 'generationForced')).toEqual([]);
});

test('a majority of those seen that day forms a shard anew; the old history merges into it, tombstones too', () => {
  const mesh = grown(1, ['n1', 'n2', 'n3']);
  publish(mesh, 'n1', 1, 'r1');
  const other = actionKey('main', 'sha256', 'bb', 7);
  publish(mesh, 'n1', 2, 'bad', other);
  mesh.run(300);
  mesh.send('n1', mesh.node('n1').leaderOf(0) ?? '', {
    kind: 'invalidate',
    id: 3,
    shard: 0,
    key: other,
    result: 'bad',
    reason: 'wrong',
  });
  mesh.run(300);
  // Two of three voters go; those that are left were not voters.
  for (const name of ['n4', 'n5', 'n6', 'n7']) mesh.add(name);
  mesh.run(2_000);
  const [v1 = '', v2 = '', v3 = ''] = voters(mesh).map((voter) => voter.slice(0, 2));
  mesh.partition(['n4', 'n5', 'n6', 'n7', v3], [v1, v2]);
  mesh.run(shardLimits.formAfterMs + 40_000);
  const forced = mesh.notes.filter(({ note }) => note.kind === 'generationForced');
  expect(forced).toHaveLength(1);
  expect(mesh.leaders(0)).toHaveLength(2);
  publish(mesh, 'n4', 4, 'r2');
  publish(mesh, v1, 5, 'old', actionKey('main', 'sha256', 'cc', 7));
  mesh.run(500);
  mesh.heal();
  mesh.run(30_000);
  expect(mesh.leaders(0)).toHaveLength(1);
  expect(mesh.notes.some(({ note }) => note.kind === 'generationsMet')).toBe(true);
  expect(mesh.notes.some(({ note }) => note.kind === 'merged')).toBe(true);
  lookup(mesh, 'n5', 6, true);
  lookup(mesh, 'n5', 7, true, other);
  lookup(mesh, 'n5', 8, true, actionKey('main', 'sha256', 'cc', 7));
  mesh.run(500);
  // The third voter carried r1 into the new history before anybody published r2.
  expect(found(mesh, 6)).toEqual(['result r1']);
  expect(found(mesh, 7)).toEqual(['tombstone bad']);
  expect(found(mesh, 8)).toEqual(['result old']);
  // All was handed over: of the shard every disk remembers one history, its newest.
  for (const [id, { coordination }] of mesh.nodes) {
    const { groups } = recoverCoordination(coordination.checkpoint());
    expect(groups.size, id).toBeLessThanOrEqual(1);
  }
});

test('what was answered for is offered by a voter whose disk does not know that it was committed', () => {
  const mesh = grown(1, ['n1', 'n2', 'n3']);
  for (const name of ['n4', 'n5', 'n6', 'n7']) mesh.add(name);
  mesh.run(2_000);
  const [leader = ''] = mesh.leaders(0);
  const [other = '', third = ''] = voters(mesh)
    .map((voter) => voter.slice(0, 2))
    .filter((name) => name !== leader);
  mesh.partition([leader, other], [third, 'n4', 'n5', 'n6', 'n7']);
  mesh.run(1_000);
  publish(mesh, leader, 1, 'r1');
  mesh.run(100);
  expect(answers(mesh, 1)).toMatchObject([{ kind: 'written', outcomes: ['accepted'] }]);
  mesh.crash(leader);
  mesh.crash(other);
  mesh.run(shardLimits.formAfterMs + 40_000);
  expect(mesh.notes.filter(({ note }) => note.kind === 'generationForced')).toHaveLength(1);
  mesh.restart(other);
  mesh.heal();
  mesh.run(30_000);
  lookup(mesh, 'n4', 2, true);
  mesh.run(500);
  expect(found(mesh, 2)).toEqual(['result r1']);
});

test('two histories of one number are both superseded by the next', () => {
  const mesh = grown(1, ['n1', 'n2', 'n3']);
  for (const name of ['n4', 'n5', 'n6', 'n7']) mesh.add(name);
  mesh.run(2_000);
  const [v1 = '', v2 = '', v3 = ''] = voters(mesh).map((voter) => voter.slice(0, 2));
  // Each side sees only itself as ever alive: two meshes that were split long ago.
  const sides = [
    ['n4', 'n5', v1],
    ['n6', 'n7', v2],
  ];
  mesh.partition(...sides, [v3]);
  mesh.nowMs += shardLimits.dayMs + 1_000;
  for (const id of mesh.nodes.keys()) {
    const side = sides.find((names) => names.includes(id)) ?? [v3];
    const members = [...mesh.nodes.keys()].sort().map((node) => ({
      node,
      disk: 1,
      status: side.includes(node) ? ('alive' as const) : ('dead' as const),
      lastAliveAtMs: side.includes(node) ? mesh.nowMs : 0,
      aliveSinceMs: 0,
      stability: { alwaysOn: false, mainsPower: false, wired: false, optedOut: false },
    }));
    mesh.event(id, { kind: 'members', members });
  }
  mesh.run(shardLimits.formAfterMs + 40_000);
  const numbers = () => mesh.leaders(0).map((id) => mesh.node(id).groupOf(0)?.generation.number);
  expect(numbers()).toEqual([2, 2]);
  mesh.heal();
  mesh.run(60_000);
  expect(numbers()).toEqual([3]);
});

test('a rewritten log file recovers to what the whole one does', () => {
  const mesh = grown(2, ['n1', 'n2', 'n3', 'n4']);
  publish(mesh, 'n2', 1, 'r1');
  mesh.run(500);
  mesh.crash('n2');
  mesh.run(20_000);
  mesh.restart('n2');
  mesh.run(40_000);
  for (const [id, node] of mesh.nodes) {
    const whole = recoverCoordination(node.records);
    const rewritten = recoverCoordination(node.coordination.checkpoint());
    const sorted = (disk: typeof whole) => [...disk.groups].sort(([a], [b]) => (a < b ? -1 : 1));
    expect(sorted(rewritten), id).toEqual(sorted(whole));
    expect(rewritten.consents, id).toEqual(whole.consents);
    expect(node.coordination.checkpoint().length, id).toBeLessThanOrEqual(node.records.length);
  }
});

test('every action key has a shard, evenly', () => {
  const counts = new Array<number>(16).fill(0);
  for (let i = 0; i < 16_000; i++) {
    const shard = shardOf(actionKey('', 'sha256', i.toString(16), i), 16);
    counts[shard] = (counts[shard] ?? 0) + 1;
  }
  expect(Math.min(...counts)).toBeGreaterThan(850);
  expect(Math.max(...counts)).toBeLessThan(1_150);
});

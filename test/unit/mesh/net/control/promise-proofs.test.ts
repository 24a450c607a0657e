import { afterAll, expect, test } from 'vitest';
import type { PeerMessage } from '../../../../../mesh/core/peer.ts';
import {
  BrokenRule,
  bodiesOf,
  createSnapshotParts,
  decodeControl,
  encodeControl,
  messageIn,
} from '../../../../../mesh/net/control/codec.ts';
import { createPromiseProofs, type PromiseProofs } from '../../../../../mesh/net/control/promise-proofs.ts';
import type { Identity } from '../../../../../mesh/net/identity/identity.ts';
import { createRoster, type Roster } from '../../../../../mesh/net/identity/roster.ts';
import { createRealMesh } from '../../../../support/real-mesh.ts';

const clock = { nowMs: Date.now() };
const mesh = createRealMesh(clock);
afterAll(() => mesh.close());

interface Node {
  readonly identity: Identity;
  readonly roster: Roster;
  readonly proofs: PromiseProofs;
}

async function nodes(count: number): Promise<Node[]> {
  const all: Node[] = [];
  for (let at = 0; at < count; at++) {
    const { identity } = await mesh.join();
    const roster = createRoster(identity);
    all.push({ identity, roster, proofs: createPromiseProofs(identity, roster) });
  }
  for (const { roster } of all) for (const { identity } of all) roster.learn(identity.certificate());
  return all;
}

/** The message as the receiver's machine gets it. */
function carry(from: Node, to: Node, message: PeerMessage): PeerMessage {
  const ends = { self: from.identity.peerId, far: to.identity.peerId };
  const [body] = bodiesOf(message, ends, from.proofs.leaving(ends.far, message));
  const received = decodeControl(encodeControl(body as NonNullable<typeof body>));
  const there = { self: ends.far, far: ends.self };
  const arrived = messageIn(received, there, createSnapshotParts());
  return to.proofs.arrived(ends.self, arrived as PeerMessage, received);
}

const key = 'sha256/aa/10/';
const result = 'sha256/bb/20';
const token = { generation: 1, term: 2, counter: 3 };

/** The submitter got `result` and promised it; returns what the executor then tells the leader's machine. */
function promised(submitter: Node, executor: Node, leader: Node, claimed = { key, result, pinnedForMs: 60_000 }) {
  const outcome = { result, sizeBytes: 20, cacheable: true };
  carry(executor, submitter, { kind: 'handOver', shard: 0, key, request: 'r', token, outcome, runMs: 1 });
  const promise = { holder: submitter.identity.peerId, storeGeneration: 7, pinnedForMs: 60_000 };
  carry(submitter, executor, { kind: 'handedOver', key, token, promise });
  const own = { holder: executor.identity.peerId, storeGeneration: 8, pinnedForMs: 60_000 };
  const commit = {
    kind: 'commit',
    claim: { shard: 0, key: claimed.key, token: { ...token, term: 3 } },
    result: claimed.result,
    cacheable: true,
    promises: [own, { ...promise, pinnedForMs: claimed.pinnedForMs }],
  } as const;
  return { commit, arrived: () => carry(executor, leader, commit) };
}

test('what a submitter promised reaches the leader with the commit, under whatever token', async () => {
  const [submitter, executor, leader] = (await nodes(3)) as [Node, Node, Node];
  const { commit, arrived } = promised(submitter, executor, leader);
  expect(arrived()).toEqual(commit);
});

test('a promise for another result, for longer, of nobody, or that is over, is none', async () => {
  const [submitter, executor, leader] = (await nodes(3)) as [Node, Node, Node];
  const own = [expect.objectContaining({ holder: executor.identity.peerId }) as object];
  for (const lie of [
    { key, result: 'sha256/cc/20', pinnedForMs: 60_000 },
    { key: 'sha256/dd/10/', result, pinnedForMs: 60_000 },
    { key, result, pinnedForMs: 24 * 3_600_000 },
  ]) {
    expect(promised(submitter, executor, leader, lie).arrived(), JSON.stringify(lie)).toMatchObject({ promises: own });
  }
  const { arrived } = promised(submitter, executor, leader);
  clock.nowMs += 3_600_000;
  expect(arrived()).toMatchObject({ promises: own });
});

test('nobody promises or publishes in the name of another', async () => {
  const [submitter, executor, leader] = (await nodes(3)) as [Node, Node, Node];
  const promise = { holder: leader.identity.peerId, storeGeneration: 7, pinnedForMs: 60_000 };
  expect(() => carry(submitter, executor, { kind: 'handedOver', key, token, promise })).toThrow(BrokenRule);
  const published = { kind: 'publish', id: 1, shard: 0, key, result, executor: submitter.identity.peerId } as const;
  expect(carry(submitter, leader, { ...published, promises: [promise] })).toMatchObject({ promises: [] });
});

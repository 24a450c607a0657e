import { expect, test } from 'vitest';
import { createExecutor, type Executor, type ExecutorEffect } from '../../../../mesh/core/agents/executor.ts';
import { executorLimits } from '../../../../mesh/core/agents/limits.ts';
import type { ClaimRef, GrantedClaim } from '../../../../mesh/core/claims/messages.ts';

const token = { generation: 1, term: 2, counter: 3 };
const key = 'sha256/aa/1/';
const claim: ClaimRef = { shard: 0, key, token };
const granted: GrantedClaim = {
  ...claim,
  submitter: 'anna',
  request: 'anna/1',
  doNotCache: false,
  spaceBytes: 100,
  reserved: false,
  expiresInMs: 9_000,
};
const outcome = { result: 'sha256/bb/2', sizeBytes: 10 };

function create(slots = 2): Executor {
  const executor = createExecutor({ self: 'me', storeGeneration: 1, holds: () => [], freeBytes: () => 1_000 });
  executor.step({ kind: 'slots', slots, guests: true, capabilities: ['os=linux'] }, 0);
  executor.step({ kind: 'workAt', leader: 'lea' }, 0);
  return executor;
}

const grant = (executor: Executor, change: Partial<GrantedClaim> = {}, nowMs = 1): readonly ExecutorEffect[] =>
  executor.step(
    { kind: 'message', from: 'lea', message: { kind: 'granted', pull: 1, claims: [{ ...granted, ...change }] } },
    nowMs,
  );

/** Takes the granted action to where it runs. */
function start(executor: Executor): void {
  grant(executor);
  executor.step({ kind: 'reserved', run: 1 }, 2);
  executor.step({ kind: 'fetched', run: 1, ok: true }, 3);
}

const sentKinds = (effects: readonly ExecutorEffect[]): string[] =>
  effects.flatMap((effect) => (effect.kind === 'send' ? [effect.message.kind] : []));

test('an action goes from the grant to the commit, and promises come before it', () => {
  const executor = create();
  expect(grant(executor)).toContainEqual({ kind: 'reserve', run: 1, spaceBytes: 100 });
  expect(executor.step({ kind: 'reserved', run: 1 }, 2)).toContainEqual(
    expect.objectContaining({ kind: 'fetchInputs', from: 'anna', key }),
  );
  expect(executor.step({ kind: 'fetched', run: 1, ok: true }, 3)).toContainEqual(
    expect.objectContaining({ kind: 'run', run: 1, guest: true, token }),
  );
  expect(executor.step({ kind: 'ran', run: 1, outcome }, 500)).toContainEqual({ kind: 'pinOutputs', run: 1, outcome });
  expect(executor.step({ kind: 'pinned', run: 1, forMs: 60_000 }, 501)).toContainEqual(
    expect.objectContaining({
      kind: 'send',
      to: 'anna',
      message: expect.objectContaining({ kind: 'handOver', token }),
    }),
  );
  const promise = { holder: 'anna', storeGeneration: 4, pinnedForMs: 50_000 };
  const mine = { holder: 'me', storeGeneration: 1, pinnedForMs: 60_000 };
  const effects = executor.step(
    { kind: 'message', from: 'anna', message: { kind: 'handedOver', key, token, promise } },
    520,
  );
  expect(effects).toContainEqual({
    kind: 'send',
    to: 'lea',
    message: { kind: 'commit', claim, result: outcome.result, promises: [mine, promise] },
  });
  executor.step({ kind: 'message', from: 'lea', message: { kind: 'committed', claim, outcome: 'accepted' } }, 530);
  expect([...executor.runs()]).toEqual([]);
});

test('a grant that a change of leader overtook is registered with the new leader', () => {
  const executor = create();
  executor.step({ kind: 'leader', shard: 0, leader: 'lou' }, 0);
  const registered = grant(executor).find((effect) => effect.kind === 'send' && effect.message.kind === 'register');
  expect(registered).toMatchObject({ to: 'lou', message: { claims: [{ key, token }] } });
});

test('without free slots a grant is given back, and its leader is left alone for a while', () => {
  const executor = create(1);
  start(executor);
  const other = { ...granted, key: 'sha256/cc/1/', token: { ...token, counter: 4 } };
  const effects = grant(executor, other, 10);
  expect(sentKinds(effects)).toContain('giveBack');
  expect(sentKinds(effects)).not.toContain('pull');
});

test('a revoked claim stops the run; nobody else can revoke or renew it', () => {
  const executor = create();
  start(executor);
  const old = { ...claim, token: { ...token, counter: 2 } };
  const revoke = (ref: ClaimRef) =>
    executor.step(
      { kind: 'message', from: 'lea', message: { kind: 'revoked', claims: [{ ...ref, reason: 'expired' }] } },
      20,
    );
  expect(revoke(old)).not.toContainEqual({ kind: 'kill', run: 1 });
  expect(revoke(claim)).toContainEqual({ kind: 'kill', run: 1 });
  expect(executor.freeSlots()).toBe(2);
});

test('when the owner returns, guests freeze at once, and are given back when the owner stays', () => {
  const executor = create();
  start(executor);
  expect(executor.step({ kind: 'owner', present: true }, 100)).toContainEqual({ kind: 'freeze', run: 1 });
  expect(executor.step({ kind: 'owner', present: false }, 900)).toContainEqual({ kind: 'thaw', run: 1 });
  executor.step({ kind: 'owner', present: true }, 1_000);
  const effects = executor.step({ kind: 'wake' }, 1_000 + executorLimits.freezeMs);
  expect(effects).toContainEqual({ kind: 'kill', run: 1 });
  expect(sentKinds(effects)).toContain('giveBack');
});

test('nothing starts for a guest while the owner is there', () => {
  const executor = create();
  grant(executor);
  executor.step({ kind: 'reserved', run: 1 }, 2);
  executor.step({ kind: 'owner', present: true }, 3);
  const kinds = (effects: readonly ExecutorEffect[]) => effects.map(({ kind }) => kind);
  expect(kinds(executor.step({ kind: 'fetched', run: 1, ok: true }, 4))).not.toContain('run');
  expect(kinds(executor.step({ kind: 'owner', present: false }, 5))).toContain('run');
});

test('a new leader is told what runs until it adopts it, and the commit carries its token', () => {
  const executor = create();
  start(executor);
  const fresh = { generation: 1, term: 5, counter: 1 };
  const told = executor.step({ kind: 'leader', shard: 0, leader: 'max' }, 100);
  expect(sentKinds(told)).toContain('register');
  expect(sentKinds(executor.step({ kind: 'wake' }, 100 + executorLimits.registerRetryMs))).toContain('register');
  const adopted = { kind: 'adopted' as const, old: token, claim: { ...claim, token: fresh }, expiresInMs: 9_000 };
  executor.step({ kind: 'message', from: 'max', message: adopted }, 700);
  executor.step({ kind: 'ran', run: 1, outcome }, 800);
  executor.step({ kind: 'pinned', run: 1, forMs: 1_000 }, 801);
  const effects = executor.step({ kind: 'absent', node: 'anna' }, 802);
  expect(effects).toContainEqual(
    expect.objectContaining({
      to: 'max',
      message: expect.objectContaining({ kind: 'commit', claim: { ...claim, token: fresh } }),
    }),
  );
});

test('the same action granted anew goes on where it is', () => {
  const executor = create();
  start(executor);
  const fresh = { generation: 1, term: 5, counter: 1 };
  const effects = grant(executor, { token: fresh }, 50);
  expect(effects.some(({ kind }) => kind === 'reserve' || kind === 'kill')).toBe(false);
  expect([...executor.runs()].map((run) => run.token)).toEqual([fresh]);
});

test('a reservation fetches its inputs, and runs only when its leader confirmed the start', () => {
  const executor = create(1);
  start(executor);
  const other = { ...granted, key: 'sha256/cc/1/', token: { ...token, counter: 4 }, reserved: true };
  grant(executor, other, 10);
  executor.step({ kind: 'reserved', run: 2 }, 11);
  executor.step({ kind: 'fetched', run: 2, ok: true }, 12);
  const effects = executor.step({ kind: 'ran', run: 1, outcome }, 20);
  expect(effects.some(({ kind }) => kind === 'run')).toBe(false);
  expect(sentKinds(effects)).toContain('start');
  const confirmed = {
    kind: 'started' as const,
    claim: { shard: 0, key: other.key, token: other.token },
    expiresInMs: 9,
  };
  expect(executor.step({ kind: 'message', from: 'lea', message: confirmed }, 21)).toContainEqual(
    expect.objectContaining({ kind: 'run', run: 2 }),
  );
});

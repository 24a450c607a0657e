import { expect, test } from 'vitest';
import { createExecutor } from '../../../../mesh/core/agents/executor.ts';
import type { Executor, ExecutorEffect } from '../../../../mesh/core/agents/executor/types.ts';
import { executorLimits } from '../../../../mesh/core/agents/limits.ts';
import type { AgentMessage } from '../../../../mesh/core/agents/messages.ts';
import type { ClaimMessage, ClaimRef, GrantedClaim } from '../../../../mesh/core/claims/messages.ts';

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
  stay: false,
  expiresInMs: 9_000,
};
const outcome = { result: 'sha256/bb/2', sizeBytes: 10, cacheable: true };

function create(slots = 2, guestSlots = slots): Executor {
  const executor = createExecutor({ self: 'me', storeGeneration: 1, holds: () => [], freeBytes: () => 1_000 });
  executor.step({ kind: 'slots', slots, guests: true, guestSlots, capabilities: ['os=linux'] }, 0);
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
  expect(executor.step({ kind: 'ran', run: 1, outcome, runMs: 400 }, 500)).toContainEqual({
    kind: 'pinOutputs',
    run: 1,
    outcome,
  });
  expect(executor.step({ kind: 'pinned', run: 1, forMs: 60_000 }, 501)).toContainEqual(
    expect.objectContaining({
      kind: 'send',
      to: 'anna',
      message: expect.objectContaining({ kind: 'handOver', token, runMs: 400 }),
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
    message: { kind: 'commit', claim, result: outcome.result, cacheable: true, promises: [mine, promise] },
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

test('what has not begun for a guest is given back as soon as the owner is there, and no more is claimed', () => {
  const executor = create();
  grant(executor);
  executor.step({ kind: 'reserved', run: 1 }, 2);
  const effects = executor.step({ kind: 'owner', present: true }, 3);
  expect(sentKinds(effects)).toContain('giveBack');
  expect(effects).toContainEqual({ kind: 'kill', run: 1 });
  const pull = effects.find((effect) => effect.kind === 'send' && effect.message.kind === 'pull');
  expect(pull).toMatchObject({ message: { ownOnly: true } });
  expect(sentKinds(grant(executor, { token: { ...token, counter: 9 } }, 4))).toContain('giveBack');
});

test('the submitter hears that its action stands still, and that it goes on', () => {
  const executor = create();
  start(executor);
  const frozen = executor.step({ kind: 'owner', present: true }, 100);
  const stage = { kind: 'stage', key, request: 'anna/1', token };
  expect(frozen).toContainEqual({ kind: 'send', to: 'anna', message: { ...stage, stage: 'frozen' } });
  const thawed = executor.step({ kind: 'owner', present: false }, 200);
  expect(thawed).toContainEqual({ kind: 'send', to: 'anna', message: { ...stage, stage: 'executing' } });
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
  executor.step({ kind: 'ran', run: 1, outcome, runMs: 400 }, 800);
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
  const effects = executor.step({ kind: 'ran', run: 1, outcome, runMs: 400 }, 20);
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

test('a slot is kept for a reservation whose start is being confirmed', () => {
  const executor = create(1);
  start(executor);
  const other = { ...granted, key: 'sha256/cc/1/', token: { ...token, counter: 4 }, reserved: true };
  grant(executor, other, 10);
  executor.step({ kind: 'reserved', run: 2 }, 11);
  executor.step({ kind: 'fetched', run: 2, ok: true }, 12);
  executor.step({ kind: 'ran', run: 1, outcome, runMs: 8 }, 20);
  expect(executor.freeSlots()).toBe(0);
  const third = { key: 'sha256/dd/1/', token: { ...token, counter: 5 } };
  expect(sentKinds(grant(executor, third, 21))).toContain('giveBack');
});

test('guests have no more slots than are lent, and own actions may have them all', () => {
  const executor = create(3, 1);
  start(executor);
  const other = { key: 'sha256/cc/1/', token: { ...token, counter: 4 } };
  expect(sentKinds(grant(executor, other, 10))).toContain('giveBack');
  const own = { ...other, submitter: 'me', request: 'me/1' };
  expect(grant(executor, own, 11)).toContainEqual(expect.objectContaining({ kind: 'reserve' }));
  const pulled = executor.step({ kind: 'workAt', leader: 'lou' }, 12);
  const pull = pulled.find((effect) => effect.kind === 'send' && effect.to === 'lou');
  expect(pull).toMatchObject({ message: { kind: 'pull', slots: 1, ownOnly: true } });
});

/** An action of an own client that stays, as far as it runs. */
function stay(executor: Executor): readonly ExecutorEffect[] {
  executor.step({ kind: 'runOwn', request: 'me/1', key, spaceBytes: 10, isMergeable: true }, 1);
  return executor.step({ kind: 'reserved', run: 1 }, 1);
}
const stayed: Partial<GrantedClaim> = { submitter: 'me', request: 'me/1', stay: true };

test('an own action starts without any leader, and goes on under the claim that is granted for it', () => {
  const executor = create();
  const started = stay(executor);
  expect(started).toContainEqual(expect.objectContaining({ kind: 'run', run: 1, guest: false, token: undefined }));
  expect(started).toContainEqual(
    expect.objectContaining({ to: 'me', message: expect.objectContaining({ kind: 'stage', stage: 'executing' }) }),
  );
  expect(grant(executor, stayed)).toContainEqual({ kind: 'ownClaimed', request: 'me/1', token });
  const ended = executor.step({ kind: 'ran', run: 1, outcome, runMs: 70 }, 80);
  // The own client waits for nobody; the result is committed all the same.
  expect(ended).toContainEqual(expect.objectContaining({ kind: 'ownEnded', request: 'me/1', token, outcome }));
  const pinned = executor.step({ kind: 'pinned', run: 1, forMs: 60_000 }, 81);
  expect(pinned).toContainEqual(
    expect.objectContaining({ to: 'lea', message: expect.objectContaining({ kind: 'commit', claim }) }),
  );
});

test('a claim for a run that is over already is given back', () => {
  const executor = create();
  stay(executor);
  executor.step({ kind: 'ran', run: 1, outcome, runMs: 1 }, 2);
  const effects = grant(executor, stayed, 3);
  expect(sentKinds(effects)).toContain('giveBack');
  expect(effects.some(({ kind }) => kind === 'reserve')).toBe(false);
});

test('an own run goes on without its claim when that is lost, and stops when nobody waits for it', () => {
  const executor = create();
  stay(executor);
  grant(executor, stayed);
  const revoked = { kind: 'revoked' as const, claims: [{ ...claim, reason: 'expired' as const }] };
  const effects = executor.step({ kind: 'message', from: 'lea', message: revoked }, 50);
  expect(effects).toContainEqual({ kind: 'ownUnclaimed', request: 'me/1' });
  expect(effects.some(({ kind }) => kind === 'kill')).toBe(false);
  expect(executor.step({ kind: 'stopOwn', request: 'me/1' }, 60)).toContainEqual({ kind: 'kill', run: 1 });
});

test('a run whose outcome must not be stored is handed over and finished, and promised to nobody', () => {
  const executor = create();
  start(executor);
  executor.step({ kind: 'ran', run: 1, outcome: { ...outcome, cacheable: false }, runMs: 9 }, 20);
  executor.step({ kind: 'pinned', run: 1, forMs: 60_000 }, 21);
  const handedOver = { kind: 'handedOver' as const, key, token, promise: undefined };
  const effects = executor.step({ kind: 'message', from: 'anna', message: handedOver }, 22);
  expect(effects).toContainEqual(
    expect.objectContaining({ message: expect.objectContaining({ kind: 'commit', cacheable: false }) }),
  );
});

test('own clients come before guests in the slots that become free', () => {
  const executor = create(1);
  start(executor);
  executor.step({ kind: 'runOwn', request: 'me/2', key: 'sha256/ee/1/', spaceBytes: 10, isMergeable: true }, 10);
  const effects = executor.step({ kind: 'ran', run: 1, outcome, runMs: 8 }, 20);
  expect(effects).toContainEqual({ kind: 'reserve', run: 2, spaceBytes: 10 });
  const slots = effects.filter((effect) => effect.kind === 'send' && effect.message.kind === 'pull');
  expect(
    slots.every((effect) => effect.kind === 'send' && effect.message.kind === 'pull' && effect.message.slots === 0),
  ).toBe(true);
});

test('what runs here for somebody else is run once, and again when that run ends without an outcome', () => {
  const executor = create();
  start(executor);
  const own = { kind: 'runOwn' as const, request: 'me/1', key, spaceBytes: 10, isMergeable: true };
  const merged = executor.step(own, 10);
  expect(merged).toContainEqual({ kind: 'ownClaimed', request: 'me/1', token });
  expect(merged.some(({ kind }) => kind === 'reserve')).toBe(false);
  const given = executor.step({ kind: 'runFailed', run: 1, reason: 'inputsMissing' }, 20);
  expect(given).toContainEqual({ kind: 'ownUnclaimed', request: 'me/1' });
  expect(given).toContainEqual({ kind: 'reserve', run: 2, spaceBytes: 100 });
});

test('an own client that merged with a guest is answered when that ends', () => {
  const executor = create();
  start(executor);
  executor.step({ kind: 'runOwn', request: 'me/1', key, spaceBytes: 10, isMergeable: true }, 10);
  const ended = executor.step({ kind: 'ran', run: 1, outcome, runMs: 8 }, 20);
  expect(ended).toContainEqual(expect.objectContaining({ kind: 'ownEnded', request: 'me/1', token }));
});

test('while own actions wait no guests are asked for, until slots stay free all the same', () => {
  const executor = create();
  const pullOf = (effects: readonly ExecutorEffect[]) =>
    effects.find((effect) => effect.kind === 'send' && effect.message.kind === 'pull');
  const asked = executor.step({ kind: 'ownWaiting', waiting: true }, 10);
  expect(pullOf(asked)).toMatchObject({ message: { slots: 2, ownOnly: true } });
  const later = executor.step({ kind: 'wake' }, 10 + executorLimits.ownFirstMs);
  expect(pullOf(later)).toMatchObject({ message: { slots: 2, ownOnly: false } });
});

test('a claim that comes late for what waits here to be run without one is given back', () => {
  const executor = create(1);
  start(executor);
  executor.step({ kind: 'runOwn', request: 'me/9', key: 'sha256/ff/1/', spaceBytes: 10, isMergeable: false }, 10);
  const late = {
    key: 'sha256/ff/1/',
    request: 'me/9',
    submitter: 'me',
    token: { ...token, counter: 8 },
    reserved: true,
  };
  expect(sentKinds(grant(executor, late, 11))).toContain('giveBack');
  expect(executor.step({ kind: 'ran', run: 1, outcome, runMs: 8 }, 20)).toContainEqual({
    kind: 'reserve',
    run: 2,
    spaceBytes: 10,
  });
});

test('a reservation whose inputs are here is ended with a word when somebody else gets it', () => {
  const executor = create(1);
  start(executor);
  const other = { ...granted, key: 'sha256/cc/1/', token: { ...token, counter: 4 }, reserved: true };
  grant(executor, other, 10);
  executor.step({ kind: 'reserved', run: 2 }, 11);
  executor.step({ kind: 'fetched', run: 2, ok: true }, 12);
  const stolen = { shard: 0, key: other.key, token: other.token, reason: 'stolen' as const };
  const revoked = { kind: 'revoked' as const, claims: [stolen] };
  const effects = executor.step({ kind: 'message', from: 'lea', message: revoked }, 20);
  expect(effects).toContainEqual({ kind: 'kill', run: 2 });
});

test('a grant by somebody else than the known leader runs only when that one adopts it', () => {
  const executor = create();
  executor.step({ kind: 'leader', shard: 0, leader: 'lou' }, 0);
  grant(executor);
  executor.step({ kind: 'reserved', run: 1 }, 2);
  const fetched = executor.step({ kind: 'fetched', run: 1, ok: true }, 3);
  expect(fetched.some(({ kind }) => kind === 'run')).toBe(false);
  const fresh = { generation: 1, term: 5, counter: 1 };
  const adopted = { kind: 'adopted' as const, old: token, claim: { ...claim, token: fresh }, expiresInMs: 9_000 };
  const forged = executor.step({ kind: 'message', from: 'lea', message: adopted }, 4);
  expect(forged.some(({ kind }) => kind === 'run')).toBe(false);
  expect(executor.step({ kind: 'message', from: 'lou', message: adopted }, 5)).toContainEqual(
    expect.objectContaining({ kind: 'run', run: 1, token: fresh }),
  );
});

test('a grant that came ahead of the news of its leader runs when the news come', () => {
  const executor = create();
  executor.step({ kind: 'leader', shard: 0, leader: 'lou' }, 0);
  grant(executor);
  executor.step({ kind: 'reserved', run: 1 }, 2);
  executor.step({ kind: 'fetched', run: 1, ok: true }, 3);
  const told = executor.step({ kind: 'leader', shard: 0, leader: 'lea' }, 10);
  expect(told).toContainEqual(
    expect.objectContaining({ to: 'lea', message: expect.objectContaining({ kind: 'register' }) }),
  );
  const adopted = { kind: 'adopted' as const, old: token, claim, expiresInMs: 9_000 };
  expect(executor.step({ kind: 'message', from: 'lea', message: adopted }, 11)).toContainEqual(
    expect.objectContaining({ kind: 'run', run: 1, token }),
  );
});

test('an own run does not go on under a claim of somebody else than the known leader', () => {
  const executor = create();
  executor.step({ kind: 'leader', shard: 0, leader: 'lou' }, 0);
  stay(executor);
  const effects = grant(executor, stayed);
  expect(sentKinds(effects)).toContain('giveBack');
  expect(effects.some(({ kind }) => kind === 'ownClaimed')).toBe(false);
  const [run] = executor.runs();
  expect(run).toMatchObject({ token: undefined, phase: 'running' });
});

test('only the leader of a claim takes it away, confirms its start, and ends its commit', () => {
  const executor = create(1);
  executor.step({ kind: 'leader', shard: 0, leader: 'lea' }, 0);
  start(executor);
  const from = (node: string, message: ClaimMessage | AgentMessage, nowMs: number) =>
    executor.step({ kind: 'message', from: node, message }, nowMs);
  const revoked = { kind: 'revoked' as const, claims: [{ ...claim, reason: 'expired' as const }] };
  expect(from('mal', revoked, 5)).not.toContainEqual({ kind: 'kill', run: 1 });

  const ahead = { key: 'sha256/cc/1/', token: { ...token, counter: 4 } };
  grant(executor, { ...ahead, reserved: true }, 10);
  executor.step({ kind: 'reserved', run: 2 }, 11);
  executor.step({ kind: 'fetched', run: 2, ok: true }, 12);
  const started = { kind: 'started' as const, claim: { shard: 0, ...ahead }, expiresInMs: 9_000 };
  expect(from('mal', started, 13).some(({ kind }) => kind === 'run')).toBe(false);

  executor.step({ kind: 'ran', run: 1, outcome, runMs: 400 }, 20);
  executor.step({ kind: 'pinned', run: 1, forMs: 1_000 }, 21);
  const handedOver = { kind: 'handedOver' as const, key, token, promise: undefined };
  expect(sentKinds(from('mal', handedOver, 22))).not.toContain('commit');
  expect(sentKinds(from('mal', { kind: 'handOverRefused', key, token }, 23))).not.toContain('commit');
  expect(sentKinds(from('anna', handedOver, 24))).toContain('commit');
  const committed = { kind: 'committed' as const, claim, outcome: 'accepted' as const };
  from('mal', committed, 25);
  expect([...executor.runs()].map(({ run }) => run)).toContain(1);
  // Its question is repeated, until who leads answers.
  expect(sentKinds(executor.step({ kind: 'wake' }, 24 + executorLimits.commitRetryMs))).toContain('commit');
  from('lea', committed, 2_000);
  expect([...executor.runs()].map(({ run }) => run)).not.toContain(1);
});

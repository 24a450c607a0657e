// Goal: each rule of who may run what, at one leader; then that no order of messages gives one action to two executors.
// Method: the machine alone, with a register that the test fills; messages in, messages out.
import fc from 'fast-check';
import { beforeEach, expect, test } from 'vitest';
import { type Claims, createClaims } from '../../../../mesh/core/claims/claims.ts';
import type { ClaimMessage, ClaimRef, GrantedClaim, SubmitItem } from '../../../../mesh/core/claims/messages.ts';
import type { ClaimsEffect, ClaimsEvent } from '../../../../mesh/core/claims/types.ts';
import { actionKey, compareTokens, type Token, tokenText } from '../../../../mesh/core/ids.ts';
import { claimLimits as limits } from '../../../../mesh/core/limits.ts';
import type { Register } from '../../../../mesh/core/registers/types.ts';
import { createRng } from '../../../../mesh/core/rng.ts';

let claims: Claims;
let nowMs: number;
let registers: Map<string, Register>;
let alive: Set<string>;
let sent: { to: string; message: ClaimMessage }[];
let effects: ClaimsEffect[];

function boot(): void {
  registers = new Map();
  alive = new Set(['ann', 'ben', 'eve', 'fay']);
  nowMs = 0;
  claims = createClaims(
    { self: 'lead', register: (_, key) => registers.get(key), isAlive: (node) => alive.has(node) },
    createRng(7),
  );
  tell({ kind: 'lead', shard: 0, generation: 1, term: 2 });
  elapse(limits.rebuildMs);
}
beforeEach(boot);

function tell(event: ClaimsEvent): void {
  effects = [...claims.step(event, nowMs)];
  sent = effects.flatMap((effect) => (effect.kind === 'send' ? [effect] : []));
}
const from = (node: string, message: ClaimMessage): void => tell({ kind: 'message', from: node, message });
function elapse(ms: number): ClaimsEffect[] {
  const seen: ClaimsEffect[] = [];
  const end = nowMs + ms;
  while (claims.dueAtMs <= end) {
    nowMs = Math.max(nowMs, claims.dueAtMs);
    tell({ kind: 'wake' });
    seen.push(...effects);
  }
  nowMs = end;
  return seen;
}

const keyOf = (name: string): string => actionKey('', 'sha256', name, 1);
function item(name: string, fields: Partial<SubmitItem> = {}): SubmitItem {
  return {
    request: `req-${name}`,
    shard: 0,
    key: keyOf(name),
    invocation: 'build',
    priority: 0,
    requires: [],
    spaceBytes: 10,
    inputs: [],
    doNotCache: false,
    skipCacheLookup: false,
    expectedMs: 0,
    reoffer: false,
    stay: false,
    avoid: [],
    deaths: 0,
    ...fields,
  };
}
const submit = (node: string, ...items: SubmitItem[]): void => from(node, { kind: 'submit', items });
let pullId = 0;
const pull = (node: string, fields: Partial<Extract<ClaimMessage, { kind: 'pull' }>> = {}): void =>
  from(node, {
    kind: 'pull',
    id: ++pullId,
    slots: 1,
    reservations: 0,
    ownOnly: false,
    capabilities: [],
    freeBytes: 1_000,
    holds: [],
    ...fields,
  });
const granted = (to?: string): GrantedClaim[] =>
  sent.flatMap((one) => (one.message.kind === 'granted' && (!to || one.to === to) ? one.message.claims : []));
const states = (to: string): string[] =>
  sent.flatMap((one) =>
    one.to === to && one.message.kind === 'requestState'
      ? one.message.states.map(
          (state) => `${state.request} ${state.kind}${state.kind === 'ended' ? ` ${state.reason}` : ''}`,
        )
      : [],
  );
const of = (kind: ClaimMessage['kind']): ClaimMessage[] =>
  sent.flatMap(({ message }) => (message.kind === kind ? [message] : []));
const refOf = ({ shard, key, token }: ClaimRef): ClaimRef => ({ shard, key, token });
const promises = [{ holder: 'eve', storeGeneration: 1, pinnedForMs: limits.promiseMsMin }];
const commit = (node: string, claim: ClaimRef, result = 'r1', cacheable = true): void =>
  from(node, { kind: 'commit', claim: refOf(claim), result, cacheable, promises });
const proposal = () => effects.flatMap((effect) => (effect.kind === 'propose' ? [effect] : []))[0];

/** Submits and claims an action, and returns its claim. */
function claimOf(name: string, executor = 'eve', fields: Partial<SubmitItem> = {}): GrantedClaim {
  submit('ann', item(name, fields));
  pull(executor);
  const [claim] = granted(executor);
  if (!claim) throw new Error('nothing granted');
  return claim;
}
function applied(outcome: 'accepted' | 'occupied' | 'stale' | 'lost', token?: Token): void {
  const proposed = proposal();
  if (!proposed) throw new Error('nothing proposed');
  const { commit: c } = proposed;
  if (outcome === 'accepted') {
    registers.set(c.key, {
      kind: 'result',
      result: c.result,
      class: 'claimed',
      token: token ?? c.token,
      executor: c.executor,
      holders: [],
      writtenAtMs: 0,
      nonDeterministic: false,
    });
  }
  tell({ kind: 'applied', proposal: proposed.proposal, outcome });
}

test('an action goes from ready over claimed to succeeded, and everybody concerned is told', () => {
  submit('ann', item('a'));
  expect(states('ann')).toEqual(['req-a ready']);
  pull('eve');
  const [claim] = granted('eve');
  expect(claim).toMatchObject({ key: keyOf('a'), submitter: 'ann', request: 'req-a', reserved: false });
  expect(claim?.token).toEqual({ generation: 1, term: 2, counter: 1 });
  expect(states('ann')).toEqual(['req-a claimed']);
  commit('eve', claim as GrantedClaim);
  expect(sent).toEqual([]);
  applied('accepted');
  expect(of('committed')).toMatchObject([{ outcome: 'accepted' }]);
  expect(states('ann')).toEqual(['req-a succeeded']);
  expect(claims.tasks.size).toBe(0);
});

test('a waiting pull is served when work comes, without being asked again', () => {
  pull('eve');
  expect(granted()).toEqual([]);
  submit('ann', item('a'));
  expect(granted('eve')).toHaveLength(1);
});

test('a repeated submission changes nothing', () => {
  submit('ann', item('a'));
  submit('ann', item('a'));
  expect(claims.tasks.size).toBe(1);
  pull('eve', { slots: 5 });
  expect(granted()).toHaveLength(1);
});

test('the same action of two submitters runs once, and both get the result', () => {
  submit('ann', item('a'));
  submit('ben', item('a', { request: 'req-ben' }));
  pull('eve', { slots: 5 });
  const [claim, ...more] = granted('eve');
  expect(more).toEqual([]);
  commit('eve', claim as GrantedClaim);
  applied('accepted');
  expect(states('ann')).toEqual(['req-a succeeded']);
  expect(states('ben')).toEqual(['req-ben succeeded']);
});

test('do_not_cache is never merged and never stored', () => {
  submit('ann', item('a', { doNotCache: true }));
  submit('ben', item('a', { doNotCache: true, request: 'req-ben' }));
  pull('eve', { slots: 5 });
  expect(granted('eve')).toHaveLength(2);
  commit('eve', granted('eve')[0] as GrantedClaim);
  expect(proposal()).toBeUndefined();
  expect(states('ann')).toEqual(['req-a finished']);
});

test('a known result answers at once, unless skip_cache_lookup asks for another run', () => {
  const first = claimOf('a');
  commit('eve', first);
  applied('accepted');
  submit('ben', item('a', { request: 'req-2' }));
  expect(states('ben')).toEqual(['req-2 succeeded']);
  submit('ben', item('a', { request: 'req-3', skipCacheLookup: true }));
  expect(states('ben')).toEqual(['req-3 ready']);
  pull('eve');
  commit('eve', granted('eve')[0] as GrantedClaim, 'r2');
  expect(proposal()?.commit.replaces).toEqual(first.token);
});

test('a submission that comes twice gets what was made for it, also when it refuses the cache', () => {
  const own = { skipCacheLookup: true };
  const claim = claimOf('a', 'eve', own);
  commit('eve', claim);
  applied('accepted');
  submit('ann', item('a', own));
  expect(states('ann')).toEqual(['req-a succeeded']);
  submit('ann', item('a', { ...own, request: 'req-b' }));
  expect(states('ann')).toEqual(['req-b ready']);
});

test('only the current token of its executor commits', () => {
  const claim = claimOf('a');
  commit('fay', claim);
  expect(of('committed')).toMatchObject([{ outcome: 'stale' }]);
  elapse(limits.claimLeaseMs + limits.sweepMs);
  commit('eve', claim);
  expect(of('committed')).toMatchObject([{ outcome: 'stale' }]);
  expect(effects).toContainEqual(expect.objectContaining({ kind: 'staleRefused' }));
});

test('a token from another term goes to the log, where it is judged', () => {
  submit('ann', item('a'));
  commit('eve', { shard: 0, key: keyOf('a'), token: { generation: 1, term: 1, counter: 9 } });
  expect(proposal()).toMatchObject({ commit: { token: { term: 1 }, replaces: undefined } });
  applied('stale');
  expect(of('committed')).toMatchObject([{ outcome: 'stale' }]);
  pull('eve');
  expect(granted('eve')).toHaveLength(1);
});

test('a result that nobody promised to keep is not committed, and who waits fetches it from its executor', () => {
  const claim = claimOf('a');
  const short = [{ holder: 'eve', storeGeneration: 1, pinnedForMs: limits.promiseMsMin - 1 }];
  const gone = [{ holder: 'zoe', storeGeneration: 1, pinnedForMs: limits.promiseMsMin }];
  from('eve', { kind: 'commit', claim: refOf(claim), result: 'r1', cacheable: true, promises: [...short, ...gone] });
  expect(proposal()).toBeUndefined();
  expect(of('committed')).toMatchObject([{ outcome: 'notPromised' }]);
  // Its outputs are as good as any other run's while they last, so whoever waits is sent there.
  expect(of('requestState')).toMatchObject([{ states: [{ kind: 'succeeded', result: 'r1', executor: 'eve' }] }]);
  expect(claims.tasks.size).toBe(0);
});

test('renewal keeps a claim, silence loses it, and a renewal never brings a revoked one back', () => {
  const claim = claimOf('a');
  for (let i = 0; i < 5; i++) {
    elapse(limits.claimLeaseMs - 1_000);
    from('ann', { kind: 'renewRequests', requests: [{ shard: 0, request: 'req-a' }] });
    from('eve', { kind: 'renewClaims', claims: [refOf(claim)] });
    expect(of('renewed')).toMatchObject([{ claims: [refOf(claim)] }]);
  }
  from('ann', { kind: 'cancelRequests', requests: [{ shard: 0, request: 'req-a' }] });
  expect(of('revoked')).toMatchObject([{ claims: [{ reason: 'cancelled' }] }]);
  from('eve', { kind: 'renewClaims', claims: [refOf(claim)] });
  expect(of('renewed')).toEqual([]);
  expect(of('revoked')).toMatchObject([{ claims: [{ reason: 'unknown' }] }]);
});

test('an expired claim is ready again under a higher token, after a backoff', () => {
  const claim = claimOf('a');
  const expiry = elapse(limits.claimLeaseMs + limits.sweepMs);
  expect(expiry).toContainEqual(expect.objectContaining({ kind: 'revoked', reason: 'expired' }));
  from('ann', { kind: 'renewRequests', requests: [{ shard: 0, request: 'req-a' }] });
  pull('fay');
  const again = [...effects, ...elapse(limits.backoffMaxMs)].find((effect) => effect.kind === 'granted');
  expect(again?.kind === 'granted' && compareTokens(again.token, claim.token)).toBeGreaterThan(0);
});

test('an action that kills its executors ends after a few deaths', () => {
  submit('ann', item('a'));
  for (let death = 1; death <= limits.deathsMax; death++) {
    pull('eve');
    elapse(limits.backoffMaxMs);
    from('ann', { kind: 'renewRequests', requests: [{ shard: 0, request: 'req-a' }] });
    pull('eve');
    tell({ kind: 'memberGone', node: 'eve', dead: true });
  }
  expect(states('ann')).toEqual(['req-a ended tooManyDeaths']);
});

test('deaths under earlier leaders count, whoever heard of most of them', () => {
  submit('ann', item('a', { deaths: 1 }));
  submit('ben', item('a', { request: 'req-ben', deaths: limits.deathsMax - 1 }));
  // What a known request says may count deaths under this leader twice.
  submit('ann', item('a', { deaths: limits.deathsMax }));
  expect(claims.tasks.get(keyOf('a'))?.deaths).toBe(limits.deathsMax - 1);
  pull('eve');
  tell({ kind: 'memberGone', node: 'eve', dead: true });
  expect(states('ben')).toEqual(['req-ben ended tooManyDeaths']);
});

test('an action that came from its executor counts the deaths that its submitter knows', () => {
  const token = { generation: 1, term: 1, counter: 3 };
  const running = { request: 'req-a', submitter: 'ann', doNotCache: false, requires: [], spaceBytes: 1 };
  from('eve', { kind: 'register', claims: [{ shard: 0, key: keyOf('a'), token, ...running }] });
  submit('ann', item('a', { reoffer: true, deaths: limits.deathsMax - 1 }));
  tell({ kind: 'memberGone', node: 'eve', dead: true });
  expect(states('ann')).toEqual(['req-a ended tooManyDeaths']);
});

test('giving back and suspending do not count', () => {
  submit('ann', item('a'));
  for (let i = 0; i < 10; i++) {
    pull('eve');
    const [claim] = granted('eve');
    if (i % 2 === 0) from('eve', { kind: 'giveBack', claims: [refOf(claim as GrantedClaim)] });
    else tell({ kind: 'memberGone', node: 'eve', dead: false });
    expect(states('ann')).toEqual(['req-a ready']);
  }
});

test('who claims an action and gives it back again and again leaves it to others for a while', () => {
  submit('ann', item('a'));
  const takes = (executor: string): boolean => {
    pull(executor);
    const [claim] = granted(executor);
    if (claim) from(executor, { kind: 'giveBack', claims: [refOf(claim)] });
    return claim !== undefined;
  };
  for (let i = 0; i <= limits.giveBacksMax; i++) expect(takes('eve')).toBe(true);
  expect(takes('eve')).toBe(false);
  expect(takes('fay')).toBe(true);
  // It is nobody's fault: nothing ends, and alone it may have it again.
  elapse(limits.shunMs);
  from('ann', { kind: 'renewRequests', requests: [{ shard: 0, request: 'req-a' }] });
  pull('eve');
  expect(claims.tasks.get(keyOf('a'))?.claim?.executor).toBe('eve');
});

test('a broken executor costs a retry; an invalid action ends at once', () => {
  const claim = claimOf('a');
  from('eve', { kind: 'fail', claim: refOf(claim), reason: 'executorFault' });
  expect(states('ann')).toEqual(['req-a ready']);
  pull('fay');
  expect(granted('fay')).toEqual([]);
  elapse(limits.backoffMs);
  expect(claims.tasks.get(keyOf('a'))?.claim?.executor).toBe('fay');
  const other = claimOf('b');
  from('eve', { kind: 'fail', claim: refOf(other), reason: 'actionInvalid' });
  expect(states('ann')).toEqual(['req-b ended actionInvalid']);
});

test('a fleet-wide fault uses up the retry budget of its submitter and no more', () => {
  let ended = 0;
  for (let i = 0; i < 60; i++) {
    const claim = claimOf(`x${i}`);
    from('eve', { kind: 'fail', claim: refOf(claim), reason: 'executorFault' });
    if (states('ann').some((state) => state.includes('tooManyRetries'))) ended++;
    from('ann', { kind: 'cancelRequests', requests: [{ shard: 0, request: `req-x${i}` }] });
  }
  expect(ended).toBeGreaterThan(30);
});

test('the last cancel revokes; one of two does not', () => {
  submit('ben', item('a', { request: 'req-ben' }));
  claimOf('a');
  from('ann', { kind: 'cancelRequests', requests: [{ shard: 0, request: 'req-a' }] });
  expect(of('revoked')).toEqual([]);
  from('ben', { kind: 'cancelRequests', requests: [{ shard: 0, request: 'req-ben' }] });
  expect(of('revoked')).toHaveLength(1);
  submit('ann', item('a', { request: 'req-new' }));
  pull('fay');
  expect(granted('fay')[0]?.token.counter).toBe(2);
});

test('a cancel that overtakes its submission still cancels it', () => {
  from('ann', { kind: 'cancelRequests', requests: [{ shard: 0, request: 'req-a' }] });
  submit('ann', item('a'));
  expect(states('ann')).toEqual(['req-a ended cancelled']);
  expect(claims.tasks.size).toBe(0);
});

test('a cancel while the commit is in the log leaves the decision to the log', () => {
  const claim = claimOf('a');
  commit('eve', claim);
  const proposed = proposal();
  from('ann', { kind: 'cancelRequests', requests: [{ shard: 0, request: 'req-a' }] });
  submit('ben', item('a', { request: 'req-ben' }));
  pull('fay');
  expect(granted('fay')).toEqual([]);
  registers.set(keyOf('a'), {
    kind: 'result',
    result: 'r1',
    class: 'claimed',
    token: claim.token,
    executor: 'eve',
    holders: [],
    writtenAtMs: 0,
    nonDeterministic: false,
  });
  tell({ kind: 'applied', proposal: proposed?.proposal ?? 0, outcome: 'accepted' });
  expect(states('ben')).toEqual(['req-ben succeeded']);
});

test('waiters that stop renewing are gone, and with the last of them the claim', () => {
  const claim = claimOf('a');
  const seen: ClaimsEffect[] = [];
  for (let t = 0; t < limits.waiterLeaseMs + 1_000; t += 1_000) {
    seen.push(...elapse(1_000));
    from('eve', { kind: 'renewClaims', claims: [refOf(claim)] });
  }
  expect(seen).toContainEqual(expect.objectContaining({ kind: 'revoked', reason: 'cancelled' }));
  expect(claims.tasks.size).toBe(0);
});

test('lower priority numbers run first', () => {
  submit('ann', item('late', { priority: 5 }), item('soon', { priority: -1 }), item('mid', { priority: 0 }));
  pull('eve', { slots: 3 });
  expect(granted('eve').map(({ request }) => request)).toEqual(['req-soon', 'req-mid', 'req-late']);
});

test('a large build does not starve a small one', () => {
  const large = Array.from({ length: 20 }, (_, i) => item(`l${i}`, { invocation: 'large' }));
  submit('ann', ...large);
  submit('ben', item('s0', { invocation: 'small', request: 's0' }), item('s1', { invocation: 'small', request: 's1' }));
  pull('eve', { slots: 4 });
  expect(granted('eve').filter(({ submitter }) => submitter === 'ben')).toHaveLength(2);
});

test('an executor gets what it can run: capabilities, space, and only its own when its owner is there', () => {
  submit('ann', item('arm', { requires: ['arch=arm64'] }), item('big', { spaceBytes: 5_000 }), item('any'));
  pull('eve', { slots: 3, ownOnly: true });
  expect(granted('eve')).toEqual([]);
  pull('eve', { slots: 3, capabilities: ['arch=x86'] });
  expect(granted('eve').map(({ request }) => request)).toEqual(['req-any']);
  pull('fay', { slots: 3, capabilities: ['arch=arm64'], freeBytes: 10_000 });
  expect(granted('fay').map(({ request }) => request)).toEqual(['req-arm', 'req-big']);
});

test('space is reserved before the claim: grants of one pull fit together', () => {
  submit('ann', item('x', { spaceBytes: 600 }), item('y', { spaceBytes: 600 }));
  pull('eve', { slots: 2, freeBytes: 1_000 });
  expect(granted('eve')).toHaveLength(1);
});

test('among waiting executors the one that holds most of the inputs gets the action; alone, anybody does', () => {
  pull('eve', { holds: [1, 2] });
  pull('fay', { holds: [1, 2, 3] });
  submit('ann', item('a', { inputs: [1, 2, 3] }));
  expect(granted('fay')).toHaveLength(1);
  submit('ann', item('b', { inputs: [1, 2, 3] }));
  expect(granted('eve')).toHaveLength(1);
});

test('among ready actions an executor gets the one whose inputs it holds', () => {
  submit('ann', item('cold', { inputs: [9] }), item('warm', { inputs: [1] }));
  pull('eve', { holds: [1] });
  expect(granted('eve').map(({ request }) => request)).toEqual(['req-warm']);
});

test('a reservation can be started, and until then be given to somebody who is free', () => {
  submit('ann', item('a'), item('b'));
  pull('eve', { slots: 1, reservations: 1 });
  expect(granted('eve').map(({ reserved }) => reserved)).toEqual([false, true]);
  const ahead = granted('eve')[1] as GrantedClaim;
  commit('eve', ahead);
  expect(of('committed')).toMatchObject([{ outcome: 'stale' }]);
  pull('fay');
  expect(granted('fay').map(({ key }) => key)).toEqual([ahead.key]);
  expect(of('revoked')).toMatchObject([{ claims: [{ reason: 'stolen' }] }]);
  from('eve', { kind: 'start', claim: refOf(ahead) });
  expect(of('started')).toEqual([]);
  submit('ann', item('c'));
  pull('eve', { slots: 0, reservations: 1 });
  from('eve', { kind: 'start', claim: refOf(granted('eve')[0] as GrantedClaim) });
  expect(of('started')).toHaveLength(1);
  pull('ben');
  expect(granted('ben')).toEqual([]);
});

test('of what others have reserved, the longest goes to who is free', () => {
  pull('eve', { slots: 0, reservations: 1 });
  pull('fay', { slots: 0, reservations: 1 });
  submit('ann', item('a', { expectedMs: 100 }), item('b', { expectedMs: 9_000 }));
  pull('ben');
  expect(granted('ben').map(({ key }) => key)).toEqual([keyOf('b')]);
});

test('after a change of leader, executors register and get a fresh token', () => {
  boot();
  tell({ kind: 'lead', shard: 1, generation: 1, term: 5 });
  const old: ClaimRef = { shard: 1, key: keyOf('a'), token: { generation: 1, term: 4, counter: 3 } };
  submit('ann', item('a', { shard: 1, reoffer: true }));
  pull('fay');
  // The re-offered action waits a moment for whoever runs it.
  expect(granted('fay')).toEqual([]);
  const running = { ...old, request: 'req-a', submitter: 'ann', doNotCache: false, requires: [], spaceBytes: 1 };
  from('eve', { kind: 'register', claims: [running] });
  expect(of('adopted')).toMatchObject([{ old: old.token, claim: { token: { term: 5, counter: 1 } } }]);
  from('eve', { kind: 'register', claims: [running] });
  expect(of('adopted')).toMatchObject([{ claim: { token: { term: 5, counter: 1 } } }]);
});

test('a claim is not adopted after another was issued', () => {
  tell({ kind: 'lead', shard: 1, generation: 1, term: 5 });
  submit('ann', item('a', { shard: 1, reoffer: true }));
  pull('fay');
  elapse(limits.rebuildMs);
  const token = { generation: 1, term: 4, counter: 3 };
  const running = {
    shard: 1,
    key: keyOf('a'),
    token,
    request: 'req-a',
    submitter: 'ann',
    doNotCache: false,
    requires: [],
    spaceBytes: 1,
  };
  expect(claims.tasks.get(keyOf('a'))?.claim?.executor).toBe('fay');
  from('eve', { kind: 'register', claims: [running] });
  expect(of('adopted')).toEqual([]);
  expect(of('revoked')).toMatchObject([{ claims: [{ reason: 'superseded' }] }]);
});

test('a claim revoked in this term is not brought back by registering it', () => {
  const claim = claimOf('a');
  elapse(limits.claimLeaseMs + limits.sweepMs);
  const running = {
    ...refOf(claim),
    request: 'req-a',
    submitter: 'ann',
    doNotCache: false,
    requires: [],
    spaceBytes: 1,
  };
  from('eve', { kind: 'register', claims: [running] });
  expect(of('adopted')).toEqual([]);
  expect(of('revoked')).toHaveLength(1);
});

test('an executor whose commit was accepted under the old leader learns so', () => {
  const token = { generation: 1, term: 1, counter: 3 };
  registers.set(keyOf('a'), {
    kind: 'result',
    result: 'r',
    class: 'claimed',
    token,
    executor: 'eve',
    holders: [],
    writtenAtMs: 0,
    nonDeterministic: false,
  });
  from('eve', {
    kind: 'register',
    claims: [
      {
        shard: 0,
        key: keyOf('a'),
        token,
        request: 'q',
        submitter: 'ann',
        doNotCache: false,
        requires: [],
        spaceBytes: 1,
      },
    ],
  });
  expect(of('committed')).toMatchObject([{ outcome: 'accepted' }]);
});

test('a commit that could not be decided leaves the claim to try again, and is not answered at once', () => {
  const claim = claimOf('a');
  commit('eve', claim);
  applied('lost');
  expect(sent).toEqual([]);
  commit('eve', claim);
  applied('accepted');
  expect(of('committed')).toMatchObject([{ outcome: 'accepted' }]);
});

test('a shard that is led no more is forgotten, and who asks is sent on', () => {
  const claim = claimOf('a');
  tell({ kind: 'unlead', shard: 0 });
  expect(claims.tasks.size).toBe(0);
  submit('ann', item('b'));
  expect(effects).toEqual([{ kind: 'notLeader', to: 'ann', shard: 0 }]);
  commit('eve', claim);
  expect(effects).toEqual([{ kind: 'notLeader', to: 'eve', shard: 0 }]);
});

test('actions are bounded', () => {
  for (let i = 0; i < limits.tasksMax; i += 1_000) {
    submit('ann', ...Array.from({ length: 1_000 }, (_, j) => item(`n${i + j}`)));
  }
  submit('ann', item('one more'));
  expect(states('ann')).toEqual(['req-one more ended queueFull']);
});

const names = ['a', 'b', 'c'];
const executors = ['eve', 'fay', 'ben'];
const move = fc.record({
  kind: fc.constantFrom(
    'submit',
    'cancel',
    'pull',
    'commit',
    'giveBack',
    'fail',
    'renew',
    'register',
    'elapse',
    'dead',
    'fallback',
  ),
  name: fc.constantFrom(...names),
  node: fc.constantFrom(...executors),
  nth: fc.nat(5),
});

test('no order of messages gives one action to two executors at once, nor accepts a token twice', () => {
  const observed = { granted: 0, accepted: 0, revoked: 0 };
  fc.assert(
    fc.property(fc.array(move, { minLength: 20, maxLength: 120, size: 'max' }), (moves) => {
      boot();
      let term = 2;
      const known: { executor: string; claim: GrantedClaim }[] = [];
      const holders = new Map<string, string>();
      const accepted = new Set<string>();
      const look = (): void => {
        for (const effect of effects) {
          if (effect.kind === 'granted') {
            observed.granted++;
            expect(holders.has(effect.key), `${effect.key} granted while held`).toBe(false);
            holders.set(effect.key, effect.executor);
          } else if (effect.kind === 'revoked') {
            observed.revoked++;
            holders.delete(effect.key);
          }
        }
        for (const { to, message } of sent) {
          if (message.kind === 'granted') known.push(...message.claims.map((claim) => ({ executor: to, claim })));
        }
      };
      for (const { kind, name, node, nth } of moves) {
        const mine = known.filter(({ executor }) => executor === node);
        const claim = mine[mine.length - 1 - (nth % Math.max(1, mine.length))]?.claim;
        if (kind === 'submit')
          submit(node, item(name, { request: `${name}-${node}-${nth}`, skipCacheLookup: nth > 3 }));
        else if (kind === 'cancel')
          from(node, { kind: 'cancelRequests', requests: [{ shard: 0, request: `${name}-${node}-${nth}` }] });
        else if (kind === 'pull') pull(node, { slots: nth });
        else if (kind === 'elapse') effects = elapse(nth * 2_000);
        else if (kind === 'dead') tell({ kind: 'memberGone', node, dead: nth > 2 });
        else if (kind === 'fallback') {
          tell({ kind: 'unlead', shard: 0 });
          holders.clear();
          tell({ kind: 'lead', shard: 0, generation: 1, term: ++term });
        } else if (!claim) continue;
        else if (kind === 'giveBack') from(node, { kind: 'giveBack', claims: [refOf(claim)] });
        else if (kind === 'fail') from(node, { kind: 'fail', claim: refOf(claim), reason: 'executorFault' });
        else if (kind === 'renew') from(node, { kind: 'renewClaims', claims: [refOf(claim)] });
        else if (kind === 'register') {
          from(node, {
            kind: 'register',
            claims: [
              {
                ...refOf(claim),
                request: claim.request,
                submitter: claim.submitter,
                doNotCache: false,
                requires: [],
                spaceBytes: 1,
              },
            ],
          });
        } else {
          commit(node, claim, `r-${tokenText(claim.token)}`);
          const proposed = proposal();
          if (proposed) {
            look();
            const current = claim.token.term === term;
            if (current) {
              expect(accepted.has(tokenText(claim.token)), 'a token was used twice').toBe(false);
              accepted.add(tokenText(claim.token));
              observed.accepted++;
            }
            effects = [proposed];
            applied(current ? 'accepted' : 'stale');
          }
        }
        look();
      }
    }),
    { numRuns: 300, seed: 11 },
  );
  for (const [what, count] of Object.entries(observed)) expect(count, what).toBeGreaterThan(50);
});

const stay = { stay: true, request: 'req-stay' };

test('an action that runs at its submitter already is granted to it at once, and to nobody else', () => {
  pull('eve', { slots: 4 });
  submit('ann', item('a', stay));
  expect(granted('ann')).toMatchObject([{ stay: true, reserved: false, submitter: 'ann' }]);
  expect(granted('eve')).toEqual([]);
  // Whoever asks for the same action merges with it.
  submit('ben', item('a', { request: 'req-ben' }));
  expect(states('ben')).toEqual(['req-ben claimed']);
});

test('who runs an action that others only wait for gets its claim, also when it was reserved', () => {
  submit('ben', item('a', { request: 'req-ben' }));
  pull('eve', { slots: 0, reservations: 1 });
  expect(granted('eve')).toMatchObject([{ reserved: true }]);
  submit('ann', item('a', stay));
  expect(of('revoked')).toMatchObject([{ claims: [{ reason: 'stolen' }] }]);
  // Its outputs go to who waited first.
  expect(granted('ann')).toMatchObject([{ stay: true, submitter: 'ben', request: 'req-ben' }]);
});

test('an action that runs elsewhere is not granted to who started it later', () => {
  claimOf('a');
  nowMs += 700;
  submit('ben', item('a', { ...stay, request: 'req-ben' }));
  expect(granted()).toEqual([]);
  expect(of('requestState')).toMatchObject([{ states: [{ kind: 'claimed', executor: 'eve', ageMs: 700 }] }]);
});

test('a run that was given back is free for all, until its submitter says that it runs it again', () => {
  submit('ann', item('a', stay));
  const [claim] = granted('ann');
  from('ann', { kind: 'giveBack', claims: [refOf(claim as GrantedClaim)] });
  expect(granted()).toEqual([]);
  elapse(limits.backoffMs);
  pull('eve');
  expect(granted('eve')).toHaveLength(1);
  submit('ann', item('a', stay));
  expect(granted('ann')).toEqual([]);
});

test('after a take-over nobody who stays is granted what others may be running still', () => {
  tell({ kind: 'unlead', shard: 0 });
  tell({ kind: 'lead', shard: 0, generation: 1, term: 3 });
  submit('ann', item('a', { ...stay, reoffer: true }));
  expect(granted()).toEqual([]);
  const seen = elapse(limits.rebuildMs);
  expect(seen.some((effect) => effect.kind === 'granted' && effect.executor === 'ann')).toBe(true);
});

test('executors that every waiter avoids get nothing; one that trusts them is enough', () => {
  pull('eve');
  submit('ann', item('a', { avoid: ['eve'] }));
  expect(granted()).toEqual([]);
  submit('ben', item('a', { request: 'req-ben' }));
  pull('eve');
  expect(granted('eve')).toHaveLength(1);
});

test('a submitter that offers again changes whom it avoids', () => {
  submit('ann', item('a', { avoid: ['eve'] }));
  pull('eve');
  expect(granted()).toEqual([]);
  submit('ann', item('a'));
  pull('eve');
  expect(granted('eve')).toHaveLength(1);
});

test('who failed with an action gets it again only when nobody else takes it', () => {
  const claim = claimOf('a');
  from('eve', { kind: 'fail', claim: refOf(claim), reason: 'executorFault' });
  expect(of('requestState')).toMatchObject([{ states: [{ kind: 'ready', after: { executor: 'eve' } }] }]);
  pull('eve');
  elapse(limits.backoffMs + 10);
  expect([...claims.tasks.values()][0]?.claim).toBeUndefined();
  elapse(limits.shunMs);
  expect([...claims.tasks.values()][0]?.claim?.executor).toBe('eve');
});

test('an outcome that must not be stored ends all who wait, and none who come later', () => {
  const claim = claimOf('a');
  submit('ben', item('a', { request: 'req-ben' }));
  commit('eve', claim, 'r1', false);
  expect(proposal()).toBeUndefined();
  const finished = { kind: 'finished', result: 'r1', executor: 'eve' };
  expect(of('requestState')).toMatchObject([{ states: [finished] }, { states: [finished] }]);
  submit('fay', item('a', { request: 'req-fay' }));
  expect(states('fay')).toEqual(['req-fay ready']);
});

test('an outcome that must not be stored is not proposed under a token of the leader before either', () => {
  const claim = claimOf('a');
  tell({ kind: 'unlead', shard: 0 });
  tell({ kind: 'lead', shard: 0, generation: 1, term: 3 });
  commit('eve', claim, 'r1', false);
  expect(proposal()).toBeUndefined();
  expect(of('committed')).toMatchObject([{ outcome: 'lost' }]);
});

test('inputs that nobody could get end the action with that reason', () => {
  submit('ann', item('a'));
  for (const node of ['eve', 'fay']) {
    pull(node);
    if (granted(node).length === 0) elapse(limits.backoffMaxMs);
    const claim = [...claims.tasks.values()][0]?.claim;
    if (!claim) throw new Error('nothing granted');
    const ref = { shard: 0, key: keyOf('a'), token: claim.token };
    from(claim.executor, { kind: 'fail', claim: ref, reason: 'inputsMissing' });
  }
  expect(states('ann')).toEqual(['req-a ended inputsMissing']);
});

test('a fault of the whole fleet is no storm: many submitters cost few runs each', () => {
  const perNode = 40;
  const nodes = 10;
  let runs = 0;
  for (let n = 0; n < nodes; n++) {
    const items = Array.from({ length: perNode }, (_, i) => item(`${n}-${i}`));
    submit(`s${n}`, ...items);
  }
  const fail = (seen: readonly ClaimsEffect[]): void => {
    const grants = seen.flatMap((effect) => (effect.kind === 'granted' ? [effect] : []));
    runs += grants.length;
    for (const { key, token, shard, executor } of grants) {
      from(executor, { kind: 'fail', claim: { shard, key, token }, reason: 'executorFault' });
    }
  };
  for (let round = 0; round < 400 && claims.tasks.size > 0; round++) {
    for (let e = 0; e < 8; e++) {
      pull(`e${e}`, { slots: 4 });
      fail(effects);
    }
    fail(elapse(500));
  }
  expect(claims.tasks.size).toBe(0);
  // Each action once, and what the budgets of all submitters allow beyond that.
  const retries = (nodes * (limits.retryBudgetPerMille + perNode * limits.retryEarnedPerMille)) / 1_000;
  expect(runs).toBeLessThanOrEqual(nodes * perNode + retries);
});

test('an executor gets actions of its own clients before those of others', () => {
  submit('ann', item('a', { invocation: 'anna builds' }));
  submit('eve', item('b', { invocation: 'eva builds' }));
  pull('eve');
  expect(granted('eve')).toMatchObject([{ key: keyOf('b') }]);
});

test('a run that was over before its claim came is not run again while its submitter says so', () => {
  submit('ann', item('a', stay));
  const [claim] = granted('ann');
  pull('ann', { slots: 4 });
  from('ann', { kind: 'giveBack', claims: [refOf(claim as GrantedClaim)] });
  expect(granted()).toEqual([]);
  from('ann', { kind: 'cancelRequests', requests: [{ shard: 0, request: 'req-stay' }] });
  expect(elapse(limits.backoffMs).some(({ kind }) => kind === 'granted')).toBe(false);
  expect(claims.tasks.size).toBe(0);
});

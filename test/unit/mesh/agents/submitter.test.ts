import { expect, test } from 'vitest';
import { submitterLimits } from '../../../../mesh/core/agents/limits.ts';
import type { AgentMessage } from '../../../../mesh/core/agents/messages.ts';
import { createSubmitter } from '../../../../mesh/core/agents/submitter.ts';
import type {
  ExecuteItem,
  Submitter,
  SubmitterEffect,
  SubmitterEvent,
} from '../../../../mesh/core/agents/submitter/types.ts';
import type { EndReason, RequestState, Setback } from '../../../../mesh/core/claims/messages.ts';
import { claimLimits } from '../../../../mesh/core/limits.ts';
import * as offloadLimits from '../../../../mesh/core/offload/limits.ts';
import { createRng } from '../../../../mesh/core/rng.ts';

const key = 'sha256/aa/1/';
const item: ExecuteItem = {
  request: 'me/1',
  shard: 0,
  key,
  invocation: 'build',
  priority: 0,
  requires: [],
  spaceBytes: 10,
  inputs: [],
  doNotCache: false,
  skipCacheLookup: false,
  expectedMs: 1_000,
  mnemonic: 'CppCompile',
  family: 'a.o',
  inputBytes: 1_000,
};
const token = { generation: 1, term: 2, counter: 3 };
const outcome = { result: 'sha256/bb/2', sizeBytes: 10, cacheable: true };

interface World {
  leader: string | undefined;
  readonly held: Set<string>;
  readonly submitter: Submitter;
}

interface Setting {
  readonly leader?: string;
  /** Free slots here; without any, everything is offered. */
  readonly free?: number;
  /** Slots that eva lends. */
  readonly lent?: number;
}

function create({ leader = 'lea', free = 0, lent = 8 }: Setting = {}): World {
  const world = { leader: leader as string | undefined, held: new Set<string>() };
  const submitter = createSubmitter({
    self: 'me',
    storeGeneration: 1,
    leaderOf: () => world.leader,
    holds: (blob) => world.held.has(blob),
    rng: createRng(3),
  });
  slots(submitter, free);
  const members = [{ node: 'eva', guestSlots: lent, capabilities: [], bytesPerMs: 100_000 }];
  submitter.step({ kind: 'mesh', members }, 0);
  return Object.assign(world, { submitter });
}

function slots(submitter: Submitter, free: number, nowMs = 0): readonly SubmitterEffect[] {
  return submitter.step({ kind: 'slots', slots: 4, free, capabilities: [] }, nowMs);
}

const tell = ({ submitter }: World, from: string, message: AgentMessage, nowMs: number): readonly SubmitterEffect[] =>
  submitter.step({ kind: 'message', from, message }, nowMs);

const state = ({ submitter }: World, one: RequestState, nowMs: number): readonly SubmitterEffect[] =>
  submitter.step({ kind: 'message', from: 'lea', message: { kind: 'requestState', states: [one] } }, nowMs);

const handOver = (world: World, under: typeof token, nowMs: number, from = 'eva'): readonly SubmitterEffect[] =>
  tell(world, from, { kind: 'handOver', shard: 0, key, request: 'me/1', token: under, outcome, runMs: 900 }, nowMs);

const claimed = (under: typeof token, executor = 'eva', ageMs = 0): RequestState => ({
  kind: 'claimed',
  shard: 0,
  request: 'me/1',
  executor,
  token: under,
  running: true,
  ageMs,
});

const ready = (after?: Setback): RequestState => ({ kind: 'ready', shard: 0, request: 'me/1', leaseMs: 10_000, after });

const ended = (reason: EndReason, after?: Setback): RequestState => ({
  kind: 'ended',
  shard: 0,
  request: 'me/1',
  reason,
  after,
});

const sent = (effects: readonly SubmitterEffect[], kind: string) =>
  effects.find((effect) => effect.kind === 'send' && effect.message.kind === kind);

const kindsOf = (effects: readonly SubmitterEffect[]): string[] => effects.map(({ kind }) => kind);

const count = (effects: readonly SubmitterEffect[], kind: string): number =>
  effects.filter((effect) => effect.kind === kind).length;

/** The run here begins, or ends without a claim. */
const begins = (world: World, nowMs: number): readonly SubmitterEffect[] =>
  tell(world, 'me', { kind: 'stage', key, request: 'me/1', token: undefined, stage: 'executing' }, nowMs);
const ownEnded = (
  world: World,
  nowMs: number,
  fields: Partial<Extract<SubmitterEvent, { kind: 'ownEnded' }>> = {},
): readonly SubmitterEffect[] =>
  world.submitter.step(
    { kind: 'ownEnded', request: 'me/1', token: undefined, outcome, reason: undefined, runMs: 5, ...fields },
    nowMs,
  );

/** Wakes it as its driver would, up to a time. */
function wait({ submitter }: World, fromMs: number, toMs: number): SubmitterEffect[] {
  const effects: SubmitterEffect[] = [];
  for (let nowMs = fromMs; nowMs <= toMs; nowMs += 500) effects.push(...submitter.step({ kind: 'wake' }, nowMs));
  return effects;
}

test('what was handed over is fetched, answered, and promised', () => {
  const world = create();
  expect(sent(world.submitter.step({ kind: 'execute', item }, 0), 'submit')).toMatchObject({ to: 'lea' });
  state(world, claimed(token), 5);
  expect(handOver(world, token, 1_000)).toContainEqual(
    expect.objectContaining({ kind: 'fetchOutputs', from: 'eva', result: outcome.result }),
  );
  const effects = world.submitter.step({ kind: 'fetched', fetch: 1, outcome }, 1_010);
  expect(effects).toContainEqual({
    kind: 'answer',
    request: 'me/1',
    answer: { kind: 'result', outcome, source: 'mesh', token, executor: 'eva' },
  });
  const pin = effects.find((effect) => effect.kind === 'pinHandedOver');
  expect(pin).toBeDefined();
  const promised = world.submitter.step({ kind: 'pinned', fetch: pin?.fetch ?? 0, forMs: 5_000 }, 1_011);
  expect(sent(promised, 'handedOver')).toMatchObject({ to: 'eva', message: { promise: { holder: 'me' } } });
});

test('nothing is answered under a claim when a later one was heard of', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  handOver(world, token, 10);
  const later = { ...token, counter: 9 };
  expect(state(world, claimed(later), 20)).toContainEqual({ kind: 'stopFetch', fetch: 1 });
  expect(kindsOf(world.submitter.step({ kind: 'fetched', fetch: 1, outcome }, 30))).not.toContain('answer');
  expect(sent(handOver(world, token, 40), 'handOverRefused')).toMatchObject({ to: 'eva' });
  expect(handOver(world, later, 50)).toContainEqual(expect.objectContaining({ kind: 'fetchOutputs' }));
});

test('when the mesh is silent the action runs here, and its result is published without a claim', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const effects = wait(world, 500, submitterLimits.meshBudgetMs);
  expect(effects.filter((effect) => effect.kind === 'runOwn')).toHaveLength(1);
  const over = ownEnded(world, 9_000);
  expect(over).toContainEqual(
    expect.objectContaining({
      kind: 'answer',
      answer: { kind: 'result', outcome, source: 'local', token: undefined, executor: 'me' },
    }),
  );
  const pin = over.find((effect) => effect.kind === 'pinHandedOver');
  const published = world.submitter.step({ kind: 'pinned', fetch: pin?.fetch ?? 0, forMs: 5_000 }, 9_001);
  expect(sent(published, 'publish')).toMatchObject({ to: 'lea', message: { result: outcome.result } });
});

test('a request is offered again to the next leader, marked as known before', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  state(world, ready(), 5);
  world.leader = 'max';
  const effects = world.submitter.step({ kind: 'leader', shard: 0, leader: 'max' }, 100);
  expect(sent(effects, 'submit')).toMatchObject({
    to: 'max',
    message: { items: [{ request: 'me/1', reoffer: true }] },
  });
});

test('a known result is fetched from the next holder when the first has it no more, and reported lost at the end', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const succeeded: RequestState = {
    kind: 'succeeded',
    shard: 0,
    request: 'me/1',
    result: outcome.result,
    executor: 'eva',
    token,
  };
  state(world, succeeded, 10);
  const asked = sent(world.submitter.step({ kind: 'fetched', fetch: 1, outcome: undefined }, 20), 'lookup');
  if (asked?.kind !== 'send' || asked.message.kind !== 'lookup') throw new Error('no lookup was sent');
  const register = {
    kind: 'result' as const,
    result: outcome.result,
    class: 'claimed' as const,
    token,
    executor: 'eva',
    holders: [
      { holder: 'eva', storeGeneration: 1, untilMs: 9 },
      { holder: 'tom', storeGeneration: 1, untilMs: 9 },
    ],
    writtenAtMs: 0,
    nonDeterministic: false,
  };
  const { id } = asked.message;
  const lookedUp = { kind: 'lookedUp' as const, id, shard: 0, found: [{ key, register, pinnedForMs: [1, 1] }] };
  const next = world.submitter.step({ kind: 'message', from: 'lea', message: lookedUp }, 30);
  expect(next).toContainEqual(expect.objectContaining({ kind: 'fetchOutputs', from: 'tom' }));
  const again = sent(world.submitter.step({ kind: 'fetched', fetch: 1, outcome: undefined }, 40), 'lookup');
  if (again?.kind !== 'send' || again.message.kind !== 'lookup') throw new Error('no lookup was sent');
  const last = world.submitter.step(
    { kind: 'message', from: 'lea', message: { ...lookedUp, id: again.message.id } },
    50,
  );
  expect(sent(last, 'invalidate')).toMatchObject({ message: { reason: 'lost', result: outcome.result } });
  // The promise was broken: the action runs again.
  const again2 = wait(world, 500, 3_000);
  expect(sent(again2, 'submit')).toMatchObject({ message: { items: [{ request: 'me/1' }] } });
});

test('a cancelled request is answered and taken from its leader', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const effects = world.submitter.step({ kind: 'cancel', request: 'me/1' }, 10);
  expect(effects).toContainEqual({ kind: 'answer', request: 'me/1', answer: { kind: 'failed', reason: 'cancelled' } });
  expect(sent(effects, 'cancelRequests')).toMatchObject({ to: 'lea' });
  expect(world.submitter.waiting()).toBe(0);
});

test('the next leader hears that another one was asked, whether or not it answered', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  world.leader = 'lou';
  const offered = sent(world.submitter.step({ kind: 'leader', shard: 0, leader: 'lou' }, 10), 'submit');
  expect(offered).toMatchObject({ to: 'lou', message: { items: [{ request: 'me/1', reoffer: true }] } });
});

test('an action that stays starts at once, and is offered at the same time', () => {
  const world = create({ free: 2 });
  const executed = world.submitter.step({ kind: 'execute', item }, 0);
  expect(executed).toContainEqual({
    kind: 'runOwn',
    request: 'me/1',
    key,
    spaceBytes: 10,
    isMergeable: true,
  });
  expect(executed).toContainEqual(expect.objectContaining({ kind: 'decided', where: 'here', why: 'freeSlot' }));
  const started = begins(world, 0);
  expect(sent(started, 'submit')).toMatchObject({ to: 'lea', message: { items: [{ stay: true }] } });
  expect(started).toContainEqual({ kind: 'progress', request: 'me/1', stage: 'executing', node: 'me' });
});

test('a silent leader costs an action that stays nothing', () => {
  const world = create({ free: 2 });
  world.submitter.step({ kind: 'execute', item }, 0);
  begins(world, 0);
  expect(ownEnded(world, 5)).toContainEqual(expect.objectContaining({ kind: 'answer' }));
});

test('a run that got its claim is answered under it, and is published by its executor alone', () => {
  const world = create({ free: 2 });
  world.submitter.step({ kind: 'execute', item }, 0);
  begins(world, 0);
  world.submitter.step({ kind: 'ownClaimed', request: 'me/1', token }, 2);
  state(world, claimed(token, 'me'), 3);
  const effects = ownEnded(world, 9, { token });
  expect(effects).toContainEqual(
    expect.objectContaining({ kind: 'answer', answer: expect.objectContaining({ source: 'mesh', token }) }),
  );
  expect(kindsOf(effects)).not.toContain('pinHandedOver');
  // A waiter that leaves would revoke the claim before it is committed.
  expect(sent(effects, 'cancelRequests')).toBeUndefined();
});

test('what a run here made under a claim does not count once a later one was made', () => {
  const world = create({ free: 2 });
  world.submitter.step({ kind: 'execute', item }, 0);
  begins(world, 0);
  world.submitter.step({ kind: 'ownClaimed', request: 'me/1', token }, 2);
  state(world, claimed({ ...token, counter: 7 }), 3);
  expect(kindsOf(ownEnded(world, 9, { token }))).not.toContain('answer');
});

test('who runs the same action later stops: merging in flight', () => {
  const later = create({ free: 2 });
  later.submitter.step({ kind: 'execute', item }, 0);
  begins(later, 0);
  const effects = state(later, claimed(token, 'eva', 400), 10);
  expect(effects).toContainEqual({ kind: 'stopOwn', request: 'me/1' });
  expect(effects).toContainEqual(expect.objectContaining({ kind: 'decided', why: 'merged' }));

  const first = create({ free: 2 });
  first.submitter.step({ kind: 'execute', item }, 0);
  begins(first, 0);
  expect(kindsOf(state(first, claimed(token, 'eva', 0), 900))).not.toContain('stopOwn');
});

test('a result that the register knows ends the run here', () => {
  const world = create({ free: 2 });
  world.submitter.step({ kind: 'execute', item }, 0);
  begins(world, 0);
  const succeeded: RequestState = {
    kind: 'succeeded',
    shard: 0,
    request: 'me/1',
    result: outcome.result,
    executor: 'eva',
    token,
  };
  state(world, succeeded, 5);
  const effects = world.submitter.step({ kind: 'fetched', fetch: 1, outcome }, 8);
  expect(effects).toContainEqual({ kind: 'stopOwn', request: 'me/1' });
  expect(effects).toContainEqual(
    expect.objectContaining({ kind: 'answer', answer: expect.objectContaining({ source: 'cache' }) }),
  );
});

test('without a leader, or without anybody who lends a slot, nothing waits for the mesh', () => {
  const alone = create();
  alone.leader = undefined;
  for (const world of [alone, create({ lent: 0 })]) {
    const effects = world.submitter.step({ kind: 'execute', item }, 0);
    expect(kindsOf(effects)).toContain('runOwn');
    expect(sent(effects, 'submit')).toBeUndefined();
  }
});

test('what waits for a slot here is offered as soon as the mesh can help', () => {
  const world = create({ lent: 0 });
  for (let i = 0; i < 8; i++) world.submitter.step({ kind: 'execute', item: { ...item, request: `me/${i}` } }, 0);
  const members = [{ node: 'eva', guestSlots: 8, capabilities: [], bytesPerMs: 100_000 }];
  const effects = world.submitter.step({ kind: 'mesh', members }, 50);
  expect(effects).toContainEqual({ kind: 'stopOwn', request: 'me/7' });
  expect(sent(effects, 'submit')).toBeDefined();
});

test('a leader that says READY again and again costs no run without a claim; its silence does', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const effects: SubmitterEffect[] = [];
  for (let nowMs = 0; nowMs <= 120_000; nowMs += 500) {
    if (nowMs % 2_000 === 0) effects.push(...state(world, ready(), nowMs));
    effects.push(...world.submitter.step({ kind: 'wake' }, nowMs));
  }
  expect(count(effects, 'runOwn')).toBe(0);
  expect(count(wait(world, 120_500, 140_000), 'runOwn')).toBe(1);
});

test('an action that nobody claims although a slot here stays free runs here in the end', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  state(world, ready(), 500);
  slots(world.submitter, 3, 1_000);
  const effects: SubmitterEffect[] = [];
  for (let nowMs = 1_000; nowMs <= submitterLimits.idleBudgetMs + 3_000; nowMs += 500) {
    if (nowMs % 2_000 === 0) effects.push(...state(world, ready(), nowMs));
    effects.push(...world.submitter.step({ kind: 'wake' }, nowMs));
  }
  expect(count(effects, 'runOwn')).toBe(1);
});

test('an action that took far too long elsewhere runs here as well, but not while its run is frozen', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  state(world, claimed(token), 5);
  slots(world.submitter, 2, 10);
  tell(world, 'eva', { kind: 'stage', key, request: 'me/1', token, stage: 'frozen' }, 20);
  const renewed = (fromMs: number, toMs: number): SubmitterEffect[] => {
    const effects: SubmitterEffect[] = [];
    for (let nowMs = fromMs; nowMs <= toMs; nowMs += 500) {
      effects.push(...state(world, claimed(token), nowMs), ...world.submitter.step({ kind: 'wake' }, nowMs));
    }
    return effects;
  };
  expect(count(renewed(500, 60_000), 'runOwn')).toBe(0);
  tell(world, 'eva', { kind: 'stage', key, request: 'me/1', token, stage: 'executing' }, 60_100);
  const effects = renewed(60_500, 70_000);
  expect(count(effects, 'runOwn')).toBe(1);
  expect(effects).toContainEqual(expect.objectContaining({ kind: 'decided', why: 'straggler' }));
  // The first result counts.
  expect(ownEnded(world, 71_000)).toContainEqual(expect.objectContaining({ kind: 'answer' }));
});

test('an outcome that must not be stored is answered, and published nowhere', () => {
  const world = create({ free: 1 });
  world.submitter.step({ kind: 'execute', item }, 0);
  begins(world, 0);
  const effects = ownEnded(world, 9, { outcome: { ...outcome, cacheable: false } });
  expect(kindsOf(effects)).toContain('answer');
  expect(kindsOf(effects)).not.toContain('pinHandedOver');
  expect(effects).not.toContainEqual(expect.objectContaining({ kind: 'drained' }));
});

test('who waited with others for an outcome that is stored nowhere fetches it from its executor', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const { result } = outcome;
  const effects = state(world, { kind: 'finished', shard: 0, request: 'me/1', token, result, executor: 'eva' }, 9);
  expect(effects).toContainEqual(expect.objectContaining({ kind: 'fetchOutputs', from: 'eva', result }));
});

test('an action that was lost with one executor after the other ends after a try here, and never a second', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const effects: SubmitterEffect[] = [];
  for (let i = 0; i < claimLimits.deathsMax; i++) {
    state(world, claimed({ ...token, counter: i + 10 }, `n${i}`), i * 100);
    const after: Setback = { executor: `n${i}`, reason: 'lost' };
    const isLast = i === claimLimits.deathsMax - 1;
    effects.push(...state(world, isLast ? ended('tooManyDeaths', after) : ready(after), i * 100 + 50));
  }
  expect(count(effects, 'runOwn')).toBe(1);
  begins(world, 1_000);
  const last = ownEnded(world, 2_000, { outcome: undefined, reason: 'executorFault' });
  expect(last).toContainEqual({
    kind: 'answer',
    request: 'me/1',
    answer: { kind: 'failed', reason: 'tooManyDeaths' },
  });
});

test('deaths are counted over changes of leader too', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item: { ...item, requires: ['os=plan9'] } }, 0);
  const members = [{ node: 'eva', guestSlots: 8, capabilities: ['os=plan9'], bytesPerMs: 100_000 }];
  const other = create();
  other.submitter.step({ kind: 'mesh', members }, 0);
  other.submitter.step({ kind: 'execute', item: { ...item, requires: ['os=plan9'] } }, 0);
  const effects: SubmitterEffect[] = [];
  for (let i = 0; i < claimLimits.deathsMax; i++) {
    const term = 10 + i;
    state(other, claimed({ generation: 1, term, counter: 1 }, `n${i}`), i * 100);
    effects.push(...other.submitter.step({ kind: 'absent', node: `n${i}` }, i * 100 + 10));
    effects.push(...state(other, ready(), i * 100 + 50));
  }
  // This node cannot run it itself.
  expect(effects).toContainEqual({
    kind: 'answer',
    request: 'me/1',
    answer: { kind: 'failed', reason: 'tooManyDeaths' },
  });
});

test('an executor whose faults repeat is named in what is offered from then on', () => {
  const world = create();
  const seen: SubmitterEffect[] = [];
  for (let i = 0; i < offloadLimits.faultsToDrain; i++) {
    const request = `me/f${i}`;
    world.submitter.step({ kind: 'execute', item: { ...item, request } }, i);
    const after: Setback = { executor: 'eva', reason: 'executorFault' };
    seen.push(...state(world, { ...ready(after), request } as RequestState, i));
  }
  expect(seen).toContainEqual(expect.objectContaining({ kind: 'drained', node: 'eva', reason: 'faults' }));
  const members = ['eva', 'ben'].map((node) => ({ node, guestSlots: 8, capabilities: [], bytesPerMs: 100_000 }));
  world.submitter.step({ kind: 'mesh', members }, 10);
  const offered = sent(world.submitter.step({ kind: 'execute', item }, 11), 'submit');
  expect(offered).toMatchObject({ message: { items: [{ avoid: ['eva'] }] } });
  expect(world.submitter.drained()).toEqual([expect.objectContaining({ node: 'eva' })]);
});

test('what is offered already is offered anew without an executor that was drained since', () => {
  const world = create();
  const members = ['eva', 'ben'].map((node) => ({ node, guestSlots: 8, capabilities: [], bytesPerMs: 100_000 }));
  world.submitter.step({ kind: 'mesh', members }, 0);
  world.submitter.step({ kind: 'execute', item }, 0);
  state(world, ready(), 1);
  const drained = world.submitter.step({ kind: 'drain', node: 'eva', drained: true }, 2);
  expect(sent(drained, 'submit')).toMatchObject({ message: { items: [{ request: 'me/1', avoid: ['eva'] }] } });
});

test('a forged result is refused at once, counts against its executor, and the action runs here', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  state(world, claimed(token), 1);
  handOver(world, token, 10);
  const effects = world.submitter.step({ kind: 'fetched', fetch: 1, outcome: undefined, lied: true }, 20);
  expect(sent(effects, 'handOverRefused')).toMatchObject({ to: 'eva' });
  expect(kindsOf(effects)).toContain('runOwn');
});

test('what neither this node nor any member can run ends at once', () => {
  const world = create({ free: 4 });
  const effects = world.submitter.step({ kind: 'execute', item: { ...item, requires: ['os=plan9'] } }, 0);
  expect(effects).toContainEqual({ kind: 'answer', request: 'me/1', answer: { kind: 'failed', reason: 'unmatched' } });
});

test('inputs that are gone here end the action with that reason', () => {
  const world = create({ free: 1 });
  world.submitter.step({ kind: 'execute', item }, 0);
  begins(world, 0);
  expect(ownEnded(world, 5, { outcome: undefined, reason: 'inputsMissing' })).toContainEqual({
    kind: 'answer',
    request: 'me/1',
    answer: { kind: 'failed', reason: 'inputsMissing' },
  });
});

test('retries of many requests at once are spread, and bounded by what this node may spend', () => {
  const world = create();
  const amount = 200;
  for (let i = 0; i < amount; i++) world.submitter.step({ kind: 'execute', item: { ...item, request: `me/${i}` } }, 0);
  const atOnce: SubmitterEffect[] = [];
  for (let i = 0; i < amount; i++) {
    const request = `me/${i}`;
    state(world, { ...claimed({ ...token, counter: i + 1 }), request } as RequestState, 1);
    const under = { kind: 'succeeded' as const, shard: 0, request, result: outcome.result, executor: 'eva', token };
    atOnce.push(...state(world, under, 2));
    const fetch = atOnce.findLast((effect) => effect.kind === 'fetchOutputs');
    world.leader = undefined;
    // Nobody has the result, and there is nobody to ask for other holders.
    atOnce.push(...world.submitter.step({ kind: 'fetched', fetch: fetch?.fetch ?? 0, outcome: undefined }, 3));
    world.leader = 'lea';
  }
  // Beyond the budget it is this node that works.
  expect(count(atOnce, 'runOwn')).toBe(amount - submitterLimits.retryBurst);
  const offers: number[] = [];
  for (let nowMs = 500; nowMs <= 3_000; nowMs += 500) {
    const submit = sent(world.submitter.step({ kind: 'wake' }, nowMs), 'submit');
    if (submit?.kind === 'send' && submit.message.kind === 'submit') offers.push(submit.message.items.length);
  }
  expect(offers.reduce((sum, n) => sum + n, 0)).toBeLessThanOrEqual(submitterLimits.retryBurst * 3);
});

test('the executor hears when own actions wait for anybody, and when they do not any more', () => {
  const world = create();
  const offered = world.submitter.step({ kind: 'execute', item }, 0);
  expect(offered).toContainEqual({ kind: 'ownWaiting', waiting: true });
  expect(state(world, claimed(token), 5)).toContainEqual({ kind: 'ownWaiting', waiting: false });
});

test('what others could not get the inputs of is tried here, also when it failed here once', () => {
  const world = create({ free: 1 });
  world.submitter.step({ kind: 'execute', item }, 0);
  begins(world, 0);
  ownEnded(world, 5, { outcome: undefined, reason: 'executorFault' });
  const effects = state(world, ended('inputsMissing', { executor: 'eva', reason: 'inputsMissing' }), 10);
  expect(count(effects, 'runOwn')).toBe(1);
  begins(world, 20);
  expect(ownEnded(world, 30)).toContainEqual(expect.objectContaining({ kind: 'answer' }));
});

test('the state of a request counts from its leader alone', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const forged = (one: RequestState, from = 'mal') =>
    world.submitter.step({ kind: 'message', from, message: { kind: 'requestState', states: [one] } }, 5);
  expect(kindsOf(forged(ended('actionInvalid')))).not.toContain('answer');
  const { result } = outcome;
  const found: RequestState = { kind: 'succeeded', shard: 0, request: 'me/1', result, executor: 'mal', token };
  expect(kindsOf(forged(found))).not.toContain('fetchOutputs');
  // Whom it was offered to when that node still led knows of it as well.
  world.leader = 'lou';
  expect(kindsOf(forged(found, 'lea'))).toContain('fetchOutputs');
});

test('whoever says that a later claim was made, what earlier ones hand over is not answered', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  state(world, claimed(token), 5);
  handOver(world, token, 100);
  const later: RequestState = claimed({ ...token, term: 9 }, 'fay');
  world.submitter.step({ kind: 'message', from: 'lou', message: { kind: 'requestState', states: [later] } }, 110);
  const fetched = world.submitter.step({ kind: 'fetched', fetch: 1, outcome }, 120);
  expect(kindsOf(fetched)).not.toContain('answer');
});

test('an executor whose death is heard after the next leader gave the action on counts, and the count is offered', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const under = (term: number, executor: string): RequestState =>
    claimed({ generation: 1, term, counter: 1 }, executor);
  const absent = (node: string, nowMs: number) => world.submitter.step({ kind: 'absent', node }, nowMs);
  const led = (nowMs: number) => world.submitter.step({ kind: 'leader', shard: 0, leader: 'lea' }, nowMs);

  // The first leader dies with what it runs; the next one knows nothing of that.
  state(world, under(10, 'n0'), 100);
  led(1_000);
  state(world, ready(), 1_010);
  state(world, under(11, 'n1'), 4_000);
  absent('n0', 5_000);
  expect(sent(led(6_000), 'submit')).toMatchObject({ message: { items: [{ deaths: 1 }] } });
  // So does the second, and its successor gives the action on without a word.
  state(world, under(12, 'n2'), 9_000);
  absent('n1', 9_500);
  expect(sent(led(10_000), 'submit')).toMatchObject({ message: { items: [{ deaths: 2 }] } });
  const last = absent('n2', 11_000);
  expect(last).toContainEqual(expect.objectContaining({ kind: 'decided', where: 'here', why: 'lastTry' }));
  expect(sent(last, 'cancelRequests')).toBeDefined();
});

test('who leaves long after the action was given on is no death of it', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  state(world, claimed(token, 'n0'), 100);
  state(world, ready(), 200);
  world.submitter.step({ kind: 'absent', node: 'n0' }, 200 + submitterLimits.absenceNewsMs);
  const offered = world.submitter.step({ kind: 'leader', shard: 0, leader: 'lea' }, 30_000);
  expect(sent(offered, 'submit')).toMatchObject({ message: { items: [{ deaths: 0 }] } });
});

test('an executor that had only reserved an action when it went away is no death of it', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  state(world, claimed(token, 'n0'), 100);
  world.submitter.step({ kind: 'absent', node: 'n0' }, 200);
  state(world, ready({ executor: 'n0', reason: 'givenBack' }), 210);
  const offered = world.submitter.step({ kind: 'leader', shard: 0, leader: 'lea' }, 300);
  expect(sent(offered, 'submit')).toMatchObject({ message: { items: [{ deaths: 0 }] } });
});

import { expect, test } from 'vitest';
import { submitterLimits } from '../../../../mesh/core/agents/limits.ts';
import { createSubmitter, type Submitter, type SubmitterEffect } from '../../../../mesh/core/agents/submitter.ts';
import type { RequestState } from '../../../../mesh/core/claims/messages.ts';

const key = 'sha256/aa/1/';
const item = {
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
};
const token = { generation: 1, term: 2, counter: 3 };
const outcome = { result: 'sha256/bb/2', sizeBytes: 10 };

interface World {
  leader: string | undefined;
  readonly held: Set<string>;
  readonly submitter: Submitter;
}

function create(): World {
  const world: { leader: string | undefined; held: Set<string> } = { leader: 'lea', held: new Set() };
  const submitter = createSubmitter({
    self: 'me',
    storeGeneration: 1,
    leaderOf: () => world.leader,
    holds: (blob) => world.held.has(blob),
  });
  return Object.assign(world, { submitter });
}

const state = ({ submitter }: World, one: RequestState, nowMs: number): readonly SubmitterEffect[] =>
  submitter.step({ kind: 'message', from: 'lea', message: { kind: 'requestState', states: [one] } }, nowMs);

const handOver = ({ submitter }: World, under: typeof token, nowMs: number): readonly SubmitterEffect[] =>
  submitter.step(
    {
      kind: 'message',
      from: 'eva',
      message: { kind: 'handOver', shard: 0, key, request: 'me/1', token: under, outcome },
    },
    nowMs,
  );

const claimed = (under: typeof token): RequestState => ({
  kind: 'claimed',
  shard: 0,
  request: 'me/1',
  executor: 'eva',
  token: under,
  running: true,
});

const sent = (effects: readonly SubmitterEffect[], kind: string) =>
  effects.find((effect) => effect.kind === 'send' && effect.message.kind === kind);

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
    answer: { kind: 'result', outcome, source: 'mesh', token },
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
  expect(world.submitter.step({ kind: 'fetched', fetch: 1, outcome }, 30)).toEqual([]);
  expect(sent(handOver(world, token, 40), 'handOverRefused')).toMatchObject({ to: 'eva' });
  expect(handOver(world, later, 50)).toContainEqual(expect.objectContaining({ kind: 'fetchOutputs' }));
});

test('when the mesh is silent the action runs here, and its result is published without a claim', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const effects = wait(world, 500, submitterLimits.meshBudgetMs);
  expect(effects.filter((effect) => effect.kind === 'runOwn')).toHaveLength(1);
  const ended = world.submitter.step({ kind: 'ownEnded', request: 'me/1', outcome }, 9_000);
  expect(ended).toContainEqual(
    expect.objectContaining({ kind: 'answer', answer: { kind: 'result', outcome, source: 'local', token: undefined } }),
  );
  const pin = ended.find((effect) => effect.kind === 'pinHandedOver');
  const published = world.submitter.step({ kind: 'pinned', fetch: pin?.fetch ?? 0, forMs: 5_000 }, 9_001);
  expect(sent(published, 'publish')).toMatchObject({ to: 'lea', message: { result: outcome.result } });
});

test('a request is offered again to the next leader, marked as known before', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  state(world, { kind: 'ready', shard: 0, request: 'me/1', leaseMs: 10_000 }, 5);
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
  expect(sent(last, 'submit')).toBeDefined();
});

test('a cancelled request is answered and taken from its leader', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const effects = world.submitter.step({ kind: 'cancel', request: 'me/1' }, 10);
  expect(effects).toContainEqual({ kind: 'answer', request: 'me/1', answer: { kind: 'failed', reason: 'cancelled' } });
  expect(sent(effects, 'cancelRequests')).toMatchObject({ to: 'lea' });
  expect(world.submitter.waiting()).toBe(0);
});

test('an action that nobody claims runs here once its patience is over', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  const effects: SubmitterEffect[] = [];
  for (let nowMs = 0; nowMs <= submitterLimits.queueBudgetMs; nowMs += 1_000) {
    effects.push(...state(world, { kind: 'ready', shard: 0, request: 'me/1', leaseMs: 10_000 }, nowMs));
    effects.push(...world.submitter.step({ kind: 'wake' }, nowMs));
  }
  expect(effects.filter((effect) => effect.kind === 'runOwn')).toHaveLength(1);
});

test('the next leader hears that another one was asked, whether or not it answered', () => {
  const world = create();
  world.submitter.step({ kind: 'execute', item }, 0);
  world.leader = 'lou';
  const offered = sent(world.submitter.step({ kind: 'leader', shard: 0, leader: 'lou' }, 10), 'submit');
  expect(offered).toMatchObject({ to: 'lou', message: { items: [{ request: 'me/1', reoffer: true }] } });
});

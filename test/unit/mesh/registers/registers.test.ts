// Goal: what a register accepts, rule by rule; then that any sequence of commands keeps the rules and replicas equal.
// Method: batches applied to the state machine alone, as the log would deliver them.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Token, actionKey, compareTokens } from '../../../../mesh/core/ids.ts';
import { registerLimits } from '../../../../mesh/core/limits.ts';
import { registerSizeBytes } from '../../../../mesh/core/registers/encoding.ts';
import { offerOf, pinsLeftMs } from '../../../../mesh/core/registers/holders.ts';
import { type Registers, createRegisters } from '../../../../mesh/core/registers/registers.ts';
import type { ApplyOutcome, RegisterCommand } from '../../../../mesh/core/registers/types.ts';

const key = actionKey('main', 'sha256', 'ab', 1);
const token = (counter: number, term = 3, generation = 1): Token => ({ generation, term, counter });
const promise = (holder: string, pinnedForMs = 1_000, storeGeneration = 1) => ({
  holder,
  storeGeneration,
  pinnedForMs,
});

function commit(result: string, held: Token, replaces?: Token, at = key): RegisterCommand {
  return { kind: 'commit', key: at, token: held, replaces, result, executor: 'eve', promises: [promise('eve')] };
}
function publish(result: string, at = key): RegisterCommand {
  return { kind: 'publish', key: at, result, executor: 'ann', promises: [promise('ann')] };
}
const drop = (result: string, reason: 'lost' | 'wrong' | 'nonDeterministic' = 'wrong'): RegisterCommand => ({
  kind: 'invalidate',
  key,
  result,
  reason,
});

function apply(registers: Registers, command: RegisterCommand, term = 3, shardMs = 0, generation = 1): ApplyOutcome {
  return registers.apply({ shardMs, commands: [command] }, { term, generation })[0] as ApplyOutcome;
}

test('a claimed result fills an empty register and says who ran it under which token', () => {
  const registers = createRegisters();
  expect(apply(registers, commit('r1', token(1)))).toBe('accepted');
  expect(registers.get(key)).toMatchObject({ result: 'r1', class: 'claimed', token: token(1), executor: 'eve' });
});

test('a token of another term or generation than the log entry is stale, even on an empty register', () => {
  const registers = createRegisters();
  expect(apply(registers, commit('r1', token(1, 2)), 3)).toBe('stale');
  expect(apply(registers, commit('r1', token(1, 3, 1)), 3, 0, 2)).toBe('stale');
  expect(registers.get(key)).toBeUndefined();
});

test('an older token than the accepted one is stale', () => {
  const registers = createRegisters();
  apply(registers, commit('r2', token(2)));
  expect(apply(registers, commit('r1', token(1), token(2)))).toBe('stale');
  expect(registers.get(key)).toMatchObject({ result: 'r2' });
});

test('of two claims on one action only the first commit counts: the second was issued before it', () => {
  const registers = createRegisters();
  apply(registers, commit('r1', token(1)));
  expect(apply(registers, commit('r2', token(2), undefined))).toBe('occupied');
  expect(registers.get(key)).toMatchObject({ result: 'r1', token: token(1) });
});

test('a claim issued over a known result may replace it', () => {
  const registers = createRegisters();
  apply(registers, commit('r1', token(1)));
  expect(apply(registers, commit('r2', token(2), token(1)))).toBe('accepted');
  expect(registers.get(key)).toMatchObject({ result: 'r2', token: token(2) });
});

test('a repeated commit is recognised; another result under the same token is not believed', () => {
  const registers = createRegisters();
  apply(registers, commit('r1', token(1)));
  expect(apply(registers, commit('r1', token(1)))).toBe('same');
  expect(apply(registers, commit('r2', token(1)))).toBe('stale');
});

test('an unclaimed result only fills an empty register, and a claimed one replaces it', () => {
  const registers = createRegisters();
  expect(apply(registers, publish('u1'))).toBe('accepted');
  expect(apply(registers, publish('u2'))).toBe('occupied');
  expect(apply(registers, commit('r1', token(1)))).toBe('accepted');
  expect(apply(registers, publish('u1'))).toBe('occupied');
  expect(registers.get(key)).toMatchObject({ result: 'r1', class: 'claimed' });
});

test('an invalidation drops the result that it names and no other, and leaves a tombstone with the token', () => {
  const registers = createRegisters();
  apply(registers, commit('r1', token(1)));
  expect(apply(registers, drop('r0'))).toBe('mismatch');
  expect(apply(registers, drop('r1'))).toBe('accepted');
  expect(registers.get(key)).toMatchObject({ kind: 'tombstone', result: 'r1', token: token(1) });
  expect(apply(registers, commit('r1', token(1)))).toBe('occupied');
});

test('a tombstone for a wrong result keeps unclaimed results out; one for lost blobs lets them back in', () => {
  const wrong = createRegisters();
  apply(wrong, publish('u1'));
  apply(wrong, drop('u1', 'wrong'));
  expect(apply(wrong, publish('u1'))).toBe('tombstoned');
  const lost = createRegisters();
  apply(lost, publish('u1'));
  apply(lost, drop('u1', 'lost'));
  expect(apply(lost, publish('u1'))).toBe('accepted');
});

test('an action once found non-deterministic stays marked', () => {
  const registers = createRegisters();
  apply(registers, commit('r1', token(1)));
  apply(registers, drop('r1', 'nonDeterministic'));
  apply(registers, commit('r2', token(2), token(1)));
  expect(registers.get(key)).toMatchObject({ result: 'r2', nonDeterministic: true });
});

test('an offer from another history is write-if-absent, and its tombstones count', () => {
  const old = createRegisters();
  apply(old, commit('r1', token(1)));
  const entry = old.get(key);
  if (!entry) throw new Error('no entry');
  const offer = (register: typeof entry): RegisterCommand => ({ kind: 'offer', key, register: offerOf(register, 0) });

  const empty = createRegisters();
  expect(apply(empty, offer(entry), 1, 0, 2)).toBe('accepted');
  expect(empty.get(key)).toMatchObject({ result: 'r1', token: token(1) });

  const other = createRegisters();
  apply(other, commit('r9', token(1, 1, 2)), 1, 0, 2);
  expect(apply(other, offer(entry), 1, 0, 2)).toBe('occupied');

  apply(old, drop('r1', 'wrong'));
  const tombstone = old.get(key);
  if (!tombstone) throw new Error('no tombstone');
  expect(apply(empty, offer(tombstone), 1, 0, 2)).toBe('accepted');
  expect(empty.get(key)).toMatchObject({ kind: 'tombstone' });
  expect(apply(empty, offer(entry), 1, 0, 2)).toBe('same');
  expect(empty.get(key)).toMatchObject({ kind: 'tombstone' });

  const blank = createRegisters();
  expect(apply(blank, offer(tombstone), 1, 0, 2)).toBe('accepted');
  expect(apply(blank, offer(entry), 1, 0, 2)).toBe('same');
  expect(apply(blank, publish('r1'), 1, 0, 2)).toBe('tombstoned');

  // What was only lost here is wrong there, and must not be brought back.
  const lost = createRegisters();
  apply(lost, publish('r1'), 1, 0, 2);
  apply(lost, drop('r1', 'lost'), 1, 0, 2);
  expect(apply(lost, offer(tombstone), 1, 0, 2)).toBe('accepted');
  expect(apply(lost, publish('r1'), 1, 0, 2)).toBe('tombstoned');
});

test('an offered token that this history could issue itself is refused', () => {
  const registers = createRegisters();
  const offered = {
    kind: 'tombstone',
    result: 'r',
    reason: 'wrong',
    token: token(9),
    nonDeterministic: false,
  } as const;
  expect(apply(registers, { kind: 'offer', key, register: offered })).toBe('stale');
});

test('promises of one result add up, newest per holder, bounded, and run out in shard time', () => {
  const registers = createRegisters();
  apply(registers, publish('u1'), 3, 100);
  for (const holder of ['h1', 'h2', 'h3', 'h4', 'h5']) {
    apply(registers, { ...publish('u1'), promises: [promise(holder, 5_000)] } as RegisterCommand, 3, 200);
  }
  const register = registers.get(key);
  expect(register?.kind === 'result' && register.holders.map(({ holder }) => holder)).toEqual(['h1', 'h2', 'h3', 'h4']);
  expect(register && pinsLeftMs(register, 1_200)).toEqual([4_000, 4_000, 4_000, 4_000]);
  expect(register && pinsLeftMs(register, 9_000)).toEqual([0, 0, 0, 0]);
});

test('shard time never goes back', () => {
  const registers = createRegisters();
  apply(registers, publish('u1'), 3, 500);
  apply(registers, drop('u1'), 3, 100);
  expect(registers.shardMs).toBe(500);
  expect(registers.get(key)?.writtenAtMs).toBe(500);
});

test('beyond the bound the longest unwritten goes, and its token still keeps older ones out', () => {
  const registers = createRegisters();
  const keyOf = (i: number): string => actionKey('', 'sha256', `${i}`, 1);
  const count = registerLimits.registersPerShard + 5;
  for (let i = 0; i < count; i += 200) {
    const commands = Array.from({ length: Math.min(200, count - i) }, (_, j) =>
      commit(`r${i + j}`, token(i + j + 1), undefined, keyOf(i + j)),
    );
    registers.apply({ shardMs: 0, commands }, { term: 3, generation: 1 });
  }
  expect(registers.size).toBe(registerLimits.registersPerShard);
  expect(registers.get(keyOf(4))).toBeUndefined();
  expect(registers.get(keyOf(5))).toBeDefined();
  expect(apply(registers, commit('late', token(3), undefined, keyOf(2)))).toBe('stale');
});

const someToken = fc.record({
  generation: fc.constantFrom(1, 2),
  term: fc.constantFrom(2, 3),
  counter: fc.integer({ min: 1, max: 6 }),
});
const someKey = fc.constantFrom(...['x', 'y', 'z'].map((hash) => actionKey('', 'sha256', hash, 1)));
const someResult = fc.constantFrom('r1', 'r2', 'r3');
const promises = fc.array(
  fc.record({ holder: fc.constantFrom('h1', 'h2'), storeGeneration: fc.nat(2), pinnedForMs: fc.nat(900) }),
  { maxLength: 2 },
);
const someCommand: fc.Arbitrary<RegisterCommand> = fc.oneof(
  fc.record({
    kind: fc.constant('commit' as const),
    key: someKey,
    token: someToken,
    replaces: fc.option(someToken, { nil: undefined }),
    result: someResult,
    executor: fc.constantFrom('e1', 'e2'),
    promises,
  }),
  fc.record({
    kind: fc.constant('publish' as const),
    key: someKey,
    result: someResult,
    executor: fc.constant('e1'),
    promises,
  }),
  fc.record({
    kind: fc.constant('invalidate' as const),
    key: someKey,
    result: someResult,
    reason: fc.constantFrom('lost' as const, 'wrong' as const, 'nonDeterministic' as const),
  }),
  fc.record({
    kind: fc.constant('offer' as const),
    key: someKey,
    register: fc.record({
      kind: fc.constant('tombstone' as const),
      result: someResult,
      reason: fc.constantFrom('lost' as const, 'wrong' as const),
      token: fc.option(someToken, { nil: undefined }),
      nonDeterministic: fc.boolean(),
    }),
  }),
);

test('any sequence: tokens per key only rise, unclaimed never replaces, and a restored replica goes on identically', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(someCommand, fc.nat(2_000)), { maxLength: 60, size: 'max' }),
      fc.nat(60),
      (steps, cut) => {
        const registers = createRegisters();
        let restored = createRegisters();
        for (const [i, [command, shardMs]] of steps.entries()) {
          const before = registers.get(command.key);
          const outcome = apply(registers, command, 3, shardMs, 2);
          expect(apply(restored, command, 3, shardMs, 2)).toBe(outcome);
          if (i === cut) restored = createRegisters(structuredClone(restored.snapshot()));
          const after = registers.get(command.key);
          if (before?.token) {
            expect(after?.token && compareTokens(after.token, before.token)).toBeGreaterThanOrEqual(0);
          }
          if (command.kind === 'publish' && before?.kind === 'result') expect(after?.result).toBe(before.result);
          if (outcome !== 'accepted' && outcome !== 'same') expect(after).toEqual(before);
        }
        expect(restored.snapshot()).toEqual(registers.snapshot());
        let sizeBytes = 0;
        for (const [k, register] of registers.entries()) sizeBytes += registerSizeBytes(k, register);
        expect(registers.sizeBytes).toBe(sizeBytes);
      },
    ),
    { numRuns: 300, seed: 5 },
  );
});

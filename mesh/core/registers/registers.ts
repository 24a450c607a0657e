/**
 * The state machine of a shard: deterministic, so replicas that apply the same log hold the same registers. What is
 * accepted is decided here and nowhere else: whoever proposed may have been deposed, delayed or wrong.
 *
 * @see docs/protocol.md, "Registers"
 */
import { type ActionKey, type Token, compareTokens } from '../ids.ts';
import { registerLimits } from '../limits.ts';
import { hashBatch, registerSizeBytes } from './encoding.ts';
import { mergeHolders } from './holders.ts';
import type {
  ApplyOutcome,
  Register,
  RegisterBatch,
  RegisterCommand,
  RegistersState,
  ResultEntry,
  Tombstone,
} from './types.ts';

/** Where in which history a batch stands: what its tokens are held against. */
export interface ApplyContext {
  readonly generation: number;
  /** Of the log entry that carries the batch. */
  readonly term: number;
}

export interface Registers {
  /** One outcome for each command, in order. */
  apply(batch: RegisterBatch, context: ApplyContext): readonly ApplyOutcome[];
  get(key: ActionKey): Register | undefined;
  /** Every register, the longest unwritten first. */
  entries(): IterableIterator<[ActionKey, Register]>;
  /** The newest stamp applied. */
  readonly shardMs: number;
  readonly size: number;
  readonly sizeBytes: number;
  snapshot(): RegistersState;
}

type Command<Kind extends RegisterCommand['kind']> = Extract<RegisterCommand, { kind: Kind }>;

export const emptyRegisters: RegistersState = { shardMs: 0, registers: [], evictedToken: undefined, history: 0 };

export function createRegisters(state: RegistersState = emptyRegisters): Registers {
  // In order of last write: the first is the next to be evicted.
  const registers = new Map<ActionKey, Register>(state.registers);
  let { shardMs, evictedToken, history } = state;
  let sizeBytes = 0;
  for (const [key, register] of registers) sizeBytes += registerSizeBytes(key, register);

  const write = (key: ActionKey, register: Register): void => {
    forget(key);
    registers.set(key, register);
    sizeBytes += registerSizeBytes(key, register);
  };
  const forget = (key: ActionKey): void => {
    const old = registers.get(key);
    if (!old) return;
    sizeBytes -= registerSizeBytes(key, old);
    registers.delete(key);
  };
  const evict = (): void => {
    for (const [key, register] of registers) {
      if (registers.size <= registerLimits.registersPerShard && sizeBytes <= registerLimits.bytesPerShard) return;
      evictedToken = newer(evictedToken, register.token);
      forget(key);
    }
  };

  const commit = (command: Command<'commit'>, context: ApplyContext): ApplyOutcome => {
    const { key, token, result } = command;
    const current = registers.get(key);
    const accepted = current?.token ?? evictedToken;
    if (token.generation !== context.generation || token.term !== context.term) return 'stale';
    if (accepted && compareTokens(token, accepted) < 0) return 'stale';
    if (current?.kind === 'result' && current.token && compareTokens(token, current.token) === 0) {
      return current.result === result ? 'same' : 'stale';
    }
    if (current?.token && !(command.replaces && compareTokens(current.token, command.replaces) === 0))
      return 'occupied';
    write(key, {
      kind: 'result',
      result,
      class: 'claimed',
      token,
      executor: command.executor,
      holders: mergeHolders([], command.promises, shardMs),
      writtenAtMs: shardMs,
      nonDeterministic: current?.nonDeterministic ?? false,
    });
    return 'accepted';
  };

  const publish = (command: Command<'publish'>): ApplyOutcome => {
    const { key, result } = command;
    const current = registers.get(key);
    if (current?.kind === 'result') return current.result === result ? addHolders(key, current, command) : 'occupied';
    // Blobs that were lost may be brought back; a result that was wrong may not.
    if (current && current.reason !== 'lost') return 'tombstoned';
    write(key, {
      kind: 'result',
      result,
      class: 'unclaimed',
      token: current?.token,
      executor: command.executor,
      holders: mergeHolders([], command.promises, shardMs),
      writtenAtMs: shardMs,
      nonDeterministic: current?.nonDeterministic ?? false,
    });
    return 'accepted';
  };

  const invalidate = (command: Command<'invalidate'>): ApplyOutcome => {
    const { key, result, reason } = command;
    const current = registers.get(key);
    if (current?.result !== result) return 'mismatch';
    if (current.kind === 'tombstone' && (reason === 'lost' || current.reason === reason)) return 'same';
    write(key, tombstoneOf(current, reason, shardMs));
    return 'accepted';
  };

  const offer = (command: Command<'offer'>, context: ApplyContext): ApplyOutcome => {
    const { key, register: offered } = command;
    const current = registers.get(key);
    // A superseded history has lower tokens only; another one would lock out this history's own commits.
    if (offered.token && offered.token.generation >= context.generation) return 'stale';
    if (!current) {
      if (offered.kind === 'tombstone') {
        write(key, { ...offered, writtenAtMs: shardMs });
      } else {
        const { promises, ...entry } = offered;
        write(key, { ...entry, holders: mergeHolders([], promises, shardMs), writtenAtMs: shardMs });
      }
      return 'accepted';
    }
    if (current.result !== offered.result) return current.kind === 'tombstone' ? 'tombstoned' : 'occupied';
    if (current.kind === 'tombstone') {
      // What is merely lost here may be brought back; what another history found wrong may not.
      if (offered.kind === 'result' || offered.reason === 'lost' || current.reason !== 'lost') return 'same';
      write(key, tombstoneOf(current, offered.reason, shardMs));
      return 'accepted';
    }
    if (offered.kind === 'result') return addHolders(key, current, offered);
    // The blobs that history lost may well be held in this one; what it found to be wrong is wrong here too.
    if (offered.reason === 'lost') return 'occupied';
    write(key, tombstoneOf(current, offered.reason, shardMs));
    return 'accepted';
  };

  const addHolders = (
    key: ActionKey,
    current: ResultEntry,
    from: Pick<Command<'publish'>, 'promises'>,
  ): ApplyOutcome => {
    const holders = mergeHolders(current.holders, from.promises, shardMs);
    write(key, { ...current, holders, writtenAtMs: shardMs });
    return 'same';
  };

  return {
    apply(batch, context) {
      shardMs = Math.max(shardMs, batch.shardMs);
      const outcomes = batch.commands.map((command): ApplyOutcome => {
        switch (command.kind) {
          case 'commit':
            return commit(command, context);
          case 'publish':
            return publish(command);
          case 'invalidate':
            return invalidate(command);
          case 'offer':
            return offer(command, context);
        }
      });
      evict();
      history = hashBatch(history, batch, outcomes);
      return outcomes;
    },
    get: (key) => registers.get(key),
    entries: () => registers.entries(),
    get shardMs() {
      return shardMs;
    },
    get size() {
      return registers.size;
    },
    get sizeBytes() {
      return sizeBytes;
    },
    snapshot: () => ({ shardMs, registers: [...registers], evictedToken, history }),
  };
}

function tombstoneOf(current: Register, reason: Tombstone['reason'], shardMs: number): Tombstone {
  return {
    kind: 'tombstone',
    result: current.result,
    reason,
    token: current.token,
    writtenAtMs: shardMs,
    nonDeterministic: current.nonDeterministic || reason === 'nonDeterministic',
  };
}

function newer(a: Token | undefined, b: Token | undefined): Token | undefined {
  if (!a || !b) return a ?? b;
  return compareTokens(a, b) >= 0 ? a : b;
}

/** Sizes and hashes of registers and commands, the same on every replica. */
import { type ActionKey, tokenText } from '../ids.ts';
import { hashPair, hashText } from '../hash.ts';
import type { ApplyOutcome, HolderPromise, Register, RegisterBatch, RegisterCommand } from './types.ts';

/** Token, times and flags of a register, or of a command, in bytes; rounded up. */
const fixedBytes = 48;
/** Store generation and time of one holder, in bytes. */
const holderFixedBytes = 16;

/** Bytes that a register weighs against `bytesPerShard`: its texts, which are ASCII, and a fixed part. */
export function registerSizeBytes(key: ActionKey, register: Register): number {
  const base = fixedBytes + key.length + register.result.length;
  if (register.kind === 'tombstone') return base;
  return base + register.executor.length + holdersSizeBytes(register.holders);
}

/** Bytes that a batch weighs in the log. */
export function batchSizeBytes(batch: RegisterBatch): number {
  return batch.commands.reduce((sum, command) => sum + commandSizeBytes(command), fixedBytes);
}

function commandSizeBytes(command: RegisterCommand): number {
  const base = fixedBytes + command.key.length;
  switch (command.kind) {
    case 'commit':
    case 'publish':
      return base + command.result.length + command.executor.length + holdersSizeBytes(command.promises);
    case 'invalidate':
      return base + command.result.length;
    case 'offer':
      return base + command.register.result.length + (command.register.kind === 'result' ? 256 : 0);
  }
}

function holdersSizeBytes(holders: readonly { readonly holder: string }[]): number {
  return holders.reduce((sum, { holder }) => sum + holderFixedBytes + holder.length, 0);
}

/** The history's hash after one more batch. */
export function hashBatch(history: number, batch: RegisterBatch, outcomes: readonly ApplyOutcome[]): number {
  let hash = hashPair(history, batch.shardMs | 0);
  for (const [i, command] of batch.commands.entries()) {
    hash = hashPair(hash, hashText(`${outcomes[i] ?? ''} ${commandText(command)}`));
  }
  return hash;
}

/** A command in one line, every field in it; for hashes and traces. */
export function commandText(command: RegisterCommand): string {
  switch (command.kind) {
    case 'commit': {
      const replaces = command.replaces ? tokenText(command.replaces) : '-';
      const promises = promisesText(command.promises);
      return `commit ${command.key} ${tokenText(command.token)} ${replaces} ${command.result} ${command.executor} ${promises}`;
    }
    case 'publish':
      return `publish ${command.key} ${command.result} ${command.executor} ${promisesText(command.promises)}`;
    case 'invalidate':
      return `invalidate ${command.key} ${command.result} ${command.reason}`;
    case 'offer': {
      const { register } = command;
      const token = register.token ? tokenText(register.token) : '-';
      const rest =
        register.kind === 'tombstone'
          ? register.reason
          : `${register.class} ${register.executor} ${promisesText(register.promises)}`;
      return `offer ${command.key} ${register.kind} ${register.result} ${token} ${register.nonDeterministic} ${rest}`;
    }
  }
}

function promisesText(promises: readonly HolderPromise[]): string {
  return promises.map((p) => `${p.holder}:${p.storeGeneration}:${p.pinnedForMs}`).join(',');
}

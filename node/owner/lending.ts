/** What the owner said about guests, by command; it outlives the node and wins over the configuration. */
import { join } from 'node:path';
import { readIfThere, replaceDurably } from '../../mesh/net/identity/durable-file.ts';
import type { LendConfig } from '../config/config.ts';

export interface Lending extends LendConfig {
  /** No guests before `resume`, whatever the rest says. */
  readonly paused: boolean;
}

export interface LendingFile {
  current(): Lending;
  /** Durable when it returns. Throws what the disk says. */
  change(change: Partial<Lending>): Lending;
}

/** A file that cannot be understood lends nothing: whoever wrote it meant something. */
export function openLending(dataDir: string, defaults: LendConfig, onDamage: (text: string) => void): LendingFile {
  const path = join(dataDir, 'lending.json');
  let said = read();

  function read(): Partial<Lending> {
    try {
      const bytes = readIfThere(path);
      return bytes ? parse(JSON.parse(Buffer.from(bytes).toString())) : {};
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      onDamage(`${path} cannot be read (${reason}), so this machine takes no guests; "potluck lend" writes it anew`);
      return { when: 'never' };
    }
  }

  const current = (): Lending => ({ paused: false, ...defaults, ...said });
  return {
    current,
    change(change) {
      const next = { ...said, ...change };
      replaceDurably(path, Buffer.from(`${JSON.stringify(next)}\n`));
      said = next;
      return current();
    },
  };
}

function parse(value: unknown): Partial<Lending> {
  const { paused, when, slots } = value as Record<string, unknown>;
  return {
    ...(typeof paused === 'boolean' && { paused }),
    ...((when === 'idle' || when === 'always' || when === 'never') && { when }),
    ...(typeof slots === 'number' && Number.isSafeInteger(slots) && slots >= 0 && { slots }),
  };
}

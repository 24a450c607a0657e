/**
 * A simulated disk for one node: files as text, of which only what was synced survives a crash, plus a part, chosen at
 * random, of what was not. A replaced file changes in one step.
 */
import type { Rng } from '../mesh/core/rng.ts';
import type { LogFiles } from '../node/mesh/ports.ts';
import type { Engine } from './engine.ts';

interface File {
  text: string;
  /** Length of the part that survives for certain. */
  synced: number;
}

export interface SimDisk extends LogFiles {
  read(name: string): string;
  /** Cuts a file to the part that its reader found whole. */
  truncate(name: string, length: number): void;
  /** Loses what was not synced; a torn part of it may stay. Answers on their way are never given. */
  crash(): void;
  setFull(full: boolean): void;
  syncs(): number;
}

export interface DiskModel {
  readonly syncUsMin: number;
  readonly syncUsMax: number;
}

export function createDisk(engine: Engine, rng: Rng, model: DiskModel): SimDisk {
  const files = new Map<string, File>();
  let life = 0;
  let full = false;
  let syncs = 0;

  function file(name: string): File {
    let held = files.get(name);
    if (!held) files.set(name, (held = { text: '', synced: 0 }));
    return held;
  }

  function answer(delayUs: number, act: () => void): void {
    const mine = life;
    engine.after(delayUs, () => {
      if (mine === life) act();
    });
  }

  return {
    read: (name) => files.get(name)?.text ?? '',
    truncate(name, length) {
      const held = file(name);
      held.text = held.text.slice(0, length);
      held.synced = Math.min(held.synced, length);
    },
    append(name, text, done) {
      if (full) {
        answer(1, () => done(false));
        return;
      }
      file(name).text += text;
      answer(1, () => done(true));
    },
    sync(name, done) {
      const held = file(name);
      const length = held.text.length;
      syncs += 1;
      answer(rng.between(model.syncUsMin, model.syncUsMax), () => {
        held.synced = Math.max(held.synced, length);
        done(true);
      });
    },
    replace(name, text, done) {
      if (full) {
        answer(1, () => done(false));
        return;
      }
      syncs += 1;
      answer(rng.between(model.syncUsMin, model.syncUsMax), () => {
        files.set(name, { text, synced: text.length });
        done(true);
      });
    },
    crash() {
      life += 1;
      for (const held of files.values()) {
        const unsynced = held.text.length - held.synced;
        if (unsynced > 0) held.text = held.text.slice(0, held.synced + rng.below(unsynced + 1));
        held.synced = held.text.length;
      }
    },
    setFull(now) {
      full = now;
    },
    syncs: () => syncs,
  };
}

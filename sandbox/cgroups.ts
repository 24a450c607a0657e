/**
 * Limits by control groups, version 1 or 2, where this node may make them: as root, or in a group that was delegated to it
 * (systemd: `Delegate=yes`).
 *
 * Groups are pooled, and the file through which a process joins stays open: an action costs one write for each.
 */
import { chownSync, closeSync, mkdirSync, openSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  attempt,
  attemptText,
  type CgroupLimits,
  type CgroupSelf,
  prepareLayout,
  processesOf,
  readSelf,
  writeSettings,
} from './cgroup-layout.ts';
import { freezeLookMs, freezeWaitMs } from './limits.ts';
import type { Freezable } from './run-control.ts';
import type { Owner } from './staging.ts';

export interface Cgroups {
  /** Such as `memory`, `pids`. */
  readonly controllers: readonly string[];
  readonly version: 1 | 2;
  acquire(): Cgroup;
  close(): void;
}

export interface Cgroup extends Disposable {
  /** Open files: a process that writes 0 to each is limited, with all it starts. */
  readonly joinFiles: readonly number[];
  /** `undefined` where the kernel freezes no groups. Killing a frozen process takes a thaw. */
  readonly freezer: Freezable | undefined;
  /** Until disposed, what is in here and in the groups beside it gets its share of the processors, to freeze or to die. */
  hasten(): Disposable;
  /** How often the kernel has killed here for want of memory; 0 where it does not say. */
  memoryKills(): number;
}

export interface CgroupOptions {
  readonly limits: CgroupLimits;
  /** Who joins, when that is not the node's own user. */
  readonly owner?: Owner | undefined;
  readonly self?: CgroupSelf;
}

/** `undefined` when no limit can be set here. */
export function openCgroups({ limits, owner, self = readSelf() }: CgroupOptions): Cgroups | undefined {
  const { version, hierarchies } = prepareLayout(self, limits);
  if (hierarchies.length === 0) return undefined;
  const all: string[] = [];
  const idle: {
    readonly directories: readonly string[];
    readonly joinFiles: readonly number[];
    readonly freezer: GroupFreezer | undefined;
  }[] = [];
  const files: number[] = [];
  let hasteners = 0;

  const weigh = (which: 'together' | 'hastened') => {
    for (const hierarchy of hierarchies) {
      if (hierarchy.hastened.length > 0) attempt(() => writeSettings(hierarchy.parent, hierarchy[which]));
    }
  };
  const hasten = (): Disposable => {
    if (hasteners++ === 0) weigh('hastened');
    return {
      [Symbol.dispose]: () => {
        if (--hasteners === 0) weigh('together');
      },
    };
  };

  let made = 0;
  const make = () => {
    const name = String(made++);
    const directories = hierarchies.map(({ parent, settings }) => {
      const directory = join(parent, name);
      mkdirSync(directory, { recursive: true });
      all.push(directory);
      writeSettings(directory, settings);
      return directory;
    });
    const joinFiles = directories.map((directory) => {
      const path = join(directory, 'cgroup.procs');
      // Kernels before 5.16 ask who writes, not who opened the file.
      if (owner && version === 1) chownSync(path, owner.uid, owner.gid);
      return openSync(path, 'w');
    });
    files.push(...joinFiles);
    return { directories, joinFiles, freezer: freezerOf(directories, hasten) };
  };

  const cgroups: Cgroups = {
    version,
    controllers: hierarchies.flatMap(({ controllers }) => controllers),
    acquire() {
      const group = idle.pop() ?? make();
      return {
        joinFiles: group.joinFiles,
        freezer: group.freezer,
        hasten,
        memoryKills: () => memoryKills(group.directories),
        [Symbol.dispose]: () => {
          group.freezer?.release();
          if (group.directories.every((directory) => processesOf(directory).length === 0)) idle.push(group);
        },
      };
    },
    close() {
      for (const file of files.splice(0)) closeSync(file);
      for (const directory of [...all, ...hierarchies.map(({ parent }) => parent)]) attempt(() => rmdirSync(directory));
    },
  };
  // The first group shows whether the limits can really be set.
  const usable = attempt(() => cgroups.acquire()[Symbol.dispose]());
  if (!usable) cgroups.close();
  return usable ? cgroups : undefined;
}

/** The file that freezes, what is written there, and where the kernel says that it is done. */
interface FreezerFile {
  readonly path: string;
  readonly words: readonly [frozen: string, thawed: string];
  readonly done: (frozen: boolean) => boolean;
}

/** @see the kernel's texts on the freezer controller (version 1) and on cgroup.freeze (version 2) */
function freezerFile(directories: readonly string[]): FreezerFile | undefined {
  for (const directory of directories) {
    const state = join(directory, 'freezer.state');
    if (attempt(() => readFileSync(state))) {
      const done = (frozen: boolean) => attemptText(() => readFileSync(state, 'utf8')).trim() === stateOf(frozen);
      return { path: state, words: ['FROZEN', 'THAWED'], done };
    }
    const freeze = join(directory, 'cgroup.freeze');
    if (attempt(() => readFileSync(freeze))) {
      const events = join(directory, 'cgroup.events');
      const done = (frozen: boolean) =>
        attemptText(() => readFileSync(events, 'utf8')).includes(`frozen ${frozen ? 1 : 0}`);
      return { path: freeze, words: ['1', '0'], done };
    }
  }
  return undefined;
}

function stateOf(frozen: boolean): string {
  return frozen ? 'FROZEN' : 'THAWED';
}

interface GroupFreezer extends Freezable {
  /** Whoever joins next must not be frozen. */
  release(): void;
}

function freezerOf(directories: readonly string[], hasten: () => Disposable): GroupFreezer | undefined {
  const file = freezerFile(directories);
  if (!file) return undefined;
  let frozenLast = false;
  const set = async (frozen: boolean) => {
    frozenLast = frozen;
    using _ = frozen ? hasten() : undefined;
    if (!attempt(() => writeFileSync(file.path, file.words[frozen ? 0 : 1]))) return;
    // A process that waits for a disk freezes when that answers: the kernel goes on trying when nobody looks any more.
    const deadlineMs = performance.now() + freezeWaitMs;
    while (!file.done(frozen) && performance.now() < deadlineMs) await sleep(freezeLookMs);
  };
  return {
    freeze: () => set(true),
    thaw: () => set(false),
    release: () => {
      if (frozenLast) attempt(() => writeFileSync(file.path, file.words[1]));
      frozenLast = false;
    },
  };
}

function memoryKills(directories: readonly string[]): number {
  for (const directory of directories) {
    for (const name of ['memory.events', 'memory.oom_control']) {
      const count = /^oom_kill (\d+)$/m.exec(attemptText(() => readFileSync(join(directory, name), 'utf8')))?.[1];
      if (count !== undefined) return Number(count);
    }
  }
  return 0;
}

/**
 * Memory and process limits by control groups, version 1 or 2, where this node may make them: as root, or in a group
 * that was delegated to it (systemd: `Delegate=yes`).
 *
 * Groups are pooled, and the file through which a process joins stays open: an action costs one write for each.
 */
import { randomBytes } from 'node:crypto';
import {
  chownSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Owner } from './staging.ts';

export interface Cgroups {
  /** `memory`, `pids` or both. */
  readonly controllers: readonly string[];
  readonly version: 1 | 2;
  acquire(): Cgroup;
  close(): void;
}

export interface Cgroup extends Disposable {
  /** Open files: a process that writes 0 to each is limited, with all it starts. */
  readonly joinFiles: readonly number[];
}

export interface CgroupLimits {
  readonly memoryBytes: number;
  readonly processes: number;
}

export interface CgroupOptions {
  readonly limits: CgroupLimits;
  /** Who joins, when that is not the node's own user. */
  readonly owner?: Owner | undefined;
  /** What the kernel tells of itself; tests tell something else. */
  readonly self?: {
    readonly cgroup: string;
    readonly mountinfo: string;
    readonly pid: number;
    readonly suffix: string;
  };
}

/** A hierarchy: where our groups go, and what is written into each. */
interface Hierarchy {
  readonly controllers: readonly string[];
  readonly parent: string;
  readonly settings: readonly (readonly [file: string, value: number, optional?: boolean])[];
}

/** `undefined` when no limit can be set here. */
export function openCgroups({ limits, owner, self = readSelf() }: CgroupOptions): Cgroups | undefined {
  const v1 = legacyHierarchies(self, limits);
  const hierarchies = v1.length > 0 ? v1 : unifiedHierarchy(self, limits);
  const prepared = hierarchies.filter(({ parent }) => attempt(() => prepareParent(parent)));
  if (prepared.length === 0) return undefined;
  const version = v1.length > 0 ? 1 : 2;
  const all: string[] = [];
  const idle: { directories: readonly string[]; joinFiles: readonly number[] }[] = [];
  const files: number[] = [];

  let made = 0;
  const make = () => {
    const name = String(made++);
    const directories = prepared.map(({ parent, settings }) => {
      const directory = join(parent, name);
      mkdirSync(directory);
      all.push(directory);
      for (const [file, value, optional] of settings) {
        const write = () => writeFileSync(join(directory, file), String(value));
        if (optional) attempt(write);
        else write();
      }
      return directory;
    });
    const joinFiles = directories.map((directory) => {
      const path = join(directory, 'cgroup.procs');
      // Kernels before 5.16 ask who writes, not who opened the file.
      if (owner && version === 1) chownSync(path, owner.uid, owner.gid);
      return openSync(path, 'w');
    });
    files.push(...joinFiles);
    return { directories, joinFiles };
  };

  const cgroups: Cgroups = {
    version,
    controllers: prepared.flatMap(({ controllers }) => controllers),
    acquire() {
      const group = idle.pop() ?? make();
      return {
        joinFiles: group.joinFiles,
        [Symbol.dispose]: () => {
          const empty = group.directories.every(
            (directory) => readFileSync(join(directory, 'cgroup.procs')).length === 0,
          );
          if (empty) idle.push(group);
        },
      };
    },
    close() {
      for (const file of files.splice(0)) closeSync(file);
      for (const directory of [...all, ...prepared.map(({ parent }) => parent)]) attempt(() => rmdirSync(directory));
    },
  };
  // The first group shows whether the limits can really be set.
  const usable = attempt(() => cgroups.acquire()[Symbol.dispose]());
  if (!usable) cgroups.close();
  return usable ? cgroups : undefined;
}

type Self = NonNullable<CgroupOptions['self']>;

function readSelf(): Self {
  const read = (path: string) => attemptText(() => readFileSync(path, 'utf8'));
  return {
    cgroup: read('/proc/self/cgroup'),
    mountinfo: read('/proc/self/mountinfo'),
    pid: process.pid,
    suffix: randomBytes(3).toString('hex'),
  };
}

interface Mount {
  readonly root: string;
  readonly point: string;
  readonly type: string;
  readonly options: readonly string[];
}

/** @see proc_pid_mountinfo(5): the optional fields end with a lone hyphen */
function cgroupMounts(mountinfo: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of mountinfo.split('\n')) {
    const [before, after] = line.split(' - ');
    const [, , , root, point] = before?.split(' ') ?? [];
    const [type, , options] = after?.split(' ') ?? [];
    if (root && point && (type === 'cgroup' || type === 'cgroup2')) {
      mounts.push({ root, point, type, options: options?.split(',') ?? [] });
    }
  }
  return mounts;
}

/** Our own group below a mount, which may show only a part of the hierarchy. */
function ownGroup(mount: Mount, path: string): string {
  const below = mount.root === '/' ? path : path.startsWith(mount.root) ? path.slice(mount.root.length) : '/';
  return join(mount.point, below);
}

function legacyHierarchies(self: Self, { memoryBytes, processes }: CgroupLimits): Hierarchy[] {
  const settings: Record<string, Hierarchy['settings']> = {
    memory: [
      ['memory.limit_in_bytes', memoryBytes],
      ['memory.memsw.limit_in_bytes', memoryBytes, true],
    ],
    pids: [['pids.max', processes]],
  };
  const hierarchies: Hierarchy[] = [];
  for (const mount of cgroupMounts(self.mountinfo)) {
    if (mount.type !== 'cgroup') continue;
    const controllers = Object.keys(settings).filter((name) => mount.options.includes(name));
    const line = self.cgroup
      .split('\n')
      .find((text) => controllers.some((name) => text.split(':')[1]?.split(',').includes(name)));
    const path = line?.split(':').slice(2).join(':');
    if (controllers.length === 0 || path === undefined) continue;
    // A group mounted twice is the same group.
    if (hierarchies.some((known) => known.controllers.some((name) => controllers.includes(name)))) continue;
    hierarchies.push({
      controllers,
      parent: join(ownGroup(mount, path), `potluck-${self.pid}-${self.suffix}`),
      settings: controllers.flatMap((name) => settings[name] ?? []),
    });
  }
  return hierarchies;
}

function unifiedHierarchy(self: Self, { memoryBytes, processes }: CgroupLimits): Hierarchy[] {
  const mount = cgroupMounts(self.mountinfo).find(({ type }) => type === 'cgroup2');
  const path = /^0::(.*)$/m.exec(self.cgroup)?.[1];
  if (!mount || path === undefined) return [];
  const own = ownGroup(mount, path);
  const controllers = enableControllers(own, self.pid);
  const settings: Record<string, Hierarchy['settings']> = {
    memory: [
      ['memory.max', memoryBytes],
      ['memory.swap.max', 0, true],
      ['memory.oom.group', 1, true],
    ],
    pids: [['pids.max', processes]],
  };
  if (controllers.length === 0) return [];
  return [
    {
      controllers,
      parent: join(own, `potluck-${self.pid}-${self.suffix}`),
      settings: controllers.flatMap((name) => settings[name] ?? []),
    },
  ];
}

/**
 * Hands memory and pids down to the groups below `own`. The kernel refuses while `own` has processes; when this process
 * is the only one, it moves into a group of its own, as systemd asks of a service with a delegated group.
 */
function enableControllers(own: string, pid: number): string[] {
  const list = (file: string) => attemptText(() => readFileSync(join(own, file), 'utf8')).split(/\s+/);
  const wanted = list('cgroup.controllers').filter((name) => name === 'memory' || name === 'pids');
  const enable = () =>
    wanted.length > 0 &&
    attempt(() => writeFileSync(join(own, 'cgroup.subtree_control'), wanted.map((name) => `+${name}`).join(' ')));
  const alone = () => list('cgroup.procs').filter(Boolean).join() === String(pid);
  if (enable()) return wanted;
  if (alone()) {
    const leaf = join(own, 'potluck-node');
    attempt(() => mkdirSync(leaf));
    if (attempt(() => writeFileSync(join(leaf, 'cgroup.procs'), String(pid))) && enable()) return wanted;
  }
  const enabled = list('cgroup.subtree_control');
  return wanted.filter((name) => enabled.includes(name));
}

/** Makes the group that holds those of the actions, and clears away what killed nodes left beside it. */
function prepareParent(parent: string): void {
  const own = join(parent, '..');
  for (const name of readdirSync(own)) {
    const pid = /^potluck-(\d+)-/.exec(name)?.[1];
    if (pid === undefined || attempt(() => process.kill(Number(pid), 0))) continue;
    const stale = join(own, name);
    for (const child of readdirSync(stale)) attempt(() => rmdirSync(join(stale, child)));
    attempt(() => rmdirSync(stale));
  }
  mkdirSync(parent, { recursive: true });
  // In version 2 every level hands its controllers down.
  const controllers = attemptText(() => readFileSync(join(parent, 'cgroup.controllers'), 'utf8')).split(/\s+/);
  const wanted = controllers.filter((name) => name === 'memory' || name === 'pids').map((name) => `+${name}`);
  if (wanted.length > 0) writeFileSync(join(parent, 'cgroup.subtree_control'), wanted.join(' '));
}

function attempt(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}

function attemptText(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}

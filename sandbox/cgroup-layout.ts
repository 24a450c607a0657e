/** Where control groups may be made on this machine, and what is written into them, in version 1 and 2. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** For each action of a pool. */
export interface CgroupLimits {
  readonly memoryBytes: number;
  readonly processes: number;
  /** For guests: what all of them together may have, of memory; and everybody else's work goes before theirs. */
  readonly guestMemoryBytes?: number;
}

/** What the kernel tells of this process, read before it moves anywhere; tests tell something else. */
export interface CgroupSelf {
  readonly cgroup: string;
  readonly mountinfo: string;
  readonly pid: number;
  readonly suffix: string;
}

type Settings = readonly (readonly [file: string, value: number, optional?: boolean])[];

/** A hierarchy: where our groups go, and what is written into each and into the one that holds them. */
export interface Hierarchy {
  readonly controllers: readonly string[];
  readonly parent: string;
  readonly together: Settings;
  /** Instead of `together`, while guests are to freeze or die: that takes processor time, of which they have next to none. */
  readonly hastened: Settings;
  readonly settings: Settings;
}

export interface Layout {
  readonly version: 1 | 2;
  readonly hierarchies: readonly Hierarchy[];
}

export function readSelf(): CgroupSelf {
  const read = (path: string) => attemptText(() => readFileSync(path, 'utf8'));
  return {
    cgroup: read('/proc/self/cgroup'),
    mountinfo: read('/proc/self/mountinfo'),
    pid: process.pid,
    suffix: randomBytes(3).toString('hex'),
  };
}

/** The groups that hold those of the actions are made; without hierarchies where none could be. */
export function prepareLayout(self: CgroupSelf, limits: CgroupLimits): Layout {
  const v1 = legacyHierarchies(self, limits);
  const hierarchies = v1.length > 0 ? v1 : unifiedHierarchy(self, limits);
  return {
    version: v1.length > 0 ? 1 : 2,
    hierarchies: hierarchies.filter((hierarchy) => attempt(() => prepareParent(hierarchy))),
  };
}

/** Throws what the kernel says against what is not optional. */
export function writeSettings(directory: string, settings: Settings): void {
  for (const [file, value, optional] of settings) {
    const write = () => writeFileSync(join(directory, file), String(value));
    if (optional) attempt(write);
    else write();
  }
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

/** The parent's name tells whose process made it, and guests from others. */
function parentOf(own: string, self: CgroupSelf, { guestMemoryBytes }: CgroupLimits): string {
  return join(own, `potluck-${self.pid}-${self.suffix}${guestMemoryBytes === undefined ? '' : '-guests'}`);
}

function legacyHierarchies(self: CgroupSelf, limits: CgroupLimits): Hierarchy[] {
  const { memoryBytes, processes, guestMemoryBytes } = limits;
  const settings: Record<string, { readonly each: Settings; readonly together: Settings }> = {
    memory: {
      each: [
        ['memory.limit_in_bytes', memoryBytes],
        ['memory.memsw.limit_in_bytes', memoryBytes, true],
      ],
      together:
        guestMemoryBytes === undefined
          ? []
          : [
              ['memory.use_hierarchy', 1, true],
              ['memory.limit_in_bytes', guestMemoryBytes],
              ['memory.memsw.limit_in_bytes', guestMemoryBytes, true],
            ],
    },
    pids: { each: [['pids.max', processes]], together: [] },
    // The least that each kernel knows.
    ...(guestMemoryBytes !== undefined && {
      freezer: { each: [], together: [] },
      cpu: {
        each: [],
        together: [
          ['cpu.shares', 2],
          ['cpu.idle', 1, true],
        ],
      },
      blkio: {
        each: [],
        together: [
          ['blkio.weight', 10, true],
          ['blkio.bfq.weight', 1, true],
        ],
      },
    }),
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
      parent: parentOf(ownGroup(mount, path), self, limits),
      together: controllers.flatMap((name) => settings[name]?.together ?? []),
      hastened:
        guestMemoryBytes !== undefined && controllers.includes('cpu')
          ? [
              ['cpu.idle', 0, true],
              ['cpu.shares', 1_024],
            ]
          : [],
      settings: controllers.flatMap((name) => settings[name]?.each ?? []),
    });
  }
  return hierarchies;
}

function unifiedHierarchy(self: CgroupSelf, limits: CgroupLimits): Hierarchy[] {
  const { memoryBytes, processes, guestMemoryBytes } = limits;
  const mount = cgroupMounts(self.mountinfo).find(({ type }) => type === 'cgroup2');
  const path = /^0::(.*)$/m.exec(self.cgroup)?.[1];
  if (!mount || path === undefined) return [];
  const own = ownGroup(mount, path);
  const wanted = guestMemoryBytes === undefined ? ['memory', 'pids'] : ['memory', 'pids', 'cpu', 'io'];
  const controllers = enableControllers(own, self.pid, wanted);
  const settings: Record<string, { readonly each: Settings; readonly together: Settings }> = {
    memory: {
      each: [
        ['memory.max', memoryBytes],
        ['memory.swap.max', 0, true],
        ['memory.oom.group', 1, true],
      ],
      together: guestMemoryBytes === undefined ? [] : [['memory.max', guestMemoryBytes]],
    },
    pids: { each: [['pids.max', processes]], together: [] },
    cpu: {
      each: [],
      together: [
        ['cpu.weight', 1],
        ['cpu.idle', 1, true],
      ],
    },
    io: { each: [], together: [['io.weight', 1, true]] },
  };
  if (controllers.length === 0) return [];
  return [
    {
      controllers,
      parent: parentOf(own, self, limits),
      together: controllers.flatMap((name) => settings[name]?.together ?? []),
      hastened:
        guestMemoryBytes !== undefined && controllers.includes('cpu')
          ? [
              ['cpu.idle', 0, true],
              ['cpu.weight', 100],
            ]
          : [],
      settings: controllers.flatMap((name) => settings[name]?.each ?? []),
    },
  ];
}

/**
 * Hands controllers down to the groups below `own`, as many as there are of those wanted. The kernel refuses while `own` has processes; when this process
 * is the only one, it moves into a group of its own, as systemd asks of a service with a delegated group.
 */
function enableControllers(own: string, pid: number, names: readonly string[]): string[] {
  const list = (file: string) => attemptText(() => readFileSync(join(own, file), 'utf8')).split(/\s+/);
  const wanted = list('cgroup.controllers').filter((name) => names.includes(name));
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
function prepareParent({ parent, controllers, together }: Hierarchy): void {
  const own = join(parent, '..');
  for (const name of readdirSync(own)) {
    const pid = /^potluck-(\d+)-/.exec(name)?.[1];
    if (pid === undefined || attempt(() => process.kill(Number(pid), 0))) continue;
    const stale = join(own, name);
    for (const child of readdirSync(stale)) clearStale(join(stale, child));
    attempt(() => rmdirSync(stale));
  }
  mkdirSync(parent, { recursive: true });
  // In version 2 every level hands its controllers down.
  const present = attemptText(() => readFileSync(join(parent, 'cgroup.controllers'), 'utf8')).split(/\s+/);
  const wanted = present.filter((name) => controllers.includes(name)).map((name) => `+${name}`);
  if (wanted.length > 0) writeFileSync(join(parent, 'cgroup.subtree_control'), wanted.join(' '));
  writeSettings(parent, together);
}

/** Frozen processes of a node that was killed have been told to die, and cannot before the thaw. */
function clearStale(directory: string): void {
  for (const pid of processesOf(directory)) attempt(() => process.kill(pid, 'SIGKILL'));
  attempt(() => writeFileSync(join(directory, 'freezer.state'), 'THAWED', { flag: 'r+' }));
  attempt(() => rmdirSync(directory));
}

export function processesOf(directory: string): number[] {
  return attemptText(() => readFileSync(join(directory, 'cgroup.procs'), 'utf8'))
    .split('\n')
    .filter(Boolean)
    .map(Number);
}

export function attempt(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}

export function attemptText(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}

/** The layouts of both versions, on plain directories that stand in for the kernel's. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openCgroups } from '../../../sandbox/cgroups.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'potluck-cgroups-'));
});
afterEach(() => rmSync(root, { recursive: true }));

const limits = { memoryBytes: 1_000_000, processes: 50 };
const mount = (point: string, type: string, options: string, from = '/') =>
  `30 25 0:26 ${from} ${point} rw,relatime shared:1 - ${type} ${type} rw,${options}`;
const read = (...path: string[]) => readFileSync(join(root, ...path), 'utf8');

/** A directory as the kernel would fill it. */
function makeGroup(path: string, files: Record<string, string>) {
  mkdirSync(join(root, path), { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(root, path, name), text);
}

test('version 1: limits in the hierarchy of each controller, below our own group', () => {
  makeGroup('memory/session', {});
  makeGroup('pids', {});
  const self = {
    cgroup: '9:name=systemd:/\n8:pids:/\n4:memory:/session\n0::/',
    mountinfo: [mount(join(root, 'pids'), 'cgroup', 'pids'), mount(join(root, 'memory'), 'cgroup', 'memory')].join(
      '\n',
    ),
    pid: 77,
    suffix: 'a',
  };
  const cgroups = openCgroups({ limits, self });
  expect(cgroups).toBeDefined();
  expect(cgroups?.version).toBe(1);
  expect(cgroups?.controllers.toSorted((a, b) => (a < b ? -1 : 1))).toEqual(['memory', 'pids']);
  expect(read('memory/session/potluck-77-a/0/memory.limit_in_bytes')).toBe('1000000');
  expect(read('pids/potluck-77-a/0/pids.max')).toBe('50');
  cgroups?.close();
});

test('hands out an idle group again, and a second one while the first is in use', () => {
  makeGroup('pids', {});
  const self = { cgroup: '8:pids:/', mountinfo: mount(join(root, 'pids'), 'cgroup', 'pids'), pid: 77, suffix: 'a' };
  const cgroups = openCgroups({ limits, self });
  const first = cgroups?.acquire();
  const second = cgroups?.acquire();
  expect(readdirSync(join(root, 'pids/potluck-77-a'))).toEqual(['0', '1']);
  expect(first?.joinFiles).not.toEqual(second?.joinFiles);
  // A group in which a process is left is not used for another action.
  writeFileSync(join(root, 'pids/potluck-77-a/0/cgroup.procs'), '4711\n');
  first?.[Symbol.dispose]();
  second?.[Symbol.dispose]();
  expect(cgroups?.acquire().joinFiles).toEqual(second?.joinFiles);
  cgroups?.close();
});

test('version 2: hands memory and pids down, and no other controller', () => {
  makeGroup('user/app', {
    'cgroup.controllers': 'cpu memory pids',
    'cgroup.procs': '77\n',
    'cgroup.subtree_control': '',
  });
  const self = {
    cgroup: '0::/user/app',
    mountinfo: mount(root, 'cgroup2', 'nsdelegate'),
    pid: 77,
    suffix: 'a',
  };
  const cgroups = openCgroups({ limits, self });
  expect(cgroups).toMatchObject({ version: 2, controllers: ['memory', 'pids'] });
  expect(read('user/app/cgroup.subtree_control')).toBe('+memory +pids');
  expect(read('user/app/potluck-77-a/0/memory.max')).toBe('1000000');
  expect(read('user/app/potluck-77-a/0/pids.max')).toBe('50');
  cgroups?.close();
});

test('version 2: gives way to its own groups when the kernel wants the group above empty', () => {
  makeGroup('app', { 'cgroup.controllers': 'memory pids', 'cgroup.procs': '77\n' });
  // The kernel refuses the first write; a directory of that name does as well.
  mkdirSync(join(root, 'app/cgroup.subtree_control'));
  const self = { cgroup: '0::/app', mountinfo: mount(root, 'cgroup2', 'nsdelegate'), pid: 77, suffix: 'a' };
  expect(openCgroups({ limits, self })).toBeUndefined();
  expect(read('app/potluck-node/cgroup.procs')).toBe('77');
});

const guestLimits = { ...limits, guestMemoryBytes: 700_000 };

test('version 1: guests have a group of groups of their own, with less, and one that freezes', async () => {
  for (const name of ['memory', 'pids', 'freezer', 'cpu', 'blkio']) makeGroup(name, {});
  const self = {
    cgroup: '8:pids:/\n7:blkio:/\n6:freezer:/\n4:memory:/\n1:cpu,cpuacct:/',
    mountinfo: ['pids', 'blkio', 'freezer', 'memory', 'cpu']
      .map((name) => mount(join(root, name), 'cgroup', name === 'cpu' ? 'cpu,cpuacct' : name))
      .join('\n'),
    pid: 77,
    suffix: 'a',
  };
  const own = openCgroups({ limits, self });
  const guests = openCgroups({ limits: guestLimits, self });
  expect(own?.controllers).toHaveLength(2);
  expect(guests?.controllers).toHaveLength(5);
  expect(read('memory/potluck-77-a-guests/memory.limit_in_bytes')).toBe('700000');
  expect(read('memory/potluck-77-a-guests/0/memory.limit_in_bytes')).toBe('1000000');
  expect(read('cpu/potluck-77-a-guests/cpu.shares')).toBe('2');
  expect(readdirSync(join(root, 'freezer'))).toEqual(['potluck-77-a-guests']);
  // Freezing and dying take processor time: whoever is to do it gets some.
  const [first, second] = [guests?.acquire().hasten(), guests?.acquire().hasten()];
  first?.[Symbol.dispose]();
  expect(read('cpu/potluck-77-a-guests/cpu.shares')).toBe('1024');
  second?.[Symbol.dispose]();
  expect(read('cpu/potluck-77-a-guests/cpu.shares')).toBe('2');
  own?.close();
  guests?.close();
});

test('version 2: hands down what guests need besides, and gives them the least weight together', async () => {
  makeGroup('app', {
    'cgroup.controllers': 'cpu io memory pids',
    'cgroup.procs': '77\n',
    'cgroup.subtree_control': '',
  });
  const self = { cgroup: '0::/app', mountinfo: mount(root, 'cgroup2', 'nsdelegate'), pid: 77, suffix: 'a' };
  const guests = openCgroups({ limits: guestLimits, self });
  expect(read('app/cgroup.subtree_control')).toBe('+cpu +io +memory +pids');
  expect(read('app/potluck-77-a-guests/cpu.weight')).toBe('1');
  expect(read('app/potluck-77-a-guests/io.weight')).toBe('1');
  expect(read('app/potluck-77-a-guests/memory.max')).toBe('700000');
  guests?.close();
});

/** What the kernel keeps in a group that it can freeze, in each version. */
const freezers = [
  { version: 1, file: 'freezer.state', frozen: 'FROZEN', thawed: 'THAWED' },
  { version: 2, file: 'cgroup.freeze', frozen: '1', thawed: '0' },
];

test.for(freezers)('version $version: freezes a group, and hands out none that is frozen', async (one) => {
  const controller = one.version === 1 ? 'freezer' : 'memory';
  makeGroup(one.version === 1 ? 'freezer' : '.', { 'cgroup.controllers': 'memory', 'cgroup.procs': '' });
  const self = {
    cgroup: one.version === 1 ? '6:freezer:/' : '0::/',
    mountinfo:
      one.version === 1 ? mount(join(root, 'freezer'), 'cgroup', 'freezer') : mount(root, 'cgroup2', 'nsdelegate'),
    pid: 77,
    suffix: 'a',
  };
  const dir = join(one.version === 1 ? 'freezer' : '.', 'potluck-77-a-guests', '0');
  // The kernel fills a new group; here it is there before.
  makeGroup(dir, { [one.file]: one.thawed, 'cgroup.events': 'populated 1\nfrozen 1\n' });
  const guests = openCgroups({ limits: guestLimits, self });
  const group = guests?.acquire();
  expect(guests?.controllers).toContain(controller);
  await group?.freezer?.freeze();
  expect(read(dir, one.file)).toBe(one.frozen);
  group?.[Symbol.dispose]();
  expect(read(dir, one.file)).toBe(one.thawed);
  guests?.close();
});

test('sets no limit where nothing was delegated', () => {
  makeGroup('user', { 'cgroup.controllers': '', 'cgroup.procs': '1\n77\n' });
  const self = { cgroup: '0::/user', mountinfo: mount(root, 'cgroup2', 'nsdelegate'), pid: 77, suffix: 'a' };
  expect(openCgroups({ limits, self })).toBeUndefined();
  expect(openCgroups({ limits, self: { cgroup: '', mountinfo: '', pid: 77, suffix: 'a' } })).toBeUndefined();
});

test('the kernel of this machine enforces what it lets us set', () => {
  const cgroups = openCgroups({ limits: { memoryBytes: 64 * 2 ** 20, processes: 20 } });
  if (!cgroups) return console.warn('skipped: this user may not make control groups here');
  const group = cgroups.acquire();
  const join = group.joinFiles.map((_, index) => `echo 0 >&${3 + index};`).join(' ');
  const run = (script: string) =>
    spawnSync('/bin/sh', ['-c', `${join} ${script}`], { stdio: ['ignore', 'pipe', 'pipe', ...group.joinFiles] });
  try {
    if (cgroups.controllers.includes('memory')) expect(run('exec tail /dev/zero').signal).toBe('SIGKILL');
    if (cgroups.controllers.includes('pids')) {
      const ran = run('i=0; while [ $i -lt 50 ]; do sleep 0.2 & i=$((i+1)); done; wait');
      expect(ran.stderr.toString()).toMatch(/fork|Resource/i);
    }
  } finally {
    group[Symbol.dispose]();
    cgroups.close();
  }
});

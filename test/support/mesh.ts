/** Machines with real nodes that are one mesh already, in a network lab or on loopback addresses. */
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { allMeet, createMachine, type Machine } from './machine.ts';
import { labMissing, type NetworkLab, openNetworkLab } from './network-lab.ts';

export interface MachineMesh extends AsyncDisposable {
  /** Undefined on loopback addresses. */
  readonly lab: NetworkLab | undefined;
  readonly machines: readonly Machine[];
  machine(name: string): Machine;
}

/** Arguments of a node that lends so many slots, however busy the machine is that hosts it. */
export function lends(slots: number): readonly string[] {
  return slots === 0 ? ['--lend', 'never'] : ['--lend', 'always', '--lend-slots', String(slots)];
}

export interface MachineMeshOptions {
  /** Arguments of `potluck up` by machine; the first invites the others. */
  readonly machines: Readonly<Record<string, readonly string[]>>;
  /** `lab`: in network namespaces if this machine lets us; `loopback`: never. */
  readonly where: 'lab' | 'loopback';
  /** Of a machine, in a lab; by default all are in one. */
  readonly subnetOf?: (name: string) => string;
  /** Bytes of a disk of its own for its data directory; only a machine in a lab can have one. */
  readonly diskBytesOf?: (name: string) => number | undefined;
  /** Further environment of its node. */
  readonly envOf?: (name: string) => NodeJS.ProcessEnv;
}

/** Resolves when everybody sees everybody. */
export async function openMachineMesh(options: MachineMeshOptions): Promise<MachineMesh> {
  await using parts = new AsyncDisposableStack();
  const { where, subnetOf = () => 'office', envOf = () => ({}), diskBytesOf = () => undefined } = options;
  const names = Object.keys(options.machines);
  const isLab = where === 'lab' && labMissing() === undefined;
  const lab = isLab
    ? parts.use(openNetworkLab(Object.groupBy(names, subnetOf) as Record<string, string[]>))
    : undefined;
  const dir = await mkdtemp(join(tmpdir(), 'potluck-mesh-'));
  parts.defer(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
  const alone = ['--mesh-discovery', 'off', '--mesh-listen', '127.0.0.1:0', '--mesh-data-listen', '127.0.0.1:0'];
  for (const name of names) {
    const sizeBytes = diskBytesOf(name);
    if (!lab || sizeBytes === undefined) continue;
    const path = join(dir, name);
    await mkdir(path);
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes},mode=0700`, 'potluck-test', path]);
    parts.defer(() => void execFileSync('umount', ['--lazy', path]));
  }
  const machines = names.map((name) => {
    const args = [...(lab ? [] : alone), ...(options.machines[name] ?? [])];
    return parts.use(createMachine({ name, dataDir: join(dir, name), lab, args, env: envOf(name) }));
  });
  const [first, ...others] = machines;
  if (!first) throw new Error('a mesh needs a machine');
  await Promise.all(machines.map((machine) => machine.up()));
  for (const machine of others) await machine.join(first);
  if (others.length > 0) await allMeet(machines);
  const open = parts.move();
  return {
    lab,
    machines,
    machine(name) {
      const found = machines.find((one) => one.name === name);
      if (!found) throw new Error(`there is no machine ${name}; there are ${names.join(', ')}`);
      return found;
    },
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}

/** Anna, who builds on a machine of two slots, and others who lend her four each: real nodes that are one mesh. */
import { expect } from 'vitest';
import { type ActionClient, type ActionRun, type ActionSpec, shell } from '../support/actions.ts';
import type { Machine } from '../support/machine.ts';
import { lends, type MachineMesh, type MachineMeshOptions, openMachineMesh } from '../support/mesh.ts';

export interface LendingOffice extends AsyncDisposable {
  readonly mesh: MachineMesh;
  readonly anna: Machine;
  readonly lenders: readonly Machine[];
  /** Of anna's node. */
  readonly client: ActionClient;
  readonly idOf: (machine: Machine) => string;
  /** How many of the runs were on that machine. */
  readonly ranAt: (runs: readonly ActionRun[], machine: Machine) => number;
  /** Of these machines (default: all) everyone that knows a result of an action knows the same one, and somebody does. */
  expectOneResultEach(specs: readonly ActionSpec[], among?: readonly Machine[]): Promise<void>;
}

/** What only the lenders offer, for actions that anna cannot run herself. */
export const lent = { lent: 'yes' };

export async function openLendingOffice(
  names: readonly string[],
  options: Pick<MachineMeshOptions, 'diskBytesOf'> = {},
): Promise<LendingOffice> {
  await using parts = new AsyncDisposableStack();
  const lender = ['--slots', '4', '--platform', 'lent=yes', ...lends(4)];
  const mesh = parts.use(
    await openMachineMesh({
      // Not anna made the mesh: whoever did coordinates it at first.
      machines: { ...Object.fromEntries(names.map((name) => [name, lender])), anna: ['--slots', '2', ...lends(0)] },
      where: 'lab',
      ...options,
    }),
  );
  const anna = mesh.machine('anna');
  const client = anna.client();
  parts.defer(() => client[Symbol.dispose]());
  const ids = new Map<Machine, string>();
  for (const one of mesh.machines) ids.set(one, await one.peerId());
  const idOf = (machine: Machine): string => ids.get(machine) ?? machine.name;
  const open = parts.move();
  return {
    mesh,
    anna,
    lenders: mesh.machines.filter((one) => one !== anna),
    client,
    idOf,
    ranAt: (runs, machine) => runs.filter(({ worker }) => worker.includes(idOf(machine))).length,
    async expectOneResultEach(specs, among = mesh.machines) {
      const clients = among.map((one) => one.client());
      try {
        await Promise.all(
          specs.map(async (spec) => {
            const known = await Promise.all(clients.map((one) => one.known(spec)));
            const outputs = known.flatMap((one) => one?.get('out') ?? []);
            expect(outputs.length, `nobody knows a result of ${spec.name}`).toBeGreaterThan(0);
            expect(new Set(outputs).size, `${spec.name}: ${outputs.join(', ')}`).toBe(1);
          }),
        );
      } finally {
        for (const one of clients) one[Symbol.dispose]();
      }
    },
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}

/** Each run of one leaves something else behind, so a second accepted result would show. */
export function tellingSleepers(label: string, count: number, ms: number): ActionSpec[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `${label}-${index}`,
    argv: shell(`sleep ${ms / 1000}; od -An -N8 -tx8 /dev/urandom > out`),
  }));
}

export function expectAllRan(runs: readonly ActionRun[], specs: readonly ActionSpec[]): void {
  const failed = runs.filter(({ code, exitCode }) => code !== 'OK' || exitCode !== 0);
  expect(failed).toEqual([]);
  expect(runs.map(({ name }) => name).toSorted()).toEqual(specs.map(({ name }) => name).toSorted());
}

/** What came out, by action. */
export function outputsOf(runs: readonly ActionRun[]): Map<string, string | undefined> {
  return new Map(runs.map(({ name, outputs }) => [name, outputs.get('out')]));
}

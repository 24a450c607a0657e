/** Many membership machines on a lossless network with one round trip of latency, for unit tests. */
import {
  createMembership,
  type Membership,
  type MembershipEffect,
  type MembershipEvent,
} from '../../../../mesh/core/membership/membership.ts';
import type { Attributes, MemberRecord, RecordSigner } from '../../../../mesh/core/membership/records.ts';
import { createRng } from '../../../../mesh/core/rng.ts';
import { createEngine } from '../../../../sim/engine.ts';

export const attributes: Attributes = {
  site: 'office',
  subnet: '10.0.0.0/24',
  dataAddress: '10.0.0.1:7000',
  cores: 4,
  memoryBytes: 8_000_000_000,
  power: 'mains',
  wired: true,
  coordinator: 'eligible',
  storeGeneration: 1,
  guestSlots: 0,
  capabilities: [],
};

/** Signs by remembering what it signed. */
export function createSigner(): RecordSigner {
  const genuine = new Set<string>();
  const text = ({ id, incarnation, presence, signature }: MemberRecord): string =>
    `${id} ${incarnation} ${presence} ${signature}`;
  return {
    sign(record) {
      const signed = { ...record, signature: `signed by ${record.id}` };
      genuine.add(text(signed));
      return signed;
    },
    verify: (record) => genuine.has(text(record)),
  };
}

export interface TestNet {
  readonly machines: Map<string, Membership>;
  add(id: string, contacts: readonly string[]): Membership;
  tell(id: string, event: MembershipEvent): void;
  /** Silently gone: nothing is delivered to it or from it. */
  kill(id: string): void;
  revive(id: string): void;
  run(forMs: number): void;
  /** Runs until the condition holds; the simulated time it took, or undefined after `withinMs`. */
  until(condition: () => boolean, withinMs: number): number | undefined;
  /** Most rumours seen in one message, syncs aside. */
  rumoursMax(): number;
  drop: (from: string, to: string) => boolean;
}

const latencyMs = 2;

export function createNet(): TestNet {
  const engine = createEngine();
  const machines = new Map<string, Membership>();
  const signer = createSigner();
  const wakes = new Map<string, number>();
  const dead = new Set<string>();
  let rumoursMax = 0;

  function perform(id: string, effects: readonly MembershipEffect[]): void {
    for (const effect of effects) {
      if (effect.kind === 'wakeAt') wake(id, effect.atMs);
      if (effect.kind !== 'send') continue;
      const { to, message } = effect;
      if (message.kind !== 'sync') rumoursMax = Math.max(rumoursMax, message.rumours.length);
      engine.after(latencyMs * 1_000, () => {
        if (!dead.has(id) && !net.drop(id, to)) tell(to, { kind: 'message', from: id, message });
      });
    }
  }

  function wake(id: string, atMs: number): void {
    wakes.set(id, atMs);
    engine.at(atMs * 1_000, () => {
      if (wakes.get(id) === atMs) tell(id, { kind: 'wake' });
    });
  }

  function tell(id: string, event: MembershipEvent): void {
    const machine = machines.get(id);
    if (machine && !dead.has(id)) perform(id, machine.step(event, nowMs()));
  }

  const nowMs = (): number => Math.trunc(engine.nowUs() / 1_000);
  const run = (forMs: number): void => engine.runUntil(engine.nowUs() + forMs * 1_000);

  const net: TestNet = {
    machines,
    drop: () => false,
    add(id, contacts) {
      let persists = 0;
      const nextPersistId = (): number => ++persists;
      const rng = createRng(machines.size + 1);
      const machine = createMembership({ self: id, attributes, signer, rng, nextPersistId });
      machines.set(id, machine);
      tell(id, { kind: 'start', contacts });
      return machine;
    },
    tell,
    kill: (id) => void dead.add(id),
    revive: (id) => void dead.delete(id),
    run,
    until(condition, withinMs) {
      for (let tookMs = 0; tookMs < withinMs; tookMs += 250) {
        if (condition()) return tookMs;
        run(250);
      }
      return undefined;
    },
    rumoursMax: () => rumoursMax,
  };
  return net;
}

/** Everybody sees the same of everybody. */
export function agreed(net: TestNet, except: ReadonlySet<string> = new Set()): boolean {
  let summary: number | undefined;
  for (const [id, machine] of net.machines) {
    if (except.has(id)) continue;
    summary ??= machine.summary();
    if (machine.summary() !== summary) return false;
  }
  return true;
}

/** Many provider machines on a network with one millisecond of latency, and one view of the members for all. */
import { createHash } from 'node:crypto';
import type { Member } from '../../../../mesh/core/membership/membership.ts';
import type { MemberStatus } from '../../../../mesh/core/membership/records.ts';
import { createProviders, type Providers } from '../../../../mesh/core/providers/providers.ts';
import { createRing, type Ring } from '../../../../mesh/core/providers/ring.ts';
import type { Found, ProviderMessage, ProviderNote } from '../../../../mesh/core/providers/types.ts';
import { createRng } from '../../../../mesh/core/rng.ts';
import { createEngine } from '../../../../sim/engine.ts';
import { attributes } from '../membership/net.ts';

export function blobNamed(name: string): string {
  return `sha256/${createHash('sha256').update(name).digest('hex')}/100`;
}

export interface ProviderNet {
  readonly nodes: readonly string[];
  readonly notes: { node: string; note: ProviderNote }[];
  readonly sent: { kind: ProviderMessage['kind']; from: string; to: string; message: ProviderMessage }[];
  /** Nodes that neither hear nor say anything, whatever others believe. */
  readonly silent: Set<string>;
  providers(node: string): Providers;
  join(node: string, held?: readonly string[], generation?: number): void;
  setStatus(node: string, status: MemberStatus, generation?: number): void;
  store(node: string, blobs: readonly string[]): void;
  lose(node: string, blobs: readonly string[]): void;
  /** Starts a node's machine anew, as after a restart of its process. */
  restart(node: string, held: readonly string[], generation?: number): void;
  bench(node: string, benched: string, reason: 'wrong' | 'absent' | 'unreachable'): void;
  gap(node: string): void;
  run(forMs: number): void;
  find(node: string, blobs: readonly string[], thorough?: boolean): Map<string, Found>;
  readonly ring: () => Ring;
}

export function createProviderNet(names: readonly string[]): ProviderNet {
  const engine = createEngine();
  const members = new Map<string, Member>();
  const machines = new Map<string, Providers>();
  const silent = new Set<string>();
  const notes: ProviderNet['notes'] = [];
  const sent: ProviderNet['sent'] = [];
  const answers = new Map<string, Found[]>();
  const done = new Set<string>();
  const rng = createRng(99);
  const nodes = [...names];
  const rings = new Map<string, Ring>();
  let finds = 0;
  const nowMs = (): number => Math.trunc(engine.nowUs() / 1_000);

  function ringOf(of: readonly string[]): Ring {
    const key = of.join();
    let ring = rings.get(key);
    if (!ring) rings.set(key, (ring = createRing(of, 5)));
    return ring;
  }

  function step(node: string, event: Parameters<Providers['step']>[0]): void {
    const machine = machines.get(node) as Providers;
    for (const effect of machine.step(event, nowMs())) {
      switch (effect.kind) {
        case 'send':
          sent.push({ kind: effect.message.kind, from: node, to: effect.to, message: effect.message });
          if (silent.has(node)) break;
          engine.after(1_000, () => {
            if (silent.has(effect.to) || !machines.has(effect.to)) return;
            step(effect.to, { kind: 'message', from: node, message: effect.message });
          });
          break;
        case 'wakeAt': {
          if (effect.atMs === Number.POSITIVE_INFINITY) break;
          engine.at(effect.atMs * 1_000, () => {
            if (machines.get(node) === machine) step(node, { kind: 'wake' });
          });
          break;
        }
        case 'found': {
          const key = `${node} ${effect.find}`;
          answers.set(key, [...(answers.get(key) ?? []), ...effect.found]);
          if (effect.done) done.add(key);
          break;
        }
        case 'note':
          notes.push({ node, note: effect.note });
          break;
        default:
          effect satisfies never;
      }
    }
  }

  function place(node: string, status: MemberStatus, generation: number): MemberStatus | undefined {
    const before = members.get(node)?.status;
    members.set(node, {
      status,
      record: {
        id: node,
        incarnation: 1,
        presence: 'here',
        signature: '',
        attributes: { ...attributes, storeGeneration: generation },
      },
    });
    return before;
  }

  function create(node: string, held: readonly string[], generation: number): void {
    machines.set(
      node,
      createProviders(
        {
          self: node,
          generation,
          rng: createRng(rng.next()),
          held,
          ringOf,
          members: { get: (id) => members.get(id), members: () => members.values() },
        },
        nowMs(),
      ),
    );
    step(node, { kind: 'wake' });
  }

  for (const node of nodes) place(node, 'alive', 1);
  for (const node of nodes) create(node, [], 1);

  const net: ProviderNet = {
    nodes,
    notes,
    sent,
    silent,
    providers: (node) => machines.get(node) as Providers,
    ring: () => ringOf([...members.keys()].sort()),
    join(node, held = [], generation = 1) {
      nodes.push(node);
      place(node, 'alive', generation);
      create(node, held, generation);
      for (const other of machines.keys()) step(other, { kind: 'member', node, before: undefined });
    },
    setStatus(node, status, generation = members.get(node)?.record.attributes.storeGeneration ?? 1) {
      const before = place(node, status, generation);
      for (const other of machines.keys()) if (other !== node) step(other, { kind: 'member', node, before });
    },
    store: (node, blobs) => step(node, { kind: 'stored', blobs }),
    lose: (node, blobs) => step(node, { kind: 'gone', blobs }),
    restart: (node, held, generation = 1) => create(node, held, generation),
    bench: (node, benched, reason) => step(node, { kind: 'bench', node: benched, reason }),
    gap: (node) => step(node, { kind: 'gap' }),
    run: (forMs) => engine.runUntil(engine.nowUs() + forMs * 1_000),
    find(node, blobs, thorough = false) {
      finds += 1;
      const key = `${node} ${finds}`;
      step(node, { kind: 'find', find: finds, blobs, thorough });
      for (let i = 0; i < 1_000 && !done.has(key); i++) net.run(1);
      return new Map((answers.get(key) ?? []).map((found) => [found.blob, found]));
    },
  };
  return net;
}

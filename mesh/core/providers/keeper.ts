/** The index node: keeps the records that others announce of themselves, and answers who holds what. */
import type { NodeId } from '../ids.ts';
import type { Context, Sum } from './context.ts';
import * as limits from './limits.ts';
import { mixPlace } from './places.ts';
import { createRecords, type Records } from './records.ts';
import type { Place, ProviderMessage } from './types.ts';

export interface Keeper {
  announced(from: NodeId, message: Extract<ProviderMessage, { kind: 'announce' }>): void;
  regionsAsked(from: NodeId, seq: number): void;
  asked(from: NodeId, message: Extract<ProviderMessage, { kind: 'whoHas' }>): void;
  /** Who holds a place, for `asker`: near ones first, otherwise in an order drawn anew each time. */
  holders(place: Place, asker: NodeId): NodeId[];
  memberChanged(node: NodeId): void;
  /** Drops what was hidden for too long. */
  expire(): void;
  records(): Records;
}

/** One announcing node. Its records are hidden while it is absent, by looking at its status when they are read. */
interface Provider extends Sum {
  readonly node: NodeId;
  readonly index: number;
  generation: number;
  life: number;
  lastSeq: number;
  /** Undefined while the member is here. */
  absentSinceMs: number | undefined;
}

export function createKeeper(context: Context, holdsItself: (place: Place) => boolean): Keeper {
  const { self, rng } = context;
  const records = createRecords();
  const providers = new Map<NodeId, Provider>();
  const byIndex: (Provider | undefined)[] = [];
  const freeIndices: number[] = [];

  function providerOf(node: NodeId, generation: number, life: number): Provider | undefined {
    const known = providers.get(node);
    if (known) return known;
    if (providers.size >= limits.providersMax) return undefined;
    const index = freeIndices.pop() ?? byIndex.length;
    const made = { node, index, generation, life, lastSeq: -1, count: 0, hash: 0, absentSinceMs: undefined };
    providers.set(node, made);
    byIndex[index] = made;
    return made;
  }

  function add(provider: Provider, place: Place): boolean {
    if (provider.count >= limits.recordsPerProvider || records.size() >= limits.recordsMax) return false;
    if (!records.add(place, provider.index)) return true;
    provider.count += 1;
    provider.hash ^= mixPlace(place);
    return true;
  }

  function remove(provider: Provider, place: Place): void {
    if (!records.remove(place, provider.index)) return;
    provider.count -= 1;
    provider.hash ^= mixPlace(place);
  }

  function placesIn(provider: Provider, region: number): Place[] {
    const places: Place[] = [];
    records.eachIn(region, (place, owner) => {
      if (owner === provider.index) places.push(place);
    });
    return places;
  }

  function clear(provider: Provider): void {
    if (provider.count === 0) return;
    context.note({ kind: 'dropped', node: provider.node, records: provider.count });
    for (let region = 0; region < limits.regions && provider.count > 0; region++) {
      for (const place of placesIn(provider, region)) remove(provider, place);
    }
  }

  function near(owners: readonly number[], asker: NodeId): NodeId[] {
    const at = context.members.get(asker)?.record.attributes;
    const byDistance: [NodeId[], NodeId[], NodeId[]] = [[], [], []];
    for (const index of owners) {
      const { node } = byIndex[index] as Provider;
      const member = context.members.get(node);
      if (node === asker || member?.status !== 'alive') continue;
      const { site, subnet } = member.record.attributes;
      byDistance[site !== at?.site ? 2 : subnet !== at.subnet ? 1 : 0].push(node);
    }
    const chosen: NodeId[] = [];
    for (const nodes of byDistance) {
      while (nodes.length > 0 && chosen.length < limits.holdersPerAnswer) {
        const [node] = nodes.splice(rng.below(nodes.length), 1);
        chosen.push(node as NodeId);
      }
    }
    return chosen;
  }

  function holders(place: Place, asker: NodeId): NodeId[] {
    const found = near(records.owners(place, limits.holdersLookedAt), asker);
    if (asker !== self && holdsItself(place)) found.unshift(self);
    return found;
  }

  return {
    holders,
    announced(from, message) {
      const { life, generation, seq } = message;
      const provider = providerOf(from, generation, life);
      if (!provider) {
        context.send(from, { kind: 'announced', seq, count: 0, hash: 0, full: true });
        return;
      }
      let full = false;
      if (provider.life !== life || seq > provider.lastSeq) {
        if (provider.generation !== generation) clear(provider);
        provider.generation = generation;
        provider.life = life;
        provider.lastSeq = seq;
        for (const region of message.clear) for (const place of placesIn(provider, region)) remove(provider, place);
        for (const place of message.remove) remove(provider, place);
        for (const place of message.add) full = !add(provider, place) || full;
      }
      context.send(from, { kind: 'announced', seq, count: provider.count, hash: provider.hash >>> 0, full });
    },
    regionsAsked(from, seq) {
      const summaries: number[] = [];
      const provider = providers.get(from);
      for (let region = 0; provider && region < limits.regions; region++) {
        const places = placesIn(provider, region);
        if (places.length > 0) {
          summaries.push(region, places.length, places.reduce((hash, place) => hash ^ mixPlace(place), 0) >>> 0);
        }
      }
      context.send(from, { kind: 'regions', seq, summaries });
    },
    asked(from, { seq, places }) {
      const nodes: NodeId[] = [];
      const known = new Map<NodeId, number>();
      const lists = places.slice(0, limits.placesPerQuestion).map((place) =>
        holders(place, from).map((node) => {
          let index = known.get(node);
          if (index === undefined) {
            index = nodes.push(node) - 1;
            known.set(node, index);
          }
          return index;
        }),
      );
      context.send(from, { kind: 'holders', seq, nodes, lists });
    },
    memberChanged(node) {
      const provider = providers.get(node);
      const member = context.members.get(node);
      if (!provider || !member) return;
      if (member.status !== 'alive' && member.status !== 'suspect') {
        provider.absentSinceMs ??= context.nowMs();
        return;
      }
      if (member.record.attributes.storeGeneration !== provider.generation) {
        clear(provider);
        provider.generation = member.record.attributes.storeGeneration;
      } else if (provider.absentSinceMs !== undefined) {
        context.note({ kind: 'revived', node, records: provider.count });
      }
      provider.absentSinceMs = undefined;
    },
    expire() {
      for (const provider of providers.values()) {
        const { absentSinceMs } = provider;
        if (absentSinceMs === undefined || context.nowMs() - absentSinceMs < limits.hiddenMs) continue;
        clear(provider);
        providers.delete(provider.node);
        byIndex[provider.index] = undefined;
        freeIndices.push(provider.index);
      }
    },
    records: () => records,
  };
}

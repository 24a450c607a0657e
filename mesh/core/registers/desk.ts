/**
 * What this node asks of registers outside of any claim: looks up results for its own clients, publishes what they
 * uploaded, and reports results that turned out lost or wrong.
 *
 * A read is answered within `lookupMs` with what is known by then; a write is said again a few times, to whoever leads,
 * and then dropped: its result stays where it is.
 */
import type { ActionKey, BlobKey, NodeId, ShardId } from '../ids.ts';
import { deskLimits as limits, registerLimits } from '../limits.ts';
import type { Machine } from '../machine.ts';
import type { FoundRegister, RegisterMessage } from './messages.ts';
import type { HolderPromise, InvalidationReason } from './types.ts';

export type DeskEvent =
  | { readonly kind: 'wake' }
  | { readonly kind: 'message'; readonly message: RegisterMessage }
  | { readonly kind: 'lookup'; readonly lookup: number; readonly keys: readonly ActionKey[] }
  | { readonly kind: 'publish'; readonly key: ActionKey; readonly result: BlobKey }
  /** The blob that is to be published is kept for so long; undefined when it cannot be. */
  | { readonly kind: 'pinned'; readonly write: number; readonly forMs: number | undefined }
  | {
      readonly kind: 'invalidate';
      readonly key: ActionKey;
      readonly result: BlobKey;
      readonly reason: InvalidationReason;
    };

export type DeskEffect =
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: RegisterMessage }
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  | { readonly kind: 'pin'; readonly write: number; readonly result: BlobKey }
  | {
      readonly kind: 'lookedUp';
      readonly lookup: number;
      readonly found: readonly FoundRegister[];
      readonly answered: readonly ActionKey[];
    };

export interface DeskConfig {
  readonly self: NodeId;
  readonly storeGeneration: number;
  readonly leaderOf: (shard: ShardId) => NodeId | undefined;
  readonly shardOf: (key: ActionKey) => ShardId;
  /** Another one in each life: what was asked before a restart is answered after it, now and then. */
  readonly firstId: number;
}

interface Question {
  readonly keys: readonly ActionKey[];
  /** Whether a node named its shard's leader: nobody is sent on twice. */
  readonly sentOn: boolean;
}

interface Lookup {
  readonly lookup: number;
  readonly endsAtMs: number;
  readonly open: Map<number, Question>;
  readonly found: FoundRegister[];
  readonly answered: ActionKey[];
}

interface Write {
  readonly shard: ShardId;
  message: Extract<RegisterMessage, { readonly kind: 'publish' | 'invalidate' }>;
  tries: number;
  /** Never, while its blob is being pinned. */
  dueAtMs: number;
}

/** Creates the machine. It asks `leaderOf` only inside `step`. */
export function createDesk(config: DeskConfig): Machine<DeskEvent, DeskEffect> {
  const { self, leaderOf, shardOf } = config;
  const questions = new Map<number, Lookup>();
  const lookups = new Set<Lookup>();
  const writes = new Map<number, Write>();
  let nextId = config.firstId;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let effects: DeskEffect[] = [];

  function look(lookup: number, keys: readonly ActionKey[], nowMs: number): void {
    const asked: Lookup = {
      lookup,
      endsAtMs: nowMs + limits.lookupMs,
      open: new Map(),
      found: [],
      answered: [],
    };
    if (lookups.size >= limits.lookupsMax) return end(asked);
    const byShard = new Map<ShardId, ActionKey[]>();
    for (const key of keys) {
      const shard = shardOf(key);
      const those = byShard.get(shard);
      if (those) those.push(key);
      else byShard.set(shard, [key]);
    }
    lookups.add(asked);
    for (const [shard, those] of byShard) {
      for (let at = 0; at < those.length; at += registerLimits.keysPerLookup) {
        const part = those.slice(at, at + registerLimits.keysPerLookup);
        ask(asked, shard, { keys: part, sentOn: false }, leaderOf(shard));
      }
    }
    if (asked.open.size === 0) end(asked);
  }

  function ask(asked: Lookup, shard: ShardId, question: Question, leader: NodeId | undefined): void {
    if (leader === undefined) return;
    nextId += 1;
    asked.open.set(nextId, question);
    questions.set(nextId, asked);
    const { keys } = question;
    effects.push({ kind: 'send', to: leader, message: { kind: 'lookup', id: nextId, shard, keys, fresh: false } });
  }

  function end(asked: Lookup): void {
    lookups.delete(asked);
    for (const id of asked.open.keys()) questions.delete(id);
    const { lookup, found, answered } = asked;
    effects.push({ kind: 'lookedUp', lookup, found, answered });
  }

  function close(id: number): { readonly asked: Lookup; readonly question: Question } | undefined {
    const asked = questions.get(id);
    const question = asked?.open.get(id);
    questions.delete(id);
    asked?.open.delete(id);
    return asked && question ? { asked, question } : undefined;
  }

  function write(message: Write['message'], dueAtMs: number): void {
    if (writes.size < limits.writesMax) writes.set(message.id, { shard: message.shard, message, tries: 0, dueAtMs });
  }

  function say(saying: Write, nowMs: number): void {
    if (saying.tries >= limits.writeTries) {
      writes.delete(saying.message.id);
      return;
    }
    saying.tries += 1;
    saying.dueAtMs = nowMs + limits.writeRetryMs;
    const leader = leaderOf(saying.shard);
    const { message } = saying;
    // What others find wrong a leader must find wrong itself: it is told so by its own node, or not at all.
    const forOwn = message.kind === 'invalidate' && message.reason !== 'lost';
    if (leader === undefined || (forOwn && leader !== self)) return;
    effects.push({ kind: 'send', to: leader, message });
  }

  function onPinned(id: number, forMs: number | undefined, nowMs: number): void {
    const publication = writes.get(id);
    if (publication?.message.kind !== 'publish') return;
    if (forMs === undefined) {
      writes.delete(id);
      return;
    }
    const promise: HolderPromise = { holder: self, storeGeneration: config.storeGeneration, pinnedForMs: forMs };
    publication.message = { ...publication.message, promises: [promise] };
    publication.dueAtMs = nowMs;
  }

  function onMessage(message: RegisterMessage): void {
    switch (message.kind) {
      case 'lookedUp': {
        const closed = close(message.id);
        if (!closed) return;
        closed.asked.answered.push(...closed.question.keys);
        closed.asked.found.push(...message.found);
        if (closed.asked.open.size === 0) end(closed.asked);
        return;
      }
      case 'redirect': {
        const closed = close(message.id);
        if (!closed) return;
        const { keys, sentOn } = closed.question;
        if (!sentOn && message.reason === 'notLeader') {
          ask(closed.asked, message.shard, { keys, sentOn: true }, message.leader);
        }
        if (closed.asked.open.size === 0) end(closed.asked);
        return;
      }
      case 'written':
        writes.delete(message.id);
        return;
      // The others are requests, for leaders.
      default:
        return;
    }
  }

  function apply(event: DeskEvent, nowMs: number): void {
    switch (event.kind) {
      case 'wake':
        return;
      case 'message':
        return onMessage(event.message);
      case 'lookup':
        return look(event.lookup, event.keys, nowMs);
      case 'publish': {
        const { key, result } = event;
        const id = ++nextId;
        const message = {
          kind: 'publish',
          id,
          shard: shardOf(key),
          key,
          result,
          executor: self,
          promises: [],
        } as const;
        write(message, Number.POSITIVE_INFINITY);
        effects.push({ kind: 'pin', write: id, result });
        return;
      }
      case 'pinned':
        return onPinned(event.write, event.forMs, nowMs);
      case 'invalidate': {
        const { key, result, reason } = event;
        return write({ kind: 'invalidate', id: ++nextId, shard: shardOf(key), key, result, reason }, nowMs);
      }
      default:
        event satisfies never;
    }
  }

  return {
    step(event, nowMs) {
      effects = [];
      apply(event, nowMs);
      for (const asked of lookups) if (nowMs >= asked.endsAtMs) end(asked);
      for (const saying of writes.values()) if (nowMs >= saying.dueAtMs) say(saying, nowMs);
      let next = Number.POSITIVE_INFINITY;
      for (const { endsAtMs } of lookups) next = Math.min(next, endsAtMs);
      for (const { dueAtMs } of writes.values()) next = Math.min(next, dueAtMs);
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
  };
}

/**
 * Makes "present" a promise when the bytes are with others: finds holders of each blob and has two of them pin it; and
 * pins here what others ask for, as far as the budget of replicas reaches.
 */
import type { BlobKey, NodeId } from '../ids.ts';
import type { Machine } from '../machine.ts';
import * as limits from './limits.ts';
import type { KeepingEffect, KeepingEvent, KeepingMessage, Kept } from './types.ts';

interface Wanted {
  readonly blob: BlobKey;
  /** Holders not asked yet; undefined while they are looked up. */
  left: NodeId[] | undefined;
  readonly asked: Set<NodeId>;
  readonly keepers: NodeId[];
}

/** A request of this node's own. */
interface Securing {
  readonly secure: number;
  readonly forMs: number;
  readonly endsAtMs: number;
  readonly wanted: Map<BlobKey, Wanted>;
}

interface Asking {
  readonly securing: Securing;
  readonly to: NodeId;
  readonly wanted: readonly Wanted[];
  readonly endsAtMs: number;
}

/** A request of another node, until every pin is decided. */
interface Serving {
  readonly from: NodeId;
  readonly seq: number;
  readonly forMs: number[];
  open: number;
}

export type Keeping = Machine<KeepingEvent, KeepingEffect>;

export function createKeeping(): Keeping {
  const securings = new Map<number, Securing>();
  const askings = new Map<number, Asking>();
  const finds = new Map<number, Securing>();
  const servings = new Set<Serving>();
  const pins = new Map<number, { readonly serving: Serving; readonly at: number }>();
  let counter = 0;
  let nowInStepMs = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let effects: KeepingEffect[] = [];

  function secure(event: Extract<KeepingEvent, { kind: 'secure' }>): void {
    const wanted = new Map<BlobKey, Wanted>();
    for (const blob of event.blobs) wanted.set(blob, { blob, left: undefined, asked: new Set(), keepers: [] });
    const { forMs, budgetMs } = event;
    const securing: Securing = { secure: event.secure, forMs, endsAtMs: nowInStepMs + budgetMs, wanted };
    securings.set(event.secure, securing);
    if (securings.size > limits.requestsMax || wanted.size === 0) return end(securing);
    counter += 1;
    finds.set(counter, securing);
    effects.push({ kind: 'find', find: counter, blobs: [...wanted.keys()] });
  }

  /** Asks more holders where that is needed, and ends what needs none. */
  function advance(securing: Securing): void {
    const batches = new Map<NodeId, Wanted[]>();
    let open = false;
    for (const wanted of securing.wanted.values()) {
      while (
        wanted.left &&
        wanted.keepers.length + wanted.asked.size < limits.keepersWanted &&
        wanted.left.length > 0
      ) {
        // Somebody who is asked for another blob already costs no message of its own.
        const shared = wanted.left.findIndex((node) => batches.has(node));
        const [node] = wanted.left.splice(Math.max(0, shared), 1) as [NodeId];
        wanted.asked.add(node);
        const batch = batches.get(node);
        if (batch) batch.push(wanted);
        else batches.set(node, [wanted]);
      }
      open ||= wanted.left === undefined || wanted.asked.size > 0;
    }
    for (const [to, batch] of batches) {
      for (let i = 0; i < batch.length; i += limits.blobsPerRequest) {
        const part = batch.slice(i, i + limits.blobsPerRequest);
        counter += 1;
        askings.set(counter, { securing, to, wanted: part, endsAtMs: nowInStepMs + limits.answerMs });
        const blobs = part.map(({ blob }) => blob);
        // What passes until the answer is here does not count.
        const forMs = securing.forMs + limits.answerMs;
        effects.push({ kind: 'send', to, message: { kind: 'keep', seq: counter, blobs, forMs } });
      }
    }
    if (!open) end(securing);
  }

  function end(securing: Securing): void {
    if (!securings.delete(securing.secure)) return;
    const kept: Kept[] = [...securing.wanted.values()].map(({ blob, keepers }) => ({ blob, holders: keepers }));
    effects.push({ kind: 'secured', secure: securing.secure, kept });
  }

  function onKept(from: NodeId, seq: number, forMs: readonly number[]): void {
    const asking = askings.get(seq);
    if (asking?.to !== from) return;
    askings.delete(seq);
    for (const [i, wanted] of asking.wanted.entries()) {
      wanted.asked.delete(from);
      if ((forMs[i] ?? 0) >= asking.securing.forMs) wanted.keepers.push(from);
    }
    advance(asking.securing);
  }

  function passOver(asked: number, asking: Asking): void {
    askings.delete(asked);
    for (const wanted of asking.wanted) wanted.asked.delete(asking.to);
    advance(asking.securing);
  }

  function onKeep(from: NodeId, message: Extract<KeepingMessage, { kind: 'keep' }>): void {
    const blobs = message.blobs.slice(0, limits.blobsPerRequest);
    const serving: Serving = { from, seq: message.seq, forMs: blobs.map(() => 0), open: blobs.length };
    if (servings.size >= limits.requestsMax || blobs.length === 0) return answer(serving);
    servings.add(serving);
    for (const [at, blob] of blobs.entries()) {
      counter += 1;
      pins.set(counter, { serving, at });
      effects.push({ kind: 'pin', pin: counter, blob, forMs: message.forMs });
    }
  }

  function answer(serving: Serving): void {
    servings.delete(serving);
    effects.push({ kind: 'send', to: serving.from, message: { kind: 'kept', seq: serving.seq, forMs: serving.forMs } });
  }

  function apply(event: KeepingEvent): void {
    switch (event.kind) {
      case 'wake':
        return;
      case 'gap':
        // What was asked before a suspend was answered to nobody.
        for (const [asked, asking] of [...askings]) passOver(asked, asking);
        return;
      case 'message':
        if (event.message.kind === 'keep') onKeep(event.from, event.message);
        else onKept(event.from, event.message.seq, event.message.forMs);
        return;
      case 'secure':
        return secure(event);
      case 'found': {
        const securing = finds.get(event.find);
        if (event.done) finds.delete(event.find);
        if (!securing) return;
        for (const { blob, holders } of event.found) {
          const wanted = securing.wanted.get(blob);
          if (wanted) wanted.left = [...holders];
        }
        return advance(securing);
      }
      case 'pinned': {
        const pin = pins.get(event.pin);
        pins.delete(event.pin);
        if (!pin) return;
        pin.serving.forMs[pin.at] = event.forMs;
        pin.serving.open -= 1;
        if (pin.serving.open === 0) answer(pin.serving);
        return;
      }
      case 'absent':
        for (const [asked, asking] of [...askings]) if (asking.to === event.node) passOver(asked, asking);
        return;
      default:
        event satisfies never;
    }
  }

  return {
    step(event, nowMs) {
      effects = [];
      nowInStepMs = nowMs;
      apply(event);
      for (const [asked, asking] of [...askings]) if (nowMs >= asking.endsAtMs) passOver(asked, asking);
      for (const securing of [...securings.values()]) if (nowMs >= securing.endsAtMs) end(securing);
      let next = Number.POSITIVE_INFINITY;
      for (const { endsAtMs } of askings.values()) next = Math.min(next, endsAtMs);
      for (const { endsAtMs } of securings.values()) next = Math.min(next, endsAtMs);
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
  };
}

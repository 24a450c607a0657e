/** Promises of outputs that are here: to executors that handed them over, and for results that ran here without a claim. */
import type { ActionKey, BlobKey, NodeId, ShardId, Token } from '../../ids.ts';
import type { HolderPromise } from '../../registers/types.ts';
import { submitterLimits as limits } from '../limits.ts';
import type { SubmitterConfig, SubmitterEffect, SubmitterMessage } from './types.ts';

/** A hand-over whose outputs are here and whose promise is being pinned. */
interface Promising {
  readonly to: NodeId;
  readonly key: ActionKey;
  readonly token: Token;
}

interface Publication {
  readonly id: number;
  readonly shard: ShardId;
  readonly key: ActionKey;
  readonly result: BlobKey;
  promises: HolderPromise[];
  tries: number;
  dueAtMs: number;
}

export interface PublishingPort {
  emit(effect: SubmitterEffect): void;
  send(to: NodeId, message: SubmitterMessage): void;
  nextId(): number;
}

export interface Publishing {
  /** Pins the outputs and promises them to the executor that handed them over. */
  promiseTo(to: Promising, result: BlobKey): void;
  /** Pins the outputs and offers them to the register, if it is empty. */
  publish(shard: ShardId, key: ActionKey, result: BlobKey): void;
  /** The pin holds for so long, or could not be had. */
  pinned(id: number, forMs: number | undefined, nowMs: number): void;
  written(id: number): void;
  onTick(nowMs: number): void;
  readonly size: number;
}

export function createPublishing(config: SubmitterConfig, port: PublishingPort): Publishing {
  const promising = new Map<number, Promising>();
  const publishing = new Map<number, Publication>();

  function pin(result: BlobKey): number {
    const id = port.nextId();
    port.emit({ kind: 'pinHandedOver', fetch: id, result, forMs: limits.promiseMs });
    return id;
  }

  function offer(publication: Publication, nowMs: number): void {
    publication.tries += 1;
    publication.dueAtMs = nowMs + limits.renewMs;
    const { id, shard, key, result, promises } = publication;
    if (publication.tries > limits.retriesMax) {
      publishing.delete(id);
      return;
    }
    const leader = config.leaderOf(shard);
    if (leader === undefined) return;
    port.send(leader, { kind: 'publish', id, shard, key, result, executor: config.self, promises });
  }

  return {
    promiseTo: (to, result) => void promising.set(pin(result), to),
    publish(shard, key, result) {
      const id = pin(result);
      publishing.set(id, { id, shard, key, result, promises: [], tries: 0, dueAtMs: 0 });
    },
    pinned(id, forMs, nowMs) {
      const promise =
        forMs === undefined
          ? undefined
          : { holder: config.self, storeGeneration: config.storeGeneration, pinnedForMs: forMs };
      const given = promising.get(id);
      if (given) {
        promising.delete(id);
        return port.send(given.to, { kind: 'handedOver', key: given.key, token: given.token, promise });
      }
      const publication = publishing.get(id);
      if (!publication) return;
      if (!promise) publishing.delete(id);
      else {
        publication.promises = [promise];
        offer(publication, nowMs);
      }
    },
    written: (id) => void publishing.delete(id),
    onTick(nowMs) {
      for (const publication of publishing.values()) {
        if (publication.tries > 0 && nowMs >= publication.dueAtMs) offer(publication, nowMs);
      }
    },
    get size() {
      return publishing.size;
    },
  };
}

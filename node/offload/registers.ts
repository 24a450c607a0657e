/**
 * What the mesh's coordinators know about results, for lookups of this node's clients; and what these clients bring,
 * published there without a claim. Questions of one moment travel together, and so do publications of a longer one, for
 * which nobody waits: each by itself would cost a sync of the store and one of the coordinators' log.
 */
import type { ActionKey as ActionName, BlobKey } from '../../mesh/core/ids.ts';
import type { PeerEffect, PeerEvent } from '../../mesh/core/peer.ts';
import type { FoundRegister } from '../../mesh/core/registers/messages.ts';
import { toBinary } from '@bufbuild/protobuf';
import type { Digest } from '../../protos/digest.ts';
import type { ActionResult } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { VouchedResultSchema } from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { digestOf } from '../../protos/hasher.ts';
import type { Looked, Registers } from '../peers/registers.ts';
import type { ActionKey } from '../storage/action-cache.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import { createResultClosures } from '../storage/result-closure.ts';
import { actionName, blobName } from './keys.ts';
import * as limits from './limits.ts';

type LookedUp = Extract<PeerEffect, { readonly kind: 'lookedUp' }>;
type RegisterEvent = Extract<PeerEvent, { readonly kind: 'lookup' | 'publish' | 'invalidate' }>;

export interface OpenRegisters extends Registers {
  perform(work: LookedUp): void;
  /** Everything that waits is told that nobody answered. */
  close(): void;
}

export interface RegistersOptions {
  /** This disk alone. */
  readonly local: Pick<LocalBlobStore, 'get' | 'putMany'>;
  readonly hold: (name: BlobKey, digests: readonly ReturnType<typeof digestOf>[]) => Promise<boolean>;
  readonly deliver: (event: RegisterEvent) => void;
}

interface Publication {
  readonly key: ActionKey;
  readonly result: ActionResult;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
  readonly outcome: PromiseWithResolvers<void>;
}

const unanswered: Looked = { answered: false, register: undefined };

export function createRegisters({ local, hold, deliver }: RegistersOptions): OpenRegisters {
  const waiting = new Map<number, Map<ActionName, PromiseWithResolvers<Looked>>>();
  let gathered = new Map<ActionName, PromiseWithResolvers<Looked>>();
  let nextLookup = 1;
  let publications: Publication[] = [];
  let publishing: NodeJS.Timeout | undefined;

  function flush(): void {
    const keys = [...gathered.keys()];
    const lookup = nextLookup++;
    waiting.set(lookup, gathered);
    gathered = new Map();
    deliver({ kind: 'lookup', lookup, keys });
  }

  function publishAll(): void {
    clearTimeout(publishing);
    publishing = undefined;
    const some = publications;
    publications = [];
    void publish(some).catch((error: unknown) => {
      for (const { outcome } of some) outcome.reject(error);
    });
  }

  async function publish(some: readonly Publication[]): Promise<void> {
    const failures = await local.putMany(some);
    const held = await Promise.all(
      some.map(async (one, at) => {
        if (failures[at]) return false;
        return await isHeld(one).catch((error: unknown) => {
          one.outcome.reject(error);
          return false;
        });
      }),
    );
    // In one turn, so that they share the messages and the log.
    for (const [at, { key, digest, outcome }] of some.entries()) {
      const failure = failures[at];
      if (failure) outcome.reject(failure);
      else outcome.resolve();
      if (held[at]) deliver({ kind: 'publish', key: actionName(key), result: blobName(digest) });
    }
  }

  async function isHeld({ key, result, digest }: Publication): Promise<boolean> {
    const { needed, missing } = await createResultClosures(local).of(result, key.action.fn);
    return missing.length === 0 && (await hold(blobName(digest), [digest, ...needed]));
  }

  return {
    async lookUp(key) {
      const name = actionName(key);
      let looked = gathered.get(name);
      if (!looked) {
        if (gathered.size === 0) setImmediate(() => gathered.size > 0 && flush());
        looked = Promise.withResolvers();
        gathered.set(name, looked);
        if (gathered.size >= limits.lookupKeysMax) flush();
      }
      return await looked.promise;
    },
    async publish(key, result, vouched) {
      const bytes = toBinary(VouchedResultSchema, vouched);
      const outcome = Promise.withResolvers<void>();
      publications.push({ key, result, digest: digestOf(key.action.fn, bytes), bytes, outcome });
      if (publications.length >= limits.publishTogether) publishAll();
      else publishing ??= setTimeout(publishAll, limits.publishGatherMs);
      await outcome.promise;
    },
    invalidate(key, result, reason) {
      deliver({ kind: 'invalidate', key: actionName(key), result, reason });
    },
    perform({ lookup, found, answered }) {
      const asked = waiting.get(lookup);
      waiting.delete(lookup);
      if (!asked) return;
      const registers = new Map<ActionName, FoundRegister>(found.map((one) => [one.key, one]));
      const known = new Set(answered);
      for (const [name, { resolve }] of asked) {
        const register = registers.get(name)?.register;
        resolve(register || known.has(name) ? { answered: true, register } : unanswered);
      }
    },
    close() {
      for (const asked of [...waiting.values(), gathered])
        for (const { resolve } of asked.values()) resolve(unanswered);
      waiting.clear();
      gathered = new Map();
      clearTimeout(publishing);
      for (const { outcome } of publications.splice(0)) outcome.resolve();
    },
  };
}

/**
 * Promises of holders that others pass on. A submitter promises its executor to keep a result, and the executor shows that
 * to the leader with its commit; so the submitter signs it, and the leader's machine hears only of promises that their
 * holder made for this very action and result. Machines know nothing of signatures; here they are kept beside them.
 */
import type { Control } from '../../../protos/gen/potluck/mesh/v1/control_pb.ts';
import type { ActionKey, BlobKey, NodeId, Token } from '../../core/ids.ts';
import { tokenText } from '../../core/ids.ts';
import type { PeerMessage } from '../../core/peer.ts';
import type { HolderPromise } from '../../core/registers/types.ts';
import type { Identity } from '../identity/identity.ts';
import type { Domain } from '../identity/keys.ts';
import { skewMs } from '../identity/limits.ts';
import type { Roster } from '../identity/roster.ts';
import { BrokenRule } from './codec.ts';
import type { Proof, ProofOf } from './codec/registers.ts';
import * as limits from './limits.ts';

const domain: Domain = 'potluck/holder-promise/1';

export interface PromiseProofs {
  /** Who signs what in a message that leaves; `undefined` when nothing in it needs that. */
  leaving(to: NodeId, message: PeerMessage): ProofOf | undefined;
  /** The message without promises that nobody made. Throws BrokenRule for one that is made in the name of another. */
  arrived(from: NodeId, message: PeerMessage, body: Control['message']): PeerMessage;
}

export function createPromiseProofs(
  identity: Pick<Identity, 'peerId' | 'mesh' | 'sign' | 'verify' | 'nowMs'>,
  roster: Pick<Roster, 'get'>,
): PromiseProofs {
  /** What executors offered this submitter: by executor, action and token. */
  const offered = new Map<string, BlobKey>();
  /** What submitters promised this executor: by action and holder. */
  const received = new Map<string, Proof>();

  function statement(key: ActionKey, result: BlobKey, promise: HolderPromise, endMs: number): Uint8Array {
    const { holder, storeGeneration } = promise;
    return Buffer.from(JSON.stringify([identity.mesh.id, key, result, holder, storeGeneration, endMs]));
  }

  function sign(key: ActionKey, result: BlobKey, promise: HolderPromise): Proof {
    const endMs = Math.floor(identity.nowMs() + promise.pinnedForMs);
    return { proof: Buffer.from(identity.sign(domain, statement(key, result, promise, endMs))), endMs };
  }

  function isProven(key: ActionKey, result: BlobKey, promise: HolderPromise, { proof, endMs }: Proof): boolean {
    if (!roster.get(promise.holder) || promise.pinnedForMs > endMs - identity.nowMs() + skewMs) return false;
    return identity.verify(promise.holder, domain, statement(key, result, promise, endMs), proof);
  }

  return {
    leaving(to, message) {
      if (message.kind === 'handedOver') {
        const result = offered.get(offerText(to, message));
        return result === undefined ? undefined : (promise) => sign(message.key, result, promise);
      }
      if (message.kind !== 'commit') return undefined;
      return ({ holder }) => received.get(promiseText(message.claim.key, holder));
    },
    arrived(from, message, body) {
      switch (message.kind) {
        case 'handOver':
          keep(offered, offerText(from, message), message.outcome.result);
          return message;
        case 'handedOver': {
          const wire = body.case === 'agents' && body.value.message.case === 'handedOver' && body.value.message.value;
          if (!message.promise || !wire || !wire.promise) return message;
          if (message.promise.holder !== from) throw new BrokenRule('a promise in the name of another');
          const { proof, endMs } = wire.promise;
          keep(received, promiseText(message.key, from), { proof, endMs });
          return message;
        }
        case 'commit': {
          const wire = body.case === 'claims' && body.value.message.case === 'commit' && body.value.message.value;
          const { claim, result } = message;
          const promises = message.promises.filter((promise, at) => {
            const proof = wire && wire.promises[at];
            return promise.holder === from || (proof && isProven(claim.key, result, promise, proof));
          });
          return { ...message, promises };
        }
        case 'publish':
          return { ...message, promises: message.promises.filter(({ holder }) => holder === from) };
        default:
          return message;
      }
    },
  };
}

function offerText(executor: NodeId, { key, token }: { readonly key: ActionKey; readonly token: Token }): string {
  return `${executor} ${tokenText(token)} ${key}`;
}

function promiseText(key: ActionKey, holder: NodeId): string {
  return `${holder} ${key}`;
}

function keep<T>(kept: Map<string, T>, name: string, value: T): void {
  kept.delete(name);
  kept.set(name, value);
  for (const oldest of kept.keys()) {
    if (kept.size <= limits.proofsKept) break;
    kept.delete(oldest);
  }
}

/** The audit of a node, wired: what it takes from the node's parts, and what it tells them. */
import { toBinary } from '@bufbuild/protobuf';
import type { PeerEvent } from '../../../mesh/core/peer.ts';
import { type Digest, digestKey, digestFunctions, makeDigest, type DigestFunction } from '../../../protos/digest.ts';
import { VouchedResultSchema } from '../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { StatusError } from '../../../protos/status.ts';
import type { Clock } from '../../execution/clock.ts';
import type { NamedAction } from '../../offload/events.ts';
import { actionName, blobName } from '../../offload/keys.ts';
import type { PeerTier } from '../../peers/peer-tier.ts';
import { apart, type Trust, type VouchingIdentity } from '../../peers/vouching.ts';
import type { ActionCache } from '../../storage/action-cache.ts';
import type { BlobStore } from '../../storage/blob-store.ts';
import type { Builds } from '../builds.ts';
import {
  type AuditedAction,
  type AuditJob,
  type AuditStatus,
  createAuditor,
  type Dropped,
  type RefusedDenouncement,
} from './auditor.ts';
import { createDenouncing } from './denouncing.ts';
import type { Ledger } from './ledger.ts';
import * as limits from './limits.ts';
import type { Reexecute } from './reexecute.ts';

/** The mesh while it is awake. */
export interface AuditMesh {
  readonly identity: VouchingIdentity;
  /** Live members. */
  readonly members: () => readonly string[];
  deliver(event: Extract<PeerEvent, { readonly kind: 'invalidate' | 'mismatched' }>): void;
}

export interface AuditOptions {
  readonly percent: number;
  readonly clock: Clock;
  readonly ledger: Ledger;
  /** Of this disk, as it keeps results. */
  readonly stored: ActionCache;
  readonly blobs: Pick<BlobStore, 'get' | 'open'>;
  readonly builds: Pick<Builds, 'explain'>;
  readonly reexecute: Reexecute;
  readonly trust: Trust;
  readonly peers: Pick<PeerTier, 'ask'> | undefined;
  readonly mesh: () => AuditMesh | undefined;
  readonly isIdle: () => boolean;
  readonly onLog: (level: 'info' | 'warning', text: string) => void;
}

export interface Audit {
  onHit(action: NamedAction): void;
  /** What a member tells on the data plane. */
  take(peer: string, body: Uint8Array): Promise<Uint8Array>;
  status(): AuditStatus;
  /** Audits an action now; how far that is. `text` as `explain` takes it. Throws NOT_FOUND or INVALID_ARGUMENT. */
  begin(text: string): Promise<AuditJob>;
  /** Throws NOT_FOUND for one that nobody asked for. */
  job(text: string): Promise<AuditJob>;
  close(): Promise<void>;
}

export function createAudit(options: AuditOptions): Audit {
  const { clock, ledger, stored, mesh, onLog } = options;
  const refused: RefusedDenouncement[] = [];
  const denouncing = createDenouncing({
    identity: () => mesh()?.identity,
    trust: options.trust,
    ask: async (peer, call, body, { signal }) => await options.peers?.ask(peer, call, body, { signal }),
    clock,
    onProven: (proven) => auditor.onProven(proven),
    onRefused(peer, reason) {
      refused.unshift({ time: new Date(clock.nowMs()).toISOString(), peer, reason });
      refused.splice(limits.refusedShown);
      onLog('warning', `${peer} denounced a result, and proved nothing: ${reason}`);
    },
    onLog: (reason) => onLog('info', reason),
  });
  const auditor = createAuditor({
    percent: options.percent,
    clock,
    random: Math.random,
    self: () => mesh()?.identity.peerId ?? '',
    others: () => mesh()?.members() ?? [],
    async known(key) {
      const found = await stored.get(key);
      return found && { vouched: undefined, ...apart(found) };
    },
    reexecute: options.reexecute,
    blobs: options.blobs,
    ledger,
    isIdle: options.isIdle,
    onEvidence: (evidence) => void denouncing.tell(evidence, mesh()?.members() ?? []),
    onDropped,
    onLog,
  });

  /** The register that names it is told by whoever leads its shard: everybody hears of it. */
  function onDropped({ key, vouched, reason, node, isUpload }: Dropped): void {
    const awake = mesh();
    if (!awake || !vouched) return;
    const result = blobName(digestOf(key.action.fn, toBinary(VouchedResultSchema, vouched)));
    awake.deliver({ kind: 'invalidate', key: actionName(key), result, reason });
    const isOthers = node !== '' && node !== awake.identity.peerId;
    if (isOthers && !isUpload && reason === 'wrong') awake.deliver({ kind: 'mismatched', node });
  }

  /** What was asked for here, or a whole digest. */
  async function find(text: string): Promise<AuditedAction> {
    try {
      const { requests } = await options.builds.explain(text);
      const [request] = requests;
      if (request) {
        const { instance, mnemonic, target } = request;
        return { action: digestOfText(request.action), instance, mnemonic, target };
      }
    } catch (error) {
      const isUnknown = error instanceof StatusError && error.code === 'NOT_FOUND';
      if (!isUnknown || !/^([a-z0-9]+\/)?[0-9a-f]{32,}\/\d+$/.test(text)) throw error;
    }
    return { action: digestOfText(text), instance: '', mnemonic: '', target: '' };
  }

  return {
    onHit: ({ action, instance, mnemonic, target }) => auditor.onHit({ action, instance, mnemonic, target }),
    take: (peer, body) => denouncing.take(peer, body),
    status: () => ({ ...auditor.status(), refused: [...refused] }),
    begin: async (text) => auditor.begin(await find(text)),
    async job(text) {
      const action = await find(text);
      const job = auditor.job(action);
      if (job) return job;
      throw new StatusError('NOT_FOUND', `nobody asked for an audit of ${digestKey(action.action)}`);
    },
    close: () => auditor.close(),
  };
}

/** `function/hash/size`, or `hash/size` of SHA-256. */
function digestOfText(text: string): Digest {
  const parts = text.split('/');
  const [fn = '', hash = '', size = ''] = parts.length === 2 ? ['sha256', ...parts] : parts;
  if (!Object.hasOwn(digestFunctions, fn)) throw new StatusError('INVALID_ARGUMENT', `"${fn}" is no digest function`);
  return makeDigest(fn as DigestFunction, hash, Number(size));
}

/** Opens the tier "peers" for a mesh that woke: everything that sharing needs, wired. */
import { networkInterfaces } from 'node:os';
import type { FetchEvent } from '../../mesh/core/fetch/types.ts';
import type { Member } from '../../mesh/core/membership/membership.ts';
import { uploadsDefault, uploadsPerPeerDefault } from '../../mesh/net/data/limits.ts';
import { memberCredentials } from '../../mesh/net/data/member-credentials.ts';
import type { UploadLimits } from '../../mesh/net/data/uploads.ts';
import { hostPortText, parseHostPort } from '../../mesh/net/host/addresses.ts';
import { type Digest, digestKey } from '../../protos/digest.ts';
import { StatusError } from '../../protos/status.ts';
import type { SharingWork, Tier, TierPorts } from '../mesh/tier.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import type { Fetches } from './fetches.ts';
import * as limits from './limits.ts';
import { createPeerActions, type PeerActions } from './peer-actions.ts';
import type { PeerTierOptions } from './peer-tier.ts';
import { createReplication } from './replication.ts';
import { createResultFinder, resultsCall, tellCall } from './result-finder.ts';
import { createSeedJobs, type SeedJobs } from './seed-jobs.ts';
import { seed } from './seeding.ts';
import { shareBlobs } from './sharing.ts';
import type { Counting, Link } from './tally.ts';
import { createTransferLog } from './transfer-log.ts';
import { createUploadGate } from './upload-gate.ts';
import { createVouching } from './vouching.ts';

export interface Opened {
  readonly tier: Tier;
  readonly blobs: LocalBlobStore;
  readonly actions: PeerActions;
  readonly fetches: Fetches;
  readonly seeds: SeedJobs;
  ask(peer: string, call: string, body: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
}

/** Throws INVALID_ARGUMENT or FAILED_PRECONDITION when the address of the data plane cannot be listened on. */
export async function openTier(options: PeerTierOptions, ports: TierPorts, tally: Counting): Promise<Opened> {
  const { store, onLog } = options;
  const uploadLimits: UploadLimits = {
    uploadsMax: options.uploadBytesPerSecond === 0 ? 0 : uploadsDefault,
    uploadsPerPeerMax: uploadsPerPeerDefault,
    bytesPerSecond: options.uploadBytesPerSecond,
  };
  const listen = parseHostPort(options.listen);
  if (!listen) throw new StatusError('INVALID_ARGUMENT', `"${options.listen}" is no address for the data plane`);
  const linkTo = (peer: string): Link => linkBetween(options.members(), ports.identity.peerId, peer);
  const log = createTransferLog((text) => onLog('info', text));
  const gate = createUploadGate((event) => ports.deliver(event));
  const sharing = await shareBlobs({
    local: store.blobs,
    credentials: memberCredentials(ports.identity),
    listen,
    addressesOf: (peer) => ports.dataAddressesOf(peer).flatMap((text) => parseHostPort(text) ?? []),
    report: (event: FetchEvent) => ports.deliver(event as Parameters<TierPorts['deliver']>[0]),
    seedBytesPerWindow: Math.floor(options.capacityBytes * limits.seedShare),
    calls: new Map([
      [resultsCall, (_, body) => actions.answer(body)],
      [tellCall, (_, body) => actions.take(body)],
      ...(options.calls ?? []),
    ]),
    onUnreported: (digest) => tell(ports, digest, true),
    onReceived(peer, digest) {
      tally.onReceived(peer, linkTo(peer), digest.sizeBytes);
      log.received(peer, digest.sizeBytes);
    },
    onServed({ peer, blobs, bytes }) {
      tally.onServed(linkTo(peer), blobs, bytes);
      log.served(peer, blobs, bytes);
    },
    onRefused: (address, reason) => onLog('info', `refused a connection from ${address}: ${reason}`),
    uploadLimits: () => uploadLimits,
    gate,
  });
  const { client, fetches, server } = sharing;
  const actions: PeerActions = createPeerActions({
    local: store.actions,
    blobs: store.blobs,
    vouching: createVouching(ports.identity, options.trust),
    finder: createResultFinder({
      client,
      members: () => nearFirst(options.members(), ports.identity.peerId),
    }),
    fetches,
    ...(options.registers && { registers: options.registers }),
    ...(options.isDropped && { isDropped: options.isDropped }),
    onStored: (key) => replication.add(key),
    onFound(key, from) {
      tally.onResult(from);
      options.onFound?.(key, from);
    },
    onRefused: (peer, reason) => onLog('warning', `${peer}: ${reason}`),
    onIncomplete: (reason) => onLog('info', reason),
  });
  const replication = createReplication({
    replicas: options.replicas ?? 1,
    members: () => ofSite(options.members(), ports.identity.peerId),
    share: (key) => actions.share(key),
    handOver: (peer, digests, signal) =>
      seed({ client, local: store.blobs }, peer, digests, { signal, onProgress: () => {} }),
    tell: tellPeer,
    onFailed: (reason) => onLog('info', reason),
  });
  const seeds = createSeedJobs({
    blobs: store.blobs,
    actions: store.actions,
    members: options.members,
    self: ports.identity.peerId,
    seed: (peer, digests, how) => seed({ client, local: store.blobs }, peer, digests, how),
    async tell(peer, key, signal) {
      const shared = await actions.share(key);
      if (shared) await tellPeer(peer, shared.told, signal);
    },
  });
  const stopWatching = store.watch((digest, isHeld) => {
    if (!isHeld || !sharing.isStoring(digest)) tell(ports, digest, isHeld);
  });
  const tier: Tier = {
    dataAddress: hostPortText({ host: reachableHost(listen.host), port: server.port }),
    held: [...store.held()].map((digest) => [digestKey(digest), digest.sizeBytes] as const),
    capacityBytes: options.capacityBytes,
    perform: (work: SharingWork) => perform(work),
    async close() {
      stopWatching();
      await replication.close();
      await seeds.close();
      await sharing.close();
      log.close();
    },
  };
  return {
    tier,
    blobs: sharing.blobs,
    actions,
    fetches,
    seeds,
    ask: (peer, call, body, signal) => client.call(peer, call, body, { signal, urgency: 'seed' }),
  };

  async function tellPeer(peer: string, told: Uint8Array, signal: AbortSignal): Promise<void> {
    await client.call(peer, tellCall, told, { signal, urgency: 'seed' });
  }

  function perform(work: SharingWork): void {
    switch (work.kind) {
      case 'transfer':
      case 'cancelTransfer':
      case 'assemble':
      case 'discard':
      case 'fetched':
      case 'failed':
        sharing.perform(work);
        return;
      case 'serve':
      case 'refuse':
        gate.perform(work);
        return;
      default:
      // The store evicts by itself, and tells; nobody here asks for the rest yet.
    }
  }
}

function tell(ports: TierPorts, digest: Digest, isHeld: boolean): void {
  const blob = digestKey(digest);
  if (isHeld) ports.deliver({ kind: 'stored', blob, sizeBytes: digest.sizeBytes });
  else ports.deliver({ kind: 'gone', blob });
}

/** Live ones, near ones first. */
function nearFirst(members: readonly Member[], self: string): string[] {
  const distance = ({ record }: Member): number => nearness.indexOf(linkBetween(members, self, record.id));
  return members
    .filter(({ record, status }) => status === 'alive' && record.id !== self)
    .sort((a, b) => distance(a) - distance(b))
    .map(({ record }) => record.id);
}

const nearness: readonly Link[] = ['subnet', 'site', 'other'];

function linkBetween(members: readonly Member[], self: string, peer: string): Link {
  const attributesOf = (id: string) => members.find(({ record }) => record.id === id)?.record.attributes;
  const [own, other] = [attributesOf(self), attributesOf(peer)];
  if (!own || !other) return 'other';
  if (own.subnet === other.subnet) return 'subnet';
  return own.site === other.site ? 'site' : 'other';
}

/** Live members of this node's site. */
function ofSite(members: readonly Member[], self: string): string[] {
  const site = members.find(({ record }) => record.id === self)?.record.attributes.site ?? '';
  return members
    .filter(({ record, status }) => status === 'alive' && record.id !== self && record.attributes.site === site)
    .map(({ record }) => record.id);
}

/** An address that others can use: one that means all interfaces means nothing to them. */
function reachableHost(host: string): string {
  if (host !== '0.0.0.0' && host !== '::') return host;
  const all = Object.values(networkInterfaces()).flatMap((some) => some ?? []);
  const fitting = all.filter(({ internal, family }) => !internal && (host === '::' || family === 'IPv4'));
  return fitting[0]?.address ?? '127.0.0.1';
}

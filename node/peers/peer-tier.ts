/**
 * The tier "peers" of a node: its store and action cache with the mesh behind them. While the node is alone they are the
 * local ones; when its mesh wakes, the driver opens the tier, which then shares until it is closed.
 */
import { networkInterfaces } from 'node:os';
import type { FetchEvent } from '../../mesh/core/fetch/types.ts';
import type { Member } from '../../mesh/core/membership/membership.ts';
import { uploadsDefault, uploadsPerPeerDefault } from '../../mesh/net/data/limits.ts';
import type { UploadLimits } from '../../mesh/net/data/uploads.ts';
import { type Digest, digestKey } from '../../protos/digest.ts';
import { StatusError } from '../../protos/status.ts';
import type { SharingWork, Tier, TierPorts } from '../mesh/tier.ts';
import type { ActionCache } from '../storage/action-cache.ts';
import type { CallOptions, LocalBlobStore } from '../storage/blob-store.ts';
import type { Store } from '../storage/store.ts';
import type { Fetches } from './fetches.ts';
import * as limits from './limits.ts';
import type { PeerActions } from './peer-actions.ts';
import { switchedStore } from './peer-store.ts';
import type { SeedJobs, SeedReport, SeedRequest } from './seed-jobs.ts';
import { createTally, type Tally } from './tally.ts';
import type { SandboxClass, Trust } from './vouching.ts';

export interface PeerTierOptions {
  readonly store: Pick<Store, 'blobs' | 'actions' | 'held' | 'watch'>;
  readonly capacityBytes: number;
  /** host:port where the data plane listens; port 0 picks a free one. */
  readonly listen: string;
  /** Everybody known; those alive are asked for results, near ones first. */
  readonly members: () => readonly Member[];
  readonly trust: Trust;
  /** What members may fetch in a second, on average; 0 serves nobody. */
  readonly uploadBytesPerSecond?: number | undefined;
  readonly onLog: (level: 'info' | 'warning', message: string) => void;
}

export interface PeerTier {
  readonly blobs: LocalBlobStore;
  /** The action cache for results that come in this way. */
  actions(sandboxClass: SandboxClass): ActionCache;
  /** Gets from the mesh what is not here; resolves to what cannot be had, once the rest is stored. */
  bring(digests: readonly Digest[], options?: CallOptions): Promise<Digest[]>;
  open(ports: TierPorts): Promise<Tier>;
  /** Seeds what the owner asks for. Throws FAILED_PRECONDITION while this node is alone. */
  seed(request: SeedRequest): Promise<SeedReport>;
  tally(): Tally;
}

interface Opened {
  readonly seeds: SeedJobs;
  readonly fetches: Fetches;
  readonly blobs: LocalBlobStore;
  readonly actions: PeerActions;
}

export function createPeerTier(options: PeerTierOptions): PeerTier {
  const { store, onLog } = options;
  const tally = createTally();
  const uploadLimits: UploadLimits = {
    uploadsMax: options.uploadBytesPerSecond === 0 ? 0 : uploadsDefault,
    uploadsPerPeerMax: uploadsPerPeerDefault,
    bytesPerSecond: options.uploadBytesPerSecond,
  };
  let opened: Opened | undefined;

  return {
    blobs: switchedStore(store.blobs, () => opened?.blobs),
    actions(sandboxClass) {
      const current = (): ActionCache => opened?.actions.as(sandboxClass) ?? store.actions;
      return {
        get: (key, callOptions) => current().get(key, callOptions),
        put: (key, result, callOptions) => current().put(key, result, callOptions),
      };
    },
    tally: () => tally.now(),

    async seed(request) {
      if (opened) return await opened.seeds.handle(request);
      throw new StatusError('FAILED_PRECONDITION', 'this node is in no mesh yet; see potluck join --help');
    },

    async bring(digests, callOptions) {
      const missing = await store.blobs.missing(digests, callOptions);
      const fetches = opened?.fetches;
      if (!fetches) return missing;
      const absent: Digest[] = [];
      for (let at = 0; at < missing.length; at += limits.wantsPerTurn) {
        const some = missing.slice(at, at + limits.wantsPerTurn);
        const fetched = await Promise.all(some.map((digest) => fetches.fetch(digest, callOptions)));
        absent.push(...some.filter((_, which) => fetched[which] === false));
      }
      return absent;
    },

    async open(ports) {
      // A node that is alone never loads what sharing needs.
      const [{ hostPortText, parseHostPort }, ...modules] = await Promise.all([
        import('../../mesh/net/host/addresses.ts'),
        import('./sharing.ts'),
        import('../../mesh/net/data/member-credentials.ts'),
        import('./peer-actions.ts'),
        import('./vouching.ts'),
        import('./result-finder.ts'),
        import('./seed-jobs.ts'),
        import('./seeding.ts'),
      ]);
      const [sharingModule, credentialsModule, actionsModule, vouchingModule, finderModule, jobsModule, seedingModule] =
        modules;
      const listen = parseHostPort(options.listen);
      if (!listen) throw new StatusError('INVALID_ARGUMENT', `"${options.listen}" is no address for the data plane`);
      const sharing = await sharingModule.shareBlobs({
        local: store.blobs,
        credentials: credentialsModule.memberCredentials(ports.identity),
        listen,
        addressesOf: (peer) => ports.dataAddressesOf(peer).flatMap((text) => parseHostPort(text) ?? []),
        report: (event: FetchEvent) => ports.deliver(event as Parameters<TierPorts['deliver']>[0]),
        seedBytesPerWindow: Math.floor(options.capacityBytes * limits.seedShare),
        calls: new Map([[finderModule.resultsCall, (_, body) => actions.answer(body)]]),
        onUnreported: (digest) => tell(ports, digest, true),
        onReceived: (peer, digest) => tally.onReceived(peer, digest.sizeBytes),
        onServed: ({ blobs, bytes }) => tally.onServed(blobs, bytes),
        onRefused: (address, reason) => onLog('info', `refused a connection from ${address}: ${reason}`),
        uploadLimits: () => uploadLimits,
      });
      const { client, fetches, server } = sharing;
      const actions: PeerActions = actionsModule.createPeerActions({
        local: store.actions,
        blobs: store.blobs,
        vouching: vouchingModule.createVouching(ports.identity, options.trust),
        finder: finderModule.createResultFinder({
          client,
          members: () => nearFirst(options.members(), ports.identity.peerId),
        }),
        fetches,
        onFound: (_, from) => tally.onResult(from),
        onRefused: (peer, reason) => onLog('warning', `${peer}: ${reason}`),
        onIncomplete: (reason) => onLog('info', reason),
      });
      const seeds = jobsModule.createSeedJobs({
        blobs: store.blobs,
        actions: store.actions,
        members: options.members,
        self: ports.identity.peerId,
        seed: (peer, digests, how) => seedingModule.seed({ client, local: store.blobs }, peer, digests, how),
      });
      opened = { blobs: sharing.blobs, actions, fetches, seeds };
      const stopWatching = store.watch((digest, isHeld) => {
        if (!isHeld || !sharing.isStoring(digest)) tell(ports, digest, isHeld);
      });
      return {
        dataAddress: hostPortText({ host: reachableHost(listen.host), port: server.port }),
        held: [...store.held()].map((digest) => [digestKey(digest), digest.sizeBytes] as const),
        capacityBytes: options.capacityBytes,
        perform: (work: SharingWork) => perform(work),
        async close() {
          stopWatching();
          opened = undefined;
          await seeds.close();
          await sharing.close();
        },
      };

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
          default:
          // The store evicts by itself, and tells; nobody here asks for the rest yet.
        }
      }
    },
  };
}

function tell(ports: TierPorts, digest: Digest, isHeld: boolean): void {
  const blob = digestKey(digest);
  if (isHeld) ports.deliver({ kind: 'stored', blob, sizeBytes: digest.sizeBytes });
  else ports.deliver({ kind: 'gone', blob });
}

/** Live ones; those of this machine's subnet, then of its site, before the others. */
function nearFirst(members: readonly Member[], self: string): string[] {
  const own = members.find(({ record }) => record.id === self)?.record.attributes;
  const distance = ({ record: { attributes } }: Member): number => {
    if (own?.subnet === attributes.subnet) return 0;
    return own?.site === attributes.site ? 1 : 2;
  };
  return members
    .filter(({ record, status }) => status === 'alive' && record.id !== self)
    .sort((a, b) => distance(a) - distance(b))
    .map(({ record }) => record.id);
}

/** An address that others can use: one that means all interfaces means nothing to them. */
function reachableHost(host: string): string {
  if (host !== '0.0.0.0' && host !== '::') return host;
  const all = Object.values(networkInterfaces()).flatMap((some) => some ?? []);
  const fitting = all.filter(({ internal, family }) => !internal && (host === '::' || family === 'IPv4'));
  return fitting[0]?.address ?? '127.0.0.1';
}

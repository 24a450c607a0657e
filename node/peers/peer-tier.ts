/**
 * The tier "peers" of a node: its store and action cache with the mesh behind them. While the node is alone they are the
 * local ones; when its mesh wakes, the driver opens the tier, which then shares until it is closed.
 */
import type { Member } from '../../mesh/core/membership/membership.ts';
import type { Digest } from '../../protos/digest.ts';
import { StatusError } from '../../protos/status.ts';
import type { Tier, TierPorts } from '../mesh/tier.ts';
import type { ActionResult } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import type { DataSource } from '../../mesh/net/data/server.ts';
import type { ActionCache, ActionKey } from '../storage/action-cache.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import type { Store } from '../storage/store.ts';
import type { FetchOptions } from './fetches.ts';
import * as limits from './limits.ts';
import type { Opened } from './open-tier.ts';
import type { PeerActions } from './peer-actions.ts';
import { switchedStore } from './peer-store.ts';
import type { Registers } from './registers.ts';
import type { SeedReport, SeedRequest } from './seed-jobs.ts';
import { createTally, type Tally } from './tally.ts';
import { apart, type SandboxClass, type Trust, withVoucher } from './vouching.ts';

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
  /** Nodes of the site that hold a result of this one, itself included; 1 when absent. */
  readonly replicas?: number;
  /** Further questions that members may ask of this node, by name. */
  readonly calls?: DataSource['calls'];
  /** Results that are not taken from anybody: an audit found them wrong. */
  readonly isDropped?: (key: ActionKey, result: ActionResult) => boolean;
  /** A result was found at a member. */
  readonly onFound?: (key: ActionKey, from: string) => void;
  /** The coordinators, while somebody speaks to them for this node. */
  readonly registers?: () => Registers | undefined;
  readonly onLog: (level: 'info' | 'warning', message: string) => void;
}

export interface PeerTier {
  readonly blobs: LocalBlobStore;
  /** The action cache for results that come in this way. */
  actions(sandboxClass: SandboxClass): ActionCache;
  /** The action cache without the mesh: what is here, as clients see it. */
  readonly known: ActionCache;
  /** Keeps a result whose word was checked or signed, and hands it on where copies are wanted. */
  keep: PeerActions['keep'];
  /** Gets from the mesh what is not here; resolves to what cannot be had, once the rest is stored. */
  bring(digests: readonly Digest[], options?: FetchOptions): Promise<Digest[]>;
  open(ports: TierPorts): Promise<Tier>;
  /** Asks a member one of its `calls`. Throws FAILED_PRECONDITION while this node is alone. */
  ask(peer: string, call: string, body: Uint8Array, options: { readonly signal: AbortSignal }): Promise<Uint8Array>;
  /** Seeds what the owner asks for. Throws FAILED_PRECONDITION while this node is alone. */
  seed(request: SeedRequest): Promise<SeedReport>;
  tally(): Tally;
}

export function createPeerTier(options: PeerTierOptions): PeerTier {
  const { store } = options;
  const tally = createTally();
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
    known: {
      ...store.actions,
      async get(key, callOptions) {
        const stored = await store.actions.get(key, callOptions);
        return stored && apart(stored).result;
      },
    },
    async keep(key, result, vouched) {
      if (opened) await opened.actions.keep(key, result, vouched);
      else await store.actions.put(key, withVoucher(result, vouched));
    },
    tally: () => tally.now(),

    async ask(peer, call, body, { signal }) {
      if (opened) return await opened.ask(peer, call, body, signal);
      throw new StatusError('FAILED_PRECONDITION', 'this node is in no mesh yet; see potluck join --help');
    },

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
      const { openTier } = await import('./open-tier.ts');
      const made = await openTier(options, ports, tally);
      opened = made;
      return {
        ...made.tier,
        async close() {
          if (opened === made) opened = undefined;
          await made.tier.close();
        },
      };
    },
  };
}

/**
 * Sharing with members, wired: what this node offers them, what it gets from them, and who plans that.
 *
 * The planner is a machine that somebody else drives: `perform` takes its effects, `report` gives it events.
 */
import { type DataClient, createDataClient } from '../../mesh/net/data/client.ts';
import type { Credentials } from '../../mesh/net/data/credentials.ts';
import type { PeerAddress } from '../../mesh/net/data/dial.ts';
import {
  type DataServer,
  type DataSource,
  serveData,
  type ServedReport,
  type UploadGate,
} from '../../mesh/net/data/server.ts';
import { createTlsIdentity } from '../../mesh/net/data/tls-identity.ts';
import type { UploadLimits } from '../../mesh/net/data/uploads.ts';
import { parseDigestKey } from '../../mesh/net/data/wire.ts';
import type { FetchEffect, FetchEvent } from '../../mesh/core/fetch/types.ts';
import type { Digest } from '../../protos/digest.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import { createFetches, type Fetches } from './fetches.ts';
import { peerStore } from './peer-store.ts';
import { takeSeeds } from './seeding.ts';
import { blobSource } from './source.ts';
import { createTransfers } from './transfers.ts';

/** What the planner orders. */
export type PlannedEffect = Exclude<FetchEffect, { kind: 'wakeAt' | 'locate' | 'note' | 'blame' }>;

export interface BlobSharingOptions {
  readonly local: LocalBlobStore;
  readonly credentials: Credentials;
  readonly listen: PeerAddress;
  /** Where a member serves its data plane, most likely first. */
  readonly addressesOf: (peer: string) => readonly PeerAddress[];
  readonly report: (event: FetchEvent) => void;
  /** A blob came that no report tells of. */
  readonly onUnreported?: (digest: Digest) => void;
  /** What members may hand to this node within a day. */
  readonly seedBytesPerWindow: number;
  /** Questions that members may ask, by name. */
  readonly calls?: DataSource['calls'];
  readonly uploadLimits?: () => UploadLimits;
  readonly gate?: UploadGate;
  /** A blob came from a member, verified and durable; of several that brought parts of it, one is named. */
  readonly onReceived?: (peer: string, digest: Digest) => void;
  readonly onServed?: (report: ServedReport) => void;
  readonly onRefused?: (address: string, reason: string) => void;
}

export interface BlobSharing {
  /** The local store with the mesh behind it. */
  readonly blobs: LocalBlobStore;
  readonly fetches: Fetches;
  readonly client: DataClient;
  readonly server: DataServer;
  /** Whether a report will tell that the blob is stored. */
  readonly isStoring: (digest: Digest) => boolean;
  perform(effect: PlannedEffect): void;
  close(): Promise<void>;
}

export async function shareBlobs(options: BlobSharingOptions): Promise<BlobSharing> {
  const {
    local,
    credentials,
    addressesOf,
    report,
    onUnreported,
    onReceived = () => {},
    uploadLimits,
    gate,
    onServed,
    onRefused,
  } = options;
  const identity = await createTlsIdentity();
  const client = createDataClient({ credentials, identity, addressesOf });
  const transfers = createTransfers({ client, local, report, ...(onUnreported && { onUnreported }) });
  const fetches = createFetches({ report });
  const seeds = takeSeeds({ local, bytesPerWindow: options.seedBytesPerWindow });
  const server = await serveData({
    ...options.listen,
    credentials,
    identity,
    source: {
      ...blobSource({ local, arriving: transfers.arriving }),
      put: seeds.put,
      calls: new Map([...seeds.calls, ...(options.calls ?? [])]),
    },
    ...(uploadLimits && { uploadLimits }),
    ...(gate && { gate }),
    ...(onServed && { onServed }),
    ...(onRefused && { onRefused }),
  }).catch((error: unknown) => {
    client.close();
    const { host, port } = options.listen;
    const reason = `cannot listen for members on ${host}:${port}: ${toStatusError(error).reason}; see --mesh-data-listen`;
    throw new StatusError('FAILED_PRECONDITION', reason, { cause: error });
  });

  return {
    blobs: peerStore({ local, fetches, arriving: transfers.arriving }),
    fetches,
    isStoring: transfers.isStoring,
    client,
    server,
    perform(effect) {
      switch (effect.kind) {
        case 'fetched':
          if (effect.from !== undefined) onReceived(effect.from, parseDigestKey(effect.blob));
          transfers.settled(effect.blob);
          fetches.perform(effect);
          return;
        case 'failed':
          transfers.settled(effect.blob);
          fetches.perform(effect);
          return;
        default:
          transfers.perform(effect);
      }
    },
    async close() {
      fetches.close();
      await server.close();
      client.close();
      await transfers.close();
    },
  };
}

/** What the owner of a node can ask of its mesh, and where: a Unix socket in the data directory that is the owner's alone. */
import { createHash } from 'node:crypto';
import { tmpdir, userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import type { OwnerRequest, OwnerStatus } from '../owner/requests.ts';
import type { SeedReport, SeedRequest } from '../peers/seed-jobs.ts';
import type { PeerLine } from './status.ts';
import { socketPathBytesMax } from './limits.ts';

export type AdminRequest =
  | { readonly do: 'invite'; readonly ttlMs: number; readonly roles: readonly string[] }
  | { readonly do: 'join'; readonly token: string; readonly name: string }
  | { readonly do: 'peers' }
  /** `peer` here and below: a peer id, the beginning of one, or a name. */
  | { readonly do: 'issuer add'; readonly peer: string }
  | { readonly do: 'issuer remove'; readonly peer: string }
  | { readonly do: 'revoke'; readonly peer: string }
  | { readonly do: 'leave'; readonly force: boolean }
  | { readonly do: 'drain'; readonly peer: string; readonly drained: boolean }
  | { readonly do: 'seed'; readonly request: SeedRequest }
  | OwnerRequest;

export interface Answers {
  readonly invite: {
    readonly token: string;
    readonly short: string;
    readonly notAfterMs: number;
    readonly addresses: string[];
  };
  readonly join: { readonly meshId: string; readonly issuer: string; readonly roles: readonly string[] };
  readonly peers: {
    readonly meshId: string | null;
    readonly peerId: string | null;
    readonly peers: readonly PeerLine[];
  };
  readonly 'issuer add': { readonly peerId: string };
  readonly 'issuer remove': { readonly peerId: string };
  readonly revoke: { readonly peerId: string };
  readonly leave: { readonly meshId: string };
  readonly drain: { readonly peerId: string; readonly drained: boolean };
  readonly seed: SeedReport;
  readonly pause: OwnerStatus;
  readonly resume: OwnerStatus;
  readonly lend: OwnerStatus;
  readonly owner: OwnerStatus;
}

/** Where a node that serves from this data directory takes such requests. A path too long for a socket has a stand-in. */
export function adminSocketPath(dataDir: string): string {
  const path = join(resolve(dataDir), 'mesh', 'admin.sock');
  if (Buffer.byteLength(path) <= socketPathBytesMax) return path;
  const name = createHash('sha256').update(resolve(dataDir)).digest('hex').slice(0, 16);
  return join(tmpdir(), `potluck-${userInfo().uid}-${name}`, 'admin.sock');
}

/** The file that makes a node a member: read once, replaced durably at every change. */
import { join } from 'node:path';
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { type MembershipState, MembershipStateSchema } from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import { StatusError } from '../../../protos/status.ts';
import { parse } from './certificate.ts';
import { readIfThere, removeDurably, replaceDurably } from './durable-file.ts';

/** Where the parts of an identity are, below the data directory. */
export function identityPaths(dataDir: string): Record<'dir' | 'key' | 'administratorKey' | 'membership', string> {
  const dir = join(dataDir, 'mesh');
  return {
    dir,
    key: join(dir, 'node.key'),
    administratorKey: join(dir, 'administrator.key'),
    membership: join(dir, 'membership'),
  };
}

export interface StateFile {
  readonly state: MembershipState;
  /** Changes the state; durable when it returns. */
  update(change: (state: MembershipState) => void): void;
}

/** The state in a data directory, or `undefined` when this node has never been in any mesh. */
export function readState(dataDir: string): MembershipState | undefined {
  const { membership } = identityPaths(dataDir);
  const bytes = readIfThere(membership);
  if (!bytes) return undefined;
  const state = parse(MembershipStateSchema, bytes);
  if (state?.certificate) return state;
  throw new StatusError(
    'DATA_LOSS',
    `${membership} is damaged; move it away and join the mesh again with a new invitation`,
  );
}

/** Whether anybody else is, or is about to be, in the mesh of this data directory. A mesh of one can be given up. */
export function isShared(dataDir: string, nowMs: number): boolean {
  const state = readState(dataDir);
  if (!state) return false;
  const founder = state.delegations.length > 0;
  const invited = state.invitations.some(({ burnt, notAfterMs }) => !burnt && Number(notAfterMs) > nowMs);
  return !founder || state.issuedTo.length > 0 || invited;
}

/** Begins a membership, in place of any before it. */
export function writeState(dataDir: string, init: MessageInitShape<typeof MembershipStateSchema>): void {
  replaceDurably(
    identityPaths(dataDir).membership,
    toBinary(MembershipStateSchema, create(MembershipStateSchema, init)),
  );
}

export function removeState(dataDir: string): void {
  removeDurably(identityPaths(dataDir).membership);
}

export function openState(dataDir: string): StateFile | undefined {
  let bytes = readIfThere(identityPaths(dataDir).membership);
  let state = bytes && readState(dataDir);
  if (!state) return undefined;
  return {
    get state() {
      return state as MembershipState;
    },
    update(change) {
      const next = parse(MembershipStateSchema, bytes as Uint8Array) as MembershipState;
      change(next);
      const nextBytes = toBinary(MembershipStateSchema, next);
      replaceDurably(identityPaths(dataDir).membership, nextBytes);
      // Only what is on disk counts.
      [state, bytes] = [next, nextBytes];
    },
  };
}

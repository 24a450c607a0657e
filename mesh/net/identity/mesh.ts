/** What a mesh is: its description, and the id that is a hash of it. */
import { createHash, randomBytes } from 'node:crypto';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { MeshDescriptionSchema } from '../../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import { StatusError } from '../../../protos/status.ts';
import type { NodeId } from '../../core/ids.ts';
import * as limits from './limits.ts';

export interface Mesh {
  /** 32 hexadecimal digits; names the administrator's key too, since it is a hash over it. */
  readonly id: string;
  /** 32 bytes. */
  readonly administratorKey: Uint8Array;
  /** 32 bytes, the same in every member and unknown to strangers. */
  readonly salt: Uint8Array;
  readonly shards: number;
  /** Of the node that made the mesh; issuers cannot revoke it. */
  readonly founder: NodeId;
  /** The description as it is stored and sent. */
  readonly bytes: Uint8Array;
}

/** Describes a new mesh. */
export function makeMesh(administratorKey: Uint8Array, founder: NodeId, nowMs: number): Mesh {
  return readMesh(
    toBinary(
      MeshDescriptionSchema,
      create(MeshDescriptionSchema, {
        administratorKey,
        salt: randomBytes(32),
        shards: limits.shards,
        madeMs: BigInt(nowMs),
        founder,
      }),
    ),
  );
}

/** Throws DATA_LOSS for bytes that describe no mesh. */
export function readMesh(bytes: Uint8Array): Mesh {
  const id = createHash('sha256').update('potluck/mesh/1\0').update(bytes).digest('hex').slice(0, 32);
  const { administratorKey, salt, shards, founder } = fromBinary(MeshDescriptionSchema, bytes);
  if (administratorKey.byteLength !== 32 || salt.byteLength !== 32 || shards < 1 || shards > 65_536) {
    throw new StatusError('DATA_LOSS', 'the description of the mesh is damaged');
  }
  return { id, administratorKey, salt, shards, founder, bytes };
}

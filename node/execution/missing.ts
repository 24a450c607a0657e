/** The one error that tells a client what to upload again. */
import { create } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import { type Digest, digestPath } from '../../protos/digest.ts';
import { PreconditionFailureSchema } from '../../protos/gen/google/rpc/error_details_pb.ts';
import { StatusError } from '../../protos/status.ts';
import { missingNamedMax } from './limits.ts';

/**
 * FAILED_PRECONDITION with one MISSING violation for each blob, the form clients react to by uploading.
 *
 * @see REAPI v2.12, Execution.Execute: subjects are `blobs/{function/}{hash}/{size}` without the instance name
 */
export function missingBlobs(missing: readonly Digest[], what: string): StatusError {
  const violations = missing.slice(0, missingNamedMax).map((digest) => ({
    type: 'MISSING',
    subject: `blobs/${digestPath(digest)}`,
  }));
  const first = missing[0] ? digestPath(missing[0]) : '';
  const count = missing.length === 1 ? `blob ${first} is` : `${missing.length} blobs (first ${first}) are`;
  return new StatusError('FAILED_PRECONDITION', `${what}: ${count} missing; upload and execute again`, {
    details: [anyPack(PreconditionFailureSchema, create(PreconditionFailureSchema, { violations }))],
  });
}

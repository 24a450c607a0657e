/** The one place where StatusError and the wire forms of a status meet: google.rpc.Status, numeric codes, the details trailer. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { StatusSchema, type Status as WireStatus } from '../../protos/gen/google/rpc/status_pb.ts';
import { codeName, codes, StatusError, toStatusError } from '../../protos/status.ts';
import { limits } from './limits.ts';

/** google.rpc.Status of an error, as batch responses and ExecuteResponse carry it; `undefined` means OK. */
export function toWireStatus(error: unknown): WireStatus {
  if (error === undefined) return create(StatusSchema);
  const status = toStatusError(error);
  return create(StatusSchema, {
    code: codes[status.code],
    message: status.reason,
    details: [...status.details],
  });
}

/** The content of the `grpc-status-details-bin` trailer; `undefined` when the error has no details, or too many for it. */
export function encodeStatusDetails(error: StatusError): Uint8Array | undefined {
  if (error.details.length === 0) return undefined;
  const bytes = toBinary(StatusSchema, toWireStatus(error));
  return bytes.byteLength <= limits.statusDetailsBytesMax ? bytes : undefined;
}

/** Whether the status of a call can carry the details; what cannot has to be told in a message. */
export function detailsFit(error: StatusError): boolean {
  return error.details.length === 0 || encodeStatusDetails(error) !== undefined;
}

/** The error behind a failed call. Details that do not parse are dropped: the code and the text stand by themselves. */
export function fromCallStatus(code: number, reason: string, details: Uint8Array | undefined): StatusError {
  if (details) {
    try {
      return new StatusError(codeName(code), reason, { details: fromBinary(StatusSchema, details).details });
    } catch {}
  }
  return new StatusError(codeName(code), reason);
}

/** Headers of gRPC: binary values, time-outs, percent-encoded status texts, the RequestMetadata of REAPI. */
import { fromBinary } from '@bufbuild/protobuf';
import {
  type RequestMetadata,
  RequestMetadataSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { limits } from './limits.ts';

export const requestMetadataHeader = 'build.bazel.remote.execution.v2.requestmetadata-bin';
export const resourceNameHeader = 'build.bazel.remote.execution.v2.resource-name';

const base64 = /^[A-Za-z0-9+/_-]*={0,2}$/;

/** Several values may share one header, separated by commas: the first counts. */
export function decodeBinaryHeader(value: string): Uint8Array | undefined {
  const comma = value.indexOf(',');
  const first = (comma === -1 ? value : value.slice(0, comma)).trim();
  return base64.test(first) ? Buffer.from(first, 'base64') : undefined;
}

/** Binary values are sent without padding. */
export function encodeBinaryHeader(value: Uint8Array): string {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64').replace(/=+$/, '');
}

/** What a client tells of itself; anything unreadable counts as absent, because it must never fail a call. */
export function decodeRequestMetadata(bytes: Uint8Array | undefined): RequestMetadata | undefined {
  if (!bytes) return undefined;
  try {
    return fromBinary(RequestMetadataSchema, bytes);
  } catch {
    return undefined;
  }
}

const unitMs: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** `grpc-timeout` in ms; `null` when it is malformed. */
export function parseTimeoutMs(value: string): number | null {
  const match = /^(\d{1,8})([HMSmun])$/.exec(value);
  if (!match) return null;
  return Number(match[1]) * (unitMs[match[2] as string] as number);
}

const unsafe = /[^\x20-\x24\x26-\x7e]/u;

/** Percent-encoded, and cut when it is too long for a header: texts quote what clients sent. */
export function encodeStatusText(text: string): string {
  const { statusTextBytesMax } = limits;
  const encoded = text.length <= statusTextBytesMax ? percentEncode(text) : undefined;
  if (encoded !== undefined && encoded.length <= statusTextBytesMax) return encoded;
  return percentEncode(`${text.slice(0, statusTextBytesMax / encodedCharBytesMax - 1)}…`);
}

/** Three bytes of UTF-8, each as three characters. */
const encodedCharBytesMax = 9;

/** Encodes every byte outside printable ASCII, and the percent sign. */
function percentEncode(text: string): string {
  if (!unsafe.test(text)) return text;
  let encoded = '';
  for (const byte of Buffer.from(text, 'utf8')) {
    encoded +=
      byte < 0x20 || byte > 0x7e || byte === 0x25
        ? `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
        : String.fromCharCode(byte);
  }
  return encoded;
}

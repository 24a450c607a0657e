/**
 * Large WriteRequests without a copy.
 *
 * A message that arrived in parts would have to be joined to be decoded, and fresh memory for a megabyte costs about as
 * much as half the hashing of it. Its data is passed on part by part instead, as the several requests it could have been.
 *
 * @see google.bytestream.WriteRequest; the protobuf encoding
 */
import { create } from '@bufbuild/protobuf';
import { type WriteRequest, WriteRequestSchema } from '../../protos/gen/google/bytestream/bytestream_pb.ts';
import { limits } from './limits.ts';

const tags = { resourceName: 0x0a, writeOffset: 0x10, finishWrite: 0x18, data: 0x52 };

/**
 * Handles what every encoder writes: the other fields first, in the first part, then the data to the end. Returns
 * `undefined` for anything else, which the ordinary decoder then judges.
 */
export function splitWriteRequest(parts: readonly Uint8Array[]): WriteRequest[] | undefined {
  const first = parts[0] as Uint8Array;
  let position = 0;
  /** A varint of up to 2^53; NaN when it is longer or goes beyond the first part. */
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; scale <= 2 ** 49; scale *= 128) {
      const byte = first[position];
      if (byte === undefined) return Number.NaN;
      position += 1;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    return Number.NaN;
  };

  let resourceName = '';
  let offset = 0;
  let finishWrite = false;
  for (;;) {
    const tag = first[position];
    position += 1;
    const value = varint();
    if (Number.isNaN(value)) return undefined;
    if (tag === tags.writeOffset) offset = value;
    else if (tag === tags.finishWrite) finishWrite = value !== 0;
    else if (tag === tags.resourceName && position + value < first.byteLength) {
      resourceName = Buffer.from(first.buffer, first.byteOffset + position, value).toString('utf8');
      position += value;
    } else if (tag === tags.data) {
      let rest = first.byteLength - position;
      for (let index = 1; index < parts.length; index += 1) rest += (parts[index] as Uint8Array).byteLength;
      // A first request up to that size may be a whole small blob, which is stored in one piece.
      if (rest !== value || (resourceName !== '' && value <= limits.smallBlobBytes)) return undefined;
      break;
    } else return undefined;
  }
  const requests = parts.map((part, index) => {
    const data = index === 0 ? part.subarray(position) : part;
    const request = create(WriteRequestSchema, { writeOffset: BigInt(offset), data });
    offset += data.byteLength;
    return request;
  });
  (requests[0] as WriteRequest).resourceName = resourceName;
  (requests.at(-1) as WriteRequest).finishWrite = finishWrite;
  return requests;
}

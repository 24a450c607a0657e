import { create, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { limits } from '../../../../node/reapi/limits.ts';
import { splitWriteRequest } from '../../../../node/reapi/write-request.ts';
import { WriteRequestSchema } from '../../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { noise } from '../../../integration/reapi/harness.ts';

const bytes = noise(400_000);
const least = limits.smallBlobBytes + 1;
const request = fc
  .record({
    resourceName: fc.string({ unit: 'grapheme', maxLength: 30 }),
    writeOffset: fc.bigInt(0n, 2n ** 52n),
    finishWrite: fc.boolean(),
    data: fc.integer({ min: least, max: bytes.byteLength }).map((length) => bytes.subarray(0, length)),
  })
  .map((init) => create(WriteRequestSchema, init));

/** `bytes` in parts that end at `cuts`; small cuts fall into the fields before the data. */
function cut(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const at = [...new Set([0, ...cuts.map((cut) => cut % bytes.byteLength), bytes.byteLength])].sort((a, b) => a - b);
  return at.slice(1).map((end, index) => bytes.subarray(at[index], end));
}

test('a divided request says the same as the whole, or is left to the ordinary decoder', () => {
  let split = 0;
  fc.assert(
    fc.property(request, fc.array(fc.nat(least), { minLength: 1, maxLength: 5 }), (request, cuts) => {
      const parts = splitWriteRequest(cut(toBinary(WriteRequestSchema, request), cuts));
      if (!parts) return;
      split += 1;
      expect(Buffer.concat(parts.map(({ data }) => data)).equals(request.data)).toBe(true);
      let offset = request.writeOffset;
      for (const [index, part] of parts.entries()) {
        expect(part.resourceName).toBe(index === 0 ? request.resourceName : '');
        expect(part.writeOffset).toBe(offset);
        expect(part.finishWrite).toBe(request.finishWrite && index === parts.length - 1);
        offset += BigInt(part.data.byteLength);
      }
    }),
    { numRuns: 100 },
  );
  expect(split).toBeGreaterThan(30);
});

test('what is encoded in another order, or wrongly, is left to the ordinary decoder', () => {
  const data = [0x52, 0x81, 0x80, 0x10, ...bytes.subarray(0, least)];
  const finish = [0x18, 1];
  const unknown = [0x60, 1];
  const negative = [0x10, ...Array.from({ length: 9 }, () => 0xff), 1];
  const small = [0x0a, 1, 0x61, 0x52, 4, 1, 2, 3, 4];
  for (const all of [[...data, ...finish], [...unknown, ...data], [...negative, ...data], data.slice(0, -1), small]) {
    expect(splitWriteRequest(cut(Uint8Array.from(all), [all.length - 1]))).toBeUndefined();
  }
  const parts = splitWriteRequest(cut(Uint8Array.from([...finish, ...data]), [7]));
  expect(parts?.map(({ data, finishWrite }) => [data.byteLength, finishWrite])).toEqual([
    [1, false],
    [least - 1, true],
  ]);
});

import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { createFrameReader } from '../../../../../mesh/net/control/frames.ts';

function framed(frame: Uint8Array): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt32BE(frame.byteLength);
  return Buffer.concat([header, frame]);
}

test('frames come out as they went in, wherever the stream is cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 10 }),
      fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }),
      (frames, cuts) => {
        const stream = Buffer.concat(frames.map(framed));
        const reader = createFrameReader(100);
        const out: Uint8Array[] = [];
        for (let at = 0, cut = 0; at < stream.byteLength; cut++) {
          const length = cuts[cut % cuts.length] as number;
          for (const frame of reader.push(stream.subarray(at, at + length))) out.push(frame);
          at += length;
        }
        expect(out.map((frame) => [...frame])).toEqual(frames.map((frame) => [...frame]));
      },
    ),
  );
});

test('a frame too long is refused at its header, before any of it is kept', () => {
  const reader = createFrameReader(100);
  expect(() => [...reader.push(Buffer.from([0, 0, 0, 101]))]).toThrow(/a frame of 101 bytes/);
  expect(() => [...reader.push(Buffer.from([1]))]).toThrow(/a frame of 101 bytes/);
});

test('a frame that comes byte by byte is put together once', () => {
  const size = 1024 * 1024;
  const stream = framed(new Uint8Array(size));
  const reader = createFrameReader(size);
  let allocatedBytes = 0;
  const count = (bytes: number | undefined): void => void (allocatedBytes += bytes ?? 0);
  const alloc = vi.spyOn(Buffer, 'allocUnsafe');
  const concat = vi.spyOn(Buffer, 'concat');
  try {
    let frames = 0;
    for (let at = 0; at < stream.byteLength; at++) frames += [...reader.push(stream.subarray(at, at + 1))].length;
    expect(frames).toBe(1);
  } finally {
    for (const [bytes] of alloc.mock.calls) count(bytes);
    for (const { value } of concat.mock.results) count((value as Buffer).byteLength);
    vi.restoreAllMocks();
  }
  expect(allocatedBytes).toBeLessThan(2 * size);
});

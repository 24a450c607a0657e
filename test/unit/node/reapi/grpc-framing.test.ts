import { randomBytes } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createFrameDecoder, decompressMessage, frameMessage, joinParts } from '../../../../node/reapi/grpc-framing.ts';
import {
  decodeBinaryHeader,
  encodeBinaryHeader,
  encodeStatusText,
  parseTimeoutMs,
} from '../../../../node/reapi/grpc-metadata.ts';
import { limits } from '../../../../node/reapi/limits.ts';

/** `bytes` cut at arbitrary places. */
function cut(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [0, ...cuts.map((cut) => cut % (bytes.byteLength + 1)).toSorted((a, b) => a - b), bytes.byteLength];
  return at.slice(1).map((end, index) => bytes.subarray(at[index], end));
}

describe('frames', () => {
  test('that come in tiny pieces do not hold on to many buffers', () => {
    const bytes = randomBytes(100_000);
    const decoder = createFrameDecoder(bytes.byteLength);
    const framed = Buffer.concat(frameMessage([bytes]));
    const messages = Array.from(framed, (_, at) => decoder.push(framed.subarray(at, at + 1))).flat();
    expect(messages).toHaveLength(1);
    expect(joinParts(messages[0]?.parts ?? [])).toEqual(bytes);
    expect(messages[0]?.parts.length).toBeLessThan(10);
  });

  test('survive any cutting of the stream', () => {
    const messages = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 });
    fc.assert(
      fc.property(messages, fc.array(fc.nat(), { maxLength: 12 }), (messages, cuts) => {
        const stream = Buffer.concat(messages.flatMap((message) => frameMessage([message])));
        const decoder = createFrameDecoder(1000);
        const decoded = cut(stream, cuts).flatMap((chunk) => decoder.push(chunk));
        expect(decoded.map(({ parts }) => Buffer.concat(parts))).toEqual(
          messages.map((message) => Buffer.from(message)),
        );
        expect(decoder.heldBytes).toBe(0);
      }),
    );
  });

  test('are the same however a message is divided into parts, and large parts are not copied', () => {
    const large = Buffer.alloc(200_000, 7);
    const buffers = frameMessage([Buffer.from('ab'), large, Buffer.from('cd')]);
    expect(buffers[1]).toBe(large);
    const decoder = createFrameDecoder(1_000_000);
    const [message] = decoder.push(Buffer.concat(buffers));
    expect(Buffer.concat([Buffer.from('ab'), large, Buffer.from('cd')]).equals(joinParts(message?.parts ?? []))).toBe(
      true,
    );
  });

  test('at the limit pass; one byte more is refused before it has arrived', () => {
    expect(createFrameDecoder(4).push(Buffer.concat(frameMessage([Buffer.alloc(4)])))).toHaveLength(1);
    expect(() => createFrameDecoder(4).push(Buffer.from([0, 0, 0, 0, 5]))).toThrow(/RESOURCE_EXHAUSTED/);
  });

  test('inflate within bounds', async () => {
    const packed = gzipSync(Buffer.alloc(10_000));
    expect(await decompressMessage(packed, 'gzip', 10_000)).toHaveLength(10_000);
    await expect(decompressMessage(packed, 'gzip', 9_999)).rejects.toThrow(/RESOURCE_EXHAUSTED/);
    await expect(decompressMessage(Buffer.from('junk'), 'gzip', 10)).rejects.toThrow(/INVALID_ARGUMENT/);
    await expect(decompressMessage(packed, 'br', 10)).rejects.toThrow(/UNIMPLEMENTED/);
  });
});

describe('headers', () => {
  test('carry bytes in base64 without padding', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20 }), (bytes) => {
        const encoded = encodeBinaryHeader(bytes);
        expect(encoded).not.toContain('=');
        expect(decodeBinaryHeader(encoded)).toEqual(Buffer.from(bytes));
      }),
    );
    expect(decodeBinaryHeader('YQ==,Yg==')).toEqual(Buffer.from('a'));
    expect(decodeBinaryHeader('!!')).toBeUndefined();
  });

  test('carry texts of any script in printable ASCII', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const encoded = encodeStatusText(text);
        expect(encoded).toMatch(/^[\x20-\x7e]*$/);
        expect(decodeURIComponent(encoded)).toBe(text);
      }),
    );
  });

  test.each(['x'.repeat(16_000_000), '語'.repeat(2_000), '🙂'.repeat(400)])('cut texts that fit no header', (text) => {
    const encoded = encodeStatusText(text);
    expect(encoded.length).toBeLessThanOrEqual(limits.statusTextBytesMax);
    expect(decodeURIComponent(encoded)).toMatch(/^(x+|語+|(🙂)+)\ufffd?…$/u);
  });

  test.each([
    ['1H', 3_600_000],
    ['20S', 20_000],
    ['5m', 5],
    ['500u', 0.5],
    ['123456789m', null],
    ['-1S', null],
    ['', null],
  ])('time-out "%s" is %s ms', (text, ms) => {
    expect(parseTimeoutMs(text)).toBe(ms);
  });
});

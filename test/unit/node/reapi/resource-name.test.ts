import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  formatReadName,
  formatWriteName,
  isInstanceName,
  parseReadName,
  parseWriteName,
} from '../../../../node/reapi/resource-name.ts';
import { digestFunctionNames, digestFunctions } from '../../../../protos/digest.ts';
import { StatusError } from '../../../../protos/status.ts';

const hash = 'a'.repeat(64);
const uuid = '4b3f1c1e-96b7-4a2e-8d55-0ce5bd6c0b1a';

const digest = fc
  .record({ fn: fc.constantFrom(...digestFunctionNames), size: fc.nat(), nibbles: fc.infiniteStream(fc.nat(15)) })
  .map(({ fn, size, nibbles }) => {
    const digits = [...nibbles.take(digestFunctions[fn].hexLength)].map((nibble) => nibble.toString(16));
    return { fn, hash: digits.join(''), sizeBytes: size };
  });
const segment = fc.stringMatching(/^[a-zA-Z0-9_.:@ ~-]{1,12}$/).filter(isInstanceName);
const instance = fc.array(segment, { maxLength: 4 }).map((segments) => segments.join('/'));
const compressor = fc.constantFrom('identity' as const, 'zstd' as const);
/** Metadata may hold any words, reserved ones too. */
const metadata = fc.oneof(
  fc.constant(''),
  fc
    .array(fc.oneof(segment, fc.constantFrom('blobs', 'uploads', '')), { maxLength: 3 })
    .map((all) => `/${all.join('/')}`),
);

describe('names', () => {
  test('are parsed to what they were made of, whatever metadata follows', () => {
    fc.assert(
      fc.property(instance, compressor, digest, metadata, fc.uuid(), (instance, compressor, digest, metadata, uuid) => {
        const read = { instance, compressor, digest };
        expect(parseReadName(formatReadName(read) + metadata)).toEqual(read);
        const write = { ...read, uuid };
        expect(parseWriteName(formatWriteName(write) + metadata)).toEqual(write);
      }),
    );
  });

  test('of any other text are refused with INVALID_ARGUMENT or are no blob names', () => {
    const words = fc.constantFrom('blobs', 'uploads', 'compressed-blobs', 'zstd', 'blake3', hash, '5', '', uuid, '..');
    const text = fc.array(fc.oneof(words, fc.string({ maxLength: 6 })), { maxLength: 8 }).map((all) => all.join('/'));
    fc.assert(
      fc.property(text, (name) => {
        for (const parse of [parseReadName, parseWriteName]) {
          try {
            const parsed = parse(name);
            if (parsed) expect(isInstanceName(parsed.instance)).toBe(true);
          } catch (error) {
            expect(error).toBeInstanceOf(StatusError);
            expect((error as StatusError).code).toBe('INVALID_ARGUMENT');
          }
        }
      }),
    );
  });

  test('tolerate the name of an old function', () => {
    expect(parseReadName(`blobs/sha256/${hash}/5`)?.digest.fn).toBe('sha256');
  });

  test.each([
    '',
    `/blobs/${hash}/5`,
    `a//blobs/${hash}/5`,
    `blobs/${hash}`,
    `blobs/${hash}/-5`,
    `blobs/${hash}/+5`,
    `blobs/${hash}/05`,
    `blobs/${hash}/9223372036854775808`,
    `blobs/${hash.toUpperCase()}/5`,
    `blobs/${hash.slice(1)}/5`,
    `blobs/../${hash}/5`,
    `blobs/sha256tree/${hash}/5`,
    `compressed-blobs/identity/${hash}/5`,
    `compressed-blobs/brotli/${hash}/5`,
    `compressed-blobs/${hash}/5`,
    `uploads/${uuid}/blobs/${hash}/5`,
    `actions/blobs/${hash}/5`,
  ])('for reading cannot be %s', (name) => {
    expect(() => parseReadName(name)).toThrow(/INVALID_ARGUMENT/);
  });

  test.each([
    `blobs/${hash}/5`,
    `uploads/blobs/${hash}/5`,
    `uploads//blobs/${hash}/5`,
    `uploads/${uuid}/${hash}/5`,
    `a/blobs/b/uploads/${uuid}/blobs/${hash}/5`,
    `/uploads/${uuid}/blobs/${hash}/5`,
    `uploads/${uuid}`,
    '',
  ])('for writing cannot be %s', (name) => {
    expect(() => parseWriteName(name)).toThrow(/INVALID_ARGUMENT/);
  });

  test('without a reserved word are no blob names', () => {
    expect(parseReadName('logs/of/something')).toBeUndefined();
  });
});

import { describe, expect, test } from 'vitest';
import { parseRange } from '../../../../node/http/byte-range.ts';
import { parseCachePath } from '../../../../node/http/cache-path.ts';
import { createPageGuard } from '../../../../node/http/guard.ts';
import { parseListenAddress } from '../../../../node/reapi/listen-address.ts';

const sha256 = 'a'.repeat(64);

describe('paths of the HTTP cache', () => {
  test.each([
    [`/cas/${sha256}`, { kind: 'cas', instance: '', fn: 'sha256', hash: sha256 }],
    [`/ac/${sha256}`, { kind: 'ac', instance: '', fn: 'sha256', hash: sha256 }],
    [`/team/linux/ac/${sha256}`, { kind: 'ac', instance: 'team/linux', fn: 'sha256', hash: sha256 }],
    [`/with%20space/cas/${sha256}`, { kind: 'cas', instance: 'with space', fn: 'sha256', hash: sha256 }],
    [`/cas/${'b'.repeat(40)}`, { kind: 'cas', instance: '', fn: 'sha1', hash: 'b'.repeat(40) }],
    [`/cas/blake3/${sha256}`, { kind: 'cas', instance: '', fn: 'blake3', hash: sha256 }],
  ])('%s', (path, expected) => {
    expect(parseCachePath(path)).toEqual(expected);
  });

  test.each(['/', '/status', '/cas/', `/cas/${sha256}/more`, `/blobs/${sha256}`])('%s is none', (path) => {
    expect(parseCachePath(path)).toBeUndefined();
  });

  test.each([`/cas/${sha256.toUpperCase()}`, '/cas/abc', '/cas/..%2f..%2fetc', '/ac/blake3/abc', `/%zz/cas/${sha256}`])(
    '%s is refused',
    (path) => {
      expect(() => parseCachePath(path)).toThrow(/^INVALID_ARGUMENT/);
    },
  );
});

describe('ranges', () => {
  test.each([
    [undefined, undefined],
    ['bytes=0-3', { offset: 0, length: 4 }],
    ['bytes=4-', { offset: 4, length: 6 }],
    ['bytes=8-99', { offset: 8, length: 2 }],
    ['bytes=-3', { offset: 7, length: 3 }],
    ['bytes=-99', { offset: 0, length: 10 }],
    ['bytes=10-', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=5-2', undefined],
    ['bytes=0-1,3-4', undefined],
    ['items=0-1', undefined],
    ['bytes=-', undefined],
  ])('%s of ten bytes', (header, expected) => {
    expect(parseRange(header, 10)).toEqual(expected);
  });
});

describe('web pages', () => {
  const guard = createPageGuard(parseListenAddress('127.0.0.1:8981'));

  test.each([
    [{ host: '127.0.0.1:8981' }],
    [{ host: 'localhost:8981' }],
    [{ host: '[::1]:8981' }],
    [{}],
    [{ host: 'localhost:8981', 'sec-fetch-site': 'none' }],
    [{ host: 'localhost:8981', origin: 'http://localhost:8981', 'sec-fetch-site': 'same-origin' }],
  ])('%o passes', (headers) => {
    expect(() => guard(headers)).not.toThrow();
  });

  test.each([
    [{ host: 'evil.example:8981' }],
    [{ host: '127.0.0.1.evil.example' }],
    [{ host: 'localhost:8981', origin: 'http://evil.example' }],
    [{ host: 'localhost:8981', origin: 'null' }],
    [{ host: 'localhost:8981', origin: 'http://localhost:3000' }],
    [{ host: 'localhost:8981', 'sec-fetch-site': 'cross-site' }],
    [{ host: 'localhost:8981', 'sec-fetch-site': 'same-site' }],
  ])('%o is kept out', (headers) => {
    expect(() => guard(headers)).toThrow(/^PERMISSION_DENIED/);
  });
});

/** What others can make a node remember about who is where. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type PeerDiscovery, peerDiscoverySymbol } from '@libp2p/interface';
import { afterAll, expect, test } from 'vitest';
import { openAddressBook } from '../../../../../mesh/net/host/address-book.ts';
import { parseHostPort } from '../../../../../mesh/net/host/addresses.ts';
import { boundedDiscovery, keepingNoRecords } from '../../../../../mesh/net/host/bounded.ts';
import * as limits from '../../../../../mesh/net/host/limits.ts';

const dir = mkdtempSync(join(tmpdir(), 'potluck-bounds-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test('members that were reached are not pushed out by names that were only heard of', () => {
  const book = openAddressBook(dir);
  for (let i = 0; i < 10; i++) book.remember(`member ${i}`, [`10.0.0.${i}:1`], 1_000);
  for (let i = 0; i < 3 * limits.rememberedMax; i++) book.remember(`ghost ${i}`, ['10.9.9.9:9'], 0);
  const peers = [...book.peers()].map(([peer]) => peer);
  expect(peers).toHaveLength(limits.rememberedMax);
  expect(peers.filter((peer) => peer.startsWith('member'))).toHaveLength(10);
  // Those that are reached make room among themselves, oldest first.
  for (let i = 10; i < 10 + limits.rememberedMax; i++) book.remember(`member ${i}`, ['10.0.0.1:1'], 1_000);
  expect(book.get('member 9')).toBeUndefined();
  expect([...book.peers()].every(([peer]) => peer.startsWith('member'))).toBe(true);
});

test('only addresses are remembered', () => {
  const book = openAddressBook(dir);
  const nonsense = ['\u001b[2J:1', 'a'.repeat(300) + ':1', `${'1'.repeat(1_000_000)}`, 'a/b:1', 'h:99999', 'h:1\n'];
  for (const text of nonsense) expect(parseHostPort(text), text.slice(0, 20)).toBeUndefined();
  book.remember('liar', nonsense, 0);
  expect(book.get('liar')).toBeUndefined();
  book.remember('honest', ['build-1.office.example:8982', '[fe80::1]:8982', '10.0.0.1:8982', ...nonsense], 0);
  expect(book.get('honest')?.addresses).toEqual(['build-1.office.example:8982', '[fe80::1]:8982', '10.0.0.1:8982']);
});

test('a flood of finds on the local network is passed on up to a rate', () => {
  class Loud extends EventTarget {
    readonly [peerDiscoverySymbol] = this;
    find(): void {
      this.dispatchEvent(new CustomEvent('peer', { detail: {} }));
    }
  }
  const loud = new Loud();
  boundedDiscovery(() => loud as unknown as PeerDiscovery)({});
  let heard = 0;
  loud.addEventListener('peer', () => (heard += 1));
  for (let i = 0; i < 10 * limits.discoveriesPerMinute; i++) loud.find();
  expect(heard).toBe(limits.discoveriesPerMinute);
});

test('records that members want kept are refused', async () => {
  const components = keepingNoRecords({ datastore: new Map(), other: 1 }) as unknown as {
    datastore: { put(): Promise<void>; get(): Promise<void>; query(): AsyncIterable<unknown> };
    other: number;
  };
  await expect(components.datastore.put()).rejects.toThrow(/no records/);
  await expect(components.datastore.get()).rejects.toMatchObject({ name: 'NotFoundError' });
  expect(components.other).toBe(1);
});

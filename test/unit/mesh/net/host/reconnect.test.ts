import { afterEach, expect, test } from 'vitest';
import type { Remembered } from '../../../../../mesh/net/host/address-book.ts';
import * as limits from '../../../../../mesh/net/host/limits.ts';
import { createReconnect, type Reconnect } from '../../../../../mesh/net/host/reconnect.ts';
import { until } from '../../../../support/until.ts';

let reconnect: Reconnect | undefined;
afterEach(() => reconnect?.close());

/** A node that remembers some members, none of which answers where it was last. */
function startOver(remembered: readonly string[]) {
  const dialled: string[] = [];
  const clock = { nowMs: 0 };
  const entries = new Map<string, Remembered>(
    remembered.map((peer) => [peer, { addresses: [`old-${peer}:1`], seenMs: 1 }]),
  );
  const never = (signal: AbortSignal): Promise<never> =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  const started = createReconnect({
    host: {
      connected: () => [],
      isConnected: () => false,
      learn: async () => {},
      async connect(peer, { signal }) {
        dialled.push(peer);
        await never(signal);
      },
      async connectTo(address) {
        dialled.push(address);
        throw new Error('nobody is there yet');
      },
    },
    book: { peers: () => entries.entries() },
    self: 'self',
    bootstrap: [],
    isRevoked: (peer) => peer === 'revoked',
    nowMs: () => clock.nowMs,
    random: () => 1,
  });
  reconnect = started;
  return { dialled, clock, heardOf: (peer: string, at: readonly string[]) => started.heardOf(peer, at) };
}

test('who is heard of at a new address is dialled there at once, while it is still looked for at the old one', async () => {
  const { dialled, heardOf } = startOver(['anna']);
  await until(() => dialled.includes('anna'));
  heardOf('anna', ['new:1', 'new:2']);
  heardOf('revoked', ['new:3']);
  heardOf('self', ['new:4']);
  expect(dialled.slice(1)).toEqual(['new:1', 'new:2']);
});

test('many members that do not answer keep nobody from being heard', async () => {
  const { dialled, heardOf } = startOver(Array.from({ length: 100 }, (_, at) => `peer${at}`));
  await until(() => dialled.length === limits.dialsAtOnce);
  heardOf('peer99', ['new:1']);
  expect(dialled.at(-1)).toBe('new:1');
});

test('what failed is tried again when it is heard again, but not within a moment', async () => {
  const { dialled, clock, heardOf } = startOver([]);
  for (let tries = 1; tries <= 5; tries++) {
    heardOf('anna', ['new:1']);
    expect(dialled).toHaveLength(tries);
    await new Promise(setImmediate);
    heardOf('anna', ['new:1']);
    expect(dialled).toHaveLength(tries);
    clock.nowMs += limits.pauseMsMin;
  }
});

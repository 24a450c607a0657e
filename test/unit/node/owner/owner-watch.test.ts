import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as bounds from '../../../../mesh/core/offload/limits.ts';
import type { LendConfig } from '../../../../node/config/config.ts';
import { openLending } from '../../../../node/owner/lending.ts';
import { sampleMs } from '../../../../node/owner/limits.ts';
import { createOwnerWatch, type OwnerEvent, type OwnerWatchOptions } from '../../../../node/owner/owner-watch.ts';
import { handleOffline, type OwnerRequest } from '../../../../node/owner/requests.ts';
import type { MachineReading } from '../../../../sandbox/idleness/reading.ts';

const quiet: MachineReading = {
  ownerPermille: 10,
  inputAgoMs: Number.POSITIVE_INFINITY,
  onBattery: false,
  hot: false,
  memoryBytes: 16 * 2 ** 30,
  freeMemoryBytes: 8 * 2 ** 30,
  memoryPressed: false,
  metered: false,
};

let dataDir: string;
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'potluck-owner-'));
});
afterEach(() => rmSync(dataDir, { recursive: true }));

/** A watch over a machine that tells what the test wants, on a clock that only the test moves. */
function watchOver(lend: LendConfig, options: Partial<OwnerWatchOptions> = {}) {
  let nowMs = 0;
  let timer: { readonly atMs: number; readonly fire: () => void } | undefined;
  let reading = quiet;
  const sensors = { open: 0, reads: 0 };
  const told: OwnerEvent[] = [];
  const watch = createOwnerWatch({
    dataDir,
    lend,
    slots: 4,
    isolated: true,
    capabilities: ['OSFamily=linux'],
    clock: {
      nowMs: () => nowMs,
      setTimer(delayMs, fire) {
        const mine = { atMs: nowMs + delayMs, fire };
        timer = mine;
        return () => {
          if (timer === mine) timer = undefined;
        };
      },
    },
    onLog: () => {},
    openSensors() {
      sensors.open += 1;
      return {
        read: () => {
          sensors.reads += 1;
          return reading;
        },
        [Symbol.dispose]: () => {
          sensors.open -= 1;
        },
      };
    },
    ...options,
  });
  return {
    watch,
    sensors,
    told,
    attach: () => watch.attach((event) => told.push(event)),
    /** Lets time pass, with the machine as it is from now on. */
    pass: (ms: number, change: Partial<MachineReading> = {}): void => {
      reading = { ...quiet, ...change };
      for (const endMs = nowMs + ms; ; ) {
        if (!timer || timer.atMs > endMs) {
          nowMs = endMs;
          return;
        }
        const { atMs, fire } = timer;
        timer = undefined;
        nowMs = atMs;
        fire();
      }
    },
    now: () => nowMs,
    present: () => told.findLast((event) => event.kind === 'owner')?.present,
    slots: () => told.findLast((event) => event.kind === 'slots'),
  };
}

const idle = { when: 'idle', slots: undefined } as const;

test('tells at once how it is, and later only what changed', () => {
  const { attach, told, pass } = watchOver(idle);
  attach();
  expect(told).toEqual([
    { kind: 'slots', slots: 4, guests: true, guestSlots: 4, capabilities: ['OSFamily=linux'] },
    { kind: 'owner', present: true },
  ]);
  pass(bounds.enterIdleMs);
  expect(told.slice(2)).toEqual([{ kind: 'owner', present: false }]);
});

test('the first key is told within one look at the machine', () => {
  const { attach, pass, present, now } = watchOver(idle);
  attach();
  pass(bounds.enterIdleMs + 300);
  expect(present()).toBe(false);
  const touchedMs = now();
  pass(sampleMs, { inputAgoMs: 0 });
  expect(present()).toBe(true);
  expect(now() - touchedMs).toBeLessThanOrEqual(sampleMs);
});

test('nobody is watched while nobody listens, nothing is lent, or guests are kept out', () => {
  const { watch, attach, sensors, pass } = watchOver(idle);
  pass(10_000);
  expect(sensors).toEqual({ open: 0, reads: 0 });
  expect(watch.status()).toMatchObject({ guestsWelcome: false, reason: 'nobody else is in the mesh', reading: null });
  const attached = attach();
  pass(3_000);
  expect(sensors.reads).toBe(4);
  watch.handle({ do: 'pause' });
  expect(sensors.open).toBe(0);
  watch.handle({ do: 'resume' });
  expect(sensors.open).toBe(1);
  watch.handle({ do: 'lend', when: 'never' });
  expect(sensors.open).toBe(0);
  watch.handle({ do: 'lend', when: 'always' });
  attached[Symbol.dispose]();
  expect(sensors.open).toBe(0);
});

test('the owner’s word takes effect before the next look', () => {
  const { watch, attach, present } = watchOver({ when: 'always', slots: 2 });
  attach();
  expect(present()).toBe(false);
  expect(watch.handle({ do: 'owner', presence: 'back' })).toMatchObject({
    guestsWelcome: false,
    reason: 'its owner said to be back',
  });
  expect(present()).toBe(true);
  expect(watch.handle({ do: 'owner', presence: 'away' }).guestsWelcome).toBe(true);
  expect(present()).toBe(false);
});

test('guests go when memory runs short, also where the machine is always lent', () => {
  const { watch, attach, pass, present } = watchOver({ when: 'always', slots: undefined });
  attach();
  pass(sampleMs, { freeMemoryBytes: 1 * 2 ** 30 });
  expect(present()).toBe(true);
  expect(watch.status().reason).toBe('memory is short');
  pass(bounds.enterIdleMs + sampleMs);
  expect(present()).toBe(false);
});

describe('guests are never welcome', () => {
  test.for([
    ['without isolation', { isolated: false }],
    ['on a node that runs nothing', { slots: 0 }],
  ] as const)('%s', ([, options]) => {
    const { attach, slots, watch } = watchOver({ when: 'always', slots: undefined }, options);
    attach();
    expect(slots()).toMatchObject({ guests: false, guestSlots: 0 });
    expect(watch.status().guestsWelcome).toBe(false);
  });
});

describe('what was said by command', () => {
  test('wins over the configuration and outlives the node', () => {
    watchOver(idle).watch.handle({ do: 'lend', slots: 9 });
    watchOver(idle).watch.handle({ do: 'lend', when: 'always' });
    watchOver(idle).watch.handle({ do: 'pause' });
    const { watch, attach, slots } = watchOver({ when: 'never', slots: 1 });
    // More than there are is all of them.
    expect(watch.status()).toMatchObject({ when: 'always', slots: 4, paused: true });
    attach();
    expect(slots()).toMatchObject({ guests: false, guestSlots: 0, slots: 4 });
    watch.handle({ do: 'resume' });
    expect(slots()).toMatchObject({ guests: true, guestSlots: 4 });
    watch.handle({ do: 'lend', slots: 0 });
    expect(slots()).toMatchObject({ guests: false, guestSlots: 0 });
  });

  test('is checked', () => {
    const { watch } = watchOver(idle);
    const wrong = [
      { do: 'lend', when: 'sometimes' },
      { do: 'lend', slots: -1 },
      { do: 'lend', slots: 1.5 },
      { do: 'owner', presence: 'asleep' },
    ] as unknown as OwnerRequest[];
    for (const request of wrong) {
      expect(() => watch.handle(request)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    }
    expect(watch.status()).toMatchObject({ when: 'idle', slots: 4 });
  });

  test('that cannot be read any more lends nothing, and says so', () => {
    writeFileSync(join(dataDir, 'lending.json'), '{"when":');
    const problems: string[] = [];
    const file = openLending(dataDir, { when: 'always', slots: undefined }, (text) => problems.push(text));
    expect(file.current().when).toBe('never');
    expect(problems[0]).toContain('lending.json');
    file.change({ when: 'idle' });
    expect(JSON.parse(readFileSync(join(dataDir, 'lending.json'), 'utf8'))).toEqual({ when: 'idle' });
  });

  test('to a stopped node holds from its next start on; a signal has nobody to reach', () => {
    expect(handleOffline({ do: 'lend', slots: 2 }, dataDir, idle)).toMatchObject({ slots: 2, guestsWelcome: false });
    expect(watchOver(idle).watch.status().slots).toBe(2);
    expect(() => handleOffline({ do: 'owner', presence: 'back' }, dataDir, idle)).toThrow('no node runs here');
  });
});

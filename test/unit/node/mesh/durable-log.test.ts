import { expect, test } from 'vitest';
import { createRng } from '../../../../mesh/core/rng.ts';
import { createDurableLog, type DurableLog, readLog, rewriteBytes } from '../../../../node/mesh/durable-log.ts';
import { createDisk, type SimDisk } from '../../../../sim/disk.ts';
import { createEngine, type Engine } from '../../../../sim/engine.ts';

interface Fixture {
  readonly engine: Engine;
  readonly disk: SimDisk;
  readonly log: DurableLog;
  readonly durable: number[];
  readonly state: object[];
  failures: number;
}

function create(): Fixture {
  const engine = createEngine();
  const disk = createDisk(engine, createRng(1), { syncUsMin: 1_000, syncUsMax: 1_000 });
  const durable: number[] = [];
  const state: object[] = [];
  const fixture: Omit<Fixture, 'log'> = { engine, disk, durable, state, failures: 0 };
  const log = createDurableLog({
    files: disk,
    name: 'log',
    sizeBytes: 0,
    durableTo: (id) => durable.push(id),
    failed: () => {
      fixture.failures += 1;
    },
    checkpoint: () => state,
  });
  return Object.assign(fixture, { log });
}

test('one sync answers everything that was appended before it began', () => {
  const { engine, disk, log, durable } = create();
  log.append(1, { n: 1 });
  log.flush();
  log.append(2, { n: 2 });
  log.append(3, { n: 3 });
  log.flush();
  engine.runUntil(10_000);
  expect(durable).toEqual([1, 3]);
  expect(disk.syncs()).toBe(2);
  expect(readLog(disk.read('log')).records).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
});

test('after a crash every record that was reported durable is there, and a torn tail is cut', () => {
  for (let seed = 0; seed < 50; seed++) {
    const engine = createEngine();
    const disk = createDisk(engine, createRng(seed), { syncUsMin: 500, syncUsMax: 3_000 });
    let durableTo = 0;
    const options = { files: disk, name: 'log', sizeBytes: 0, failed: () => {}, checkpoint: () => [] };
    const log = createDurableLog({ ...options, durableTo: (id) => (durableTo = id) });
    for (let id = 1; id <= 40; id++) {
      log.append(id, { id });
      log.flush();
      engine.runUntil(id * 400);
    }
    disk.crash();
    const { records, goodLength } = readLog(disk.read('log'));
    expect(records.length).toBeGreaterThanOrEqual(durableTo);
    expect(records).toEqual(Array.from({ length: records.length }, (_, i) => ({ id: i + 1 })));
    expect(goodLength).toBeLessThanOrEqual(disk.read('log').length);
  }
});

test('a full disk is reported, and nothing is lost or reported durable before it is', () => {
  const fixture = create();
  const { engine, disk, log, durable } = fixture;
  disk.setFull(true);
  log.append(1, { n: 1 });
  log.flush();
  engine.runUntil(5_000);
  expect(fixture.failures).toBe(1);
  expect(durable).toEqual([]);
  disk.setFull(false);
  log.append(2, { n: 2 });
  log.flush();
  engine.runUntil(10_000);
  expect(durable).toEqual([2]);
  expect(readLog(disk.read('log')).records).toEqual([{ n: 1 }, { n: 2 }]);
});

test('a log that has grown is replaced by a checkpoint', () => {
  const { engine, disk, log, durable, state } = create();
  log.append(1, { text: 'x'.repeat(rewriteBytes) });
  state.push({ all: 'of it' });
  log.flush();
  engine.runUntil(5_000);
  expect(durable).toEqual([1]);
  expect(readLog(disk.read('log')).records).toEqual([{ all: 'of it' }]);
});

test('a changed line ends the log', () => {
  const { engine, disk, log } = create();
  for (let id = 1; id <= 3; id++) log.append(id, { id });
  log.flush();
  engine.runUntil(5_000);
  const rotten = disk.read('log').replace('{"id":2}', '{"id":9}');
  expect(readLog(rotten).records).toEqual([{ id: 1 }]);
});

test('a state that is larger than a log may grow is not written anew for every record', () => {
  const { engine, disk, log, state } = create();
  state.push({ text: 'x'.repeat(rewriteBytes) });
  const part = { text: 'x'.repeat(rewriteBytes / 8) };
  let rewrites = 0;
  for (let id = 1, before = 0; id <= 24; id++) {
    log.append(id, part);
    log.flush();
    engine.runUntil(id * 100_000);
    const size = disk.read('log').length;
    if (size < before) rewrites += 1;
    before = size;
  }
  expect(rewrites).toBeGreaterThan(0);
  expect(rewrites).toBeLessThan(4);
});

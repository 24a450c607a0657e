import { expect, test } from 'vitest';
import { createMeshClock } from '../../../../node/mesh/clock.ts';

/** A machine's clocks, moved by the test; counts how often the expensive one is read. */
function machine() {
  const time = { runningMs: 1_000, wallMs: 5_000_000, bootMs: 90_000, reads: 0 };
  const clock = createMeshClock({
    runningMs: () => time.runningMs,
    wallMs: () => time.wallMs,
    sinceBootMs: () => {
      time.reads += 1;
      return time.bootMs;
    },
  });
  return {
    time,
    clock,
    run: (ms: number): void => {
      time.runningMs += ms;
      time.wallMs += ms;
      time.bootMs += ms;
    },
    sleep: (ms: number): void => {
      time.wallMs += ms;
      time.bootMs += ms;
    },
  };
}

test('time suspended counts, and is told apart from time run', () => {
  const { clock, run, sleep } = machine();
  const startMs = clock.nowMs();
  run(500);
  sleep(60_000);
  expect(clock.nowMs()).toBe(startMs + 60_500);
  expect(clock.suspendedMs()).toBe(60_000);
  run(100);
  sleep(5_000);
  expect(clock.suspendedMs()).toBe(65_000);
});

test('a wall clock that is set moves nothing', () => {
  const { clock, run, time } = machine();
  const startMs = clock.nowMs();
  time.wallMs += 3_600_000;
  run(10);
  expect(clock.nowMs()).toBe(startMs + 10);
  time.wallMs -= 7_200_000;
  run(10);
  expect(clock.nowMs()).toBe(startMs + 20);
  expect(clock.suspendedMs()).toBe(0);
});

test('it costs no system call while nothing happens', () => {
  const { clock, run, time } = machine();
  const { reads } = time;
  for (let i = 0; i < 1_000; i++) {
    run(7);
    clock.nowMs();
  }
  expect(time.reads).toBe(reads);
});

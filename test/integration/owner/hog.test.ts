/** A program of the owner takes the processors: the sensors of this machine see it, in the time that is stated. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import * as bounds from '../../../mesh/core/offload/limits.ts';
import { systemClock } from '../../../node/execution/clock.ts';
import { sampleMs } from '../../../node/owner/limits.ts';
import { createOwnerWatch, type OwnerWatch } from '../../../node/owner/owner-watch.ts';
import { processTree, signal } from '../../../sandbox/processes.ts';
import { until } from '../../support/until.ts';

/** How long this machine is given to be quiet before the test says that it is not. */
const quietWaitMs = 5_000;

/** Half of the cores, in a pid namespace of their own where that is allowed, and no child of this process. */
function startHogs(): Disposable {
  const count = Math.max(1, Math.ceil(availableParallelism() / 2));
  const apart = process.getuid?.() === 0 ? 'unshare --pid --fork --kill-child' : '';
  const script = `i=0; while [ $i -lt ${count} ]; do setsid ${apart} sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!; i=$((i+1)); done`;
  const pids = execFileSync('/bin/sh', ['-c', script], { encoding: 'utf8' }).trim().split('\n').map(Number);
  return {
    [Symbol.dispose]: () => {
      for (const pid of pids) for (const one of processTree(pid)) signal(one.pid, 'SIGKILL');
    },
  };
}

async function isQuiet(watch: OwnerWatch): Promise<boolean> {
  const endMs = performance.now() + quietWaitMs;
  while (performance.now() < endMs) {
    if (watch.handle({ do: 'owner', presence: 'away' }).guestsWelcome) return true;
    await sleep(sampleMs);
  }
  return false;
}

test.skipIf(process.platform !== 'linux')(
  'a busy loop of the owner ends idleness',
  async (context) => {
    const dataDir = mkdtempSync(join(tmpdir(), 'potluck-hog-'));
    let presentAtMs: number | undefined;
    const watch = createOwnerWatch({
      dataDir,
      lend: { when: 'idle', slots: undefined },
      slots: 1,
      isolated: true,
      capabilities: [],
      clock: systemClock,
      onLog: () => {},
    });
    try {
      watch.attach((event) => {
        if (event.kind === 'owner') presentAtMs = event.present ? performance.now() : undefined;
      });
      if (!(await isQuiet(watch))) {
        console.warn(`skipped: this machine is in use by others (${watch.status().reason})`);
        return context.skip();
      }
      const startMs = performance.now();
      using _ = startHogs();
      await until(() => presentAtMs !== undefined, 2 * bounds.leaveIdleMs);
      const detectedMs = (presentAtMs ?? 0) - startMs;
      console.log(`a processor hog was seen after ${(detectedMs / 1_000).toFixed(1)} s: ${watch.status().reason}`);
      expect(watch.status().reason).toBe('the processors are in use');
      expect(detectedMs).toBeGreaterThan(bounds.leaveIdleMs - sampleMs);
    } finally {
      watch.close();
      rmSync(dataDir, { recursive: true });
    }
  },
  90_000,
);

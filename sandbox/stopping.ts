/** Freezing processes by SIGSTOP, where no control group can do it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { freezeLookMs, freezeWaitMs } from './limits.ts';
import { type Process, signal } from './processes.ts';
import type { Freezable } from './run-control.ts';

/**
 * Whoever forks while others are stopped leaves a child behind that runs: it goes on until it finds all of them stopped.
 * Whole process groups are stopped, which is one step that a process that keeps forking cannot outrun; one that also makes
 * a new group each time can, and is left to be killed.
 *
 * @param list - the processes, as they are now
 * @param others - a group that has processes besides these
 */
export function stopping(list: () => readonly Process[], others?: number): Freezable {
  return {
    async freeze() {
      const deadlineMs = performance.now() + freezeWaitMs;
      for (;;) {
        const running = list().filter(({ state }) => !'TtZX'.includes(state));
        if (running.length === 0 || performance.now() > deadlineMs) return;
        const groups = new Set(running.map(({ group }) => group));
        groups.delete(others ?? 0);
        // A group of number 0 is one that this process cannot see.
        for (const group of groups) if (group > 1) signal(-group, 'SIGSTOP');
        for (const { pid } of running) signal(pid, 'SIGSTOP');
        await sleep(freezeLookMs);
      }
    },
    async thaw() {
      for (const { pid } of list()) signal(pid, 'SIGCONT');
    },
  };
}

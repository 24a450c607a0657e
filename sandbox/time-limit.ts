/** The time a command may run, which stands still while it is frozen. */
import { timeoutMsMax } from './limits.ts';
import type { RunControl } from './run-control.ts';

/** Calls `onOver` once the command has run for `limitMs`, unless disposed before. */
export function limitTime(limitMs: number, control: RunControl | undefined, onOver: () => void): Disposable {
  let leftMs = Math.min(limitMs, timeoutMsMax);
  let timer: NodeJS.Timeout | undefined;
  let startedMs = 0;
  const go = () => {
    startedMs = performance.now();
    timer = setTimeout(onOver, leftMs);
  };
  const stop = () => {
    clearTimeout(timer);
    leftMs = Math.max(0, leftMs - (performance.now() - startedMs));
  };
  const watch = control?.watch((frozen) => (frozen ? stop() : go()));
  if (!control?.frozen) go();
  return {
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      watch?.[Symbol.dispose]();
    },
  };
}

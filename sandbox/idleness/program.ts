/** What only a program of the system can tell: asked in the background now and then, remembered meanwhile. */
import { execFile } from 'node:child_process';
import { programMaxMs } from './limits.ts';

export interface Remembered<T> extends Disposable {
  /** What was last told; asks again when that is old. `undefined` before the first answer and when there is none. */
  get(): T | undefined;
}

/** Runs a program of the system; its output, or `undefined` when it failed, is missing or took too long. */
export type Ask = (program: string, args: readonly string[]) => Promise<string | undefined>;

export const askProgram: Ask = (program, args) =>
  new Promise((resolve) => {
    const env = { PATH: '/usr/bin:/bin:/usr/sbin:/sbin', LC_ALL: 'C' };
    try {
      const child = execFile(
        program,
        [...args],
        { env, timeout: programMaxMs, killSignal: 'SIGKILL' },
        (error, stdout) => resolve(error ? undefined : stdout),
      );
      // A node that stops does not wait for it.
      child.unref();
    } catch {
      resolve(undefined);
    }
  });

/** @param everyMs - how old an answer may become */
export function remembered<T>(ask: () => Promise<T | undefined>, everyMs: number, nowMs: () => number): Remembered<T> {
  let value: T | undefined;
  let asking = false;
  let askedAtMs = Number.NEGATIVE_INFINITY;
  let closed = false;
  return {
    get() {
      if (!asking && !closed && nowMs() - askedAtMs >= everyMs) {
        asking = true;
        askedAtMs = nowMs();
        void ask()
          .catch(() => undefined)
          .then((answer) => {
            value = answer;
            asking = false;
          });
      }
      return value;
    },
    [Symbol.dispose]: () => {
      closed = true;
    },
  };
}

/** Freezing and thawing one run of the sandbox from outside. Killing it is aborting its signal. */

/** What a runner can do to a command. Its calls never overlap; neither rejects. */
export interface Freezable {
  /** Resolves when no process of the command runs any more, or it could not be done in time. */
  readonly freeze: () => Promise<void>;
  readonly thaw: () => Promise<void>;
}

/**
 * Made by whoever starts a run, one for each. Freezing holds before the command starts as well: it is then not started
 * before the thaw. Staging and collecting are the node's own work and go on; collecting does not begin while frozen.
 */
export interface RunControl {
  readonly frozen: boolean;
  /** How long it was frozen so far, the present freeze included. Never part of the command's time limit. */
  readonly frozenMs: number;
  /** Stops every process of the run, those that it forks meanwhile included. Resolves when that is done; never rejects. */
  freeze(): Promise<void>;
  /** Resolves when they run again. */
  thaw(): Promise<void>;
  /** Calls `listener` at every change from now on, until disposed. */
  watch(listener: (frozen: boolean) => void): Disposable;
  /** For the sandbox: `command` does what this control says, until disposed. */
  hold(command: Freezable): Disposable;
  /** For the sandbox: resolves when it is not frozen; throws the reason of the signal. */
  open(signal: AbortSignal): Promise<void>;
}

/** @param nowMs - a clock that never goes back */
export function createRunControl(nowMs: () => number = () => performance.now()): RunControl {
  const listeners = new Set<(frozen: boolean) => void>();
  /** The command, and what was last done to it. */
  let held: { readonly command: Freezable; frozen: boolean } | undefined;
  let frozenSinceMs: number | undefined;
  let frozenBeforeMs = 0;
  let last: Promise<void> = Promise.resolve();

  const follow = async (): Promise<void> => {
    const frozen = frozenSinceMs !== undefined;
    if (!held || held.frozen === frozen) return;
    held.frozen = frozen;
    await (frozen ? held.command.freeze() : held.command.thaw());
  };
  const settle = (): Promise<void> => {
    last = last.then(follow);
    return last;
  };
  const watch = (listener: (frozen: boolean) => void): Disposable => {
    listeners.add(listener);
    return { [Symbol.dispose]: () => listeners.delete(listener) };
  };
  const tell = (frozen: boolean): void => {
    for (const listener of [...listeners]) listener(frozen);
  };

  return {
    get frozen() {
      return frozenSinceMs !== undefined;
    },
    get frozenMs() {
      return frozenBeforeMs + (frozenSinceMs === undefined ? 0 : nowMs() - frozenSinceMs);
    },
    freeze() {
      if (frozenSinceMs === undefined) {
        frozenSinceMs = nowMs();
        tell(true);
      }
      return settle();
    },
    thaw() {
      if (frozenSinceMs !== undefined) {
        frozenBeforeMs += nowMs() - frozenSinceMs;
        frozenSinceMs = undefined;
        tell(false);
      }
      return settle();
    },
    watch,
    hold(command) {
      const mine = { command, frozen: false };
      held = mine;
      void settle();
      return {
        [Symbol.dispose]: () => {
          if (held === mine) held = undefined;
        },
      };
    },
    async open(signal) {
      signal.throwIfAborted();
      if (frozenSinceMs === undefined) return;
      const opened = Promise.withResolvers<void>();
      const abort = () => opened.reject(signal.reason);
      signal.addEventListener('abort', abort, { once: true });
      using _ = watch((frozen) => {
        if (!frozen) opened.resolve();
      });
      await opened.promise.finally(() => signal.removeEventListener('abort', abort));
    },
  };
}

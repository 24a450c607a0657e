/** What a rule may do to a server beyond the wire, when whoever runs the suite can provide it. */
import type { Target } from './context.ts';

export interface ServerOptions {
  /** Bound of the blob store. */
  readonly cacheSizeBytes?: number;
  /** Actions that run at once. */
  readonly slots?: number;
  /** Whether it can be told to collect its garbage, through `debuggerUrl`. */
  readonly inspected?: boolean;
}

/** A server that belongs to the rule that started it. */
export interface ControlledServer extends AsyncDisposable {
  readonly target: Target;
  readonly pid: number;
  readonly dataDir: string;
  /** Where its debugger listens, a WebSocket; only when it is inspected. */
  readonly debuggerUrl?: string | undefined;
  /** SIGKILL, then the same server again over the same data. Its address may change. */
  killAndRestart(): Promise<void>;
}

export interface Control {
  /** Starts a server with an empty store; resolves when it serves. */
  start(options?: ServerOptions): Promise<ControlledServer>;
}

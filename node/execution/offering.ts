/** Between the executor, which keeps operations, and whoever decides where their actions run while the mesh is awake. */
import type { NodeId, RequestId } from '../../mesh/core/ids.ts';
import type { Digest } from '../../protos/digest.ts';
import type { NamedAction } from '../offload/events.ts';
import type { LogWriter } from './log-streams.ts';
import type { PreparedAction } from './prepare.ts';
import type { RunReport } from './run-action.ts';

/** What a client says of its action besides the action: for queues, estimates and records. */
export interface ActionContext {
  readonly instance: string;
  readonly invocation: string;
  /** The client named no invocation; its address stands there. */
  readonly isUnnamed?: boolean;
  readonly priority: number;
  /** Of the client's RequestMetadata; empty when it says nothing. */
  readonly mnemonic: string;
  readonly target: string;
  readonly skipCacheLookup: boolean;
  /** Members that should not run it, while anybody else can. */
  readonly avoid?: readonly NodeId[];
}

/** A run that is handed to the mesh. */
export interface OfferedRun {
  /** How records name the run, all of its attempts together. */
  readonly run: string;
  /** Unique; made anew for each attempt. */
  readonly request: RequestId;
  readonly prepared: PreparedAction;
  readonly context: ActionContext;
  /** The mesh failed it before: it runs on this node, if this node can run it at all. */
  readonly onlyHere?: boolean;
  readonly queuedAtMs: number;
  readonly signal: AbortSignal;
  readonly stdout: LogWriter;
  readonly stderr: LogWriter;
  /** May say `queued` again, when a claim is lost. `worker`: as results name it. */
  readonly onStage: (stage: 'queued' | 'executing', worker: string) => void;
  /** Calls back when somebody begins to read the live output. */
  readonly onRead: (listener: () => void) => void;
}

/** Whoever decides where actions run while the mesh is awake. */
export interface RunOffering {
  isAwake(): boolean;
  /** Calls `listener` at every change. */
  watch(listener: () => void): void;
  /** Never rejects. A run that the mesh could not deal with is retriable. */
  run(offered: OfferedRun): Promise<RunReport>;
}

export function namedAction(action: Digest, context: ActionContext): NamedAction {
  const { instance, invocation, isUnnamed, mnemonic, target } = context;
  return { action, instance, invocation: isUnnamed ? '' : invocation, mnemonic, target };
}

/** Between the node that submitted an action and the node that ran it; bytes travel on the data plane. */
import type { ActionKey, BlobKey, RequestId, ShardId, Token } from '../ids.ts';
import type { HolderPromise } from '../registers/types.ts';

/** What a run left behind. */
export interface Outcome {
  /** The signed action result; its closure is what holders promise. */
  readonly result: BlobKey;
  /** Result and outputs together. */
  readonly sizeBytes: number;
  /** False after a failure or a time-out: it is handed over like any other, and no register names it. */
  readonly cacheable: boolean;
}

export type AgentMessage =
  /** From the executor: the outputs are durable here, come and get them. */
  | {
      readonly kind: 'handOver';
      readonly shard: ShardId;
      readonly key: ActionKey;
      readonly request: RequestId;
      readonly token: Token;
      readonly outcome: Outcome;
      /** Of the run itself; time spent frozen is not run time. */
      readonly runMs: number;
    }
  /** From the executor: the run began or goes on, or stands still because the machine's owner is back. */
  | {
      readonly kind: 'stage';
      readonly key: ActionKey;
      readonly request: RequestId;
      /** Undefined only from a node to itself: a run without a claim. */
      readonly token: Token | undefined;
      readonly stage: 'executing' | 'frozen';
    }
  /** From the submitter: durable here as well, and promised if `promise` is set. */
  | {
      readonly kind: 'handedOver';
      readonly key: ActionKey;
      readonly token: Token;
      readonly promise: HolderPromise | undefined;
    }
  /** From the submitter: it heard of a later claim, or does not wait for this any more. */
  | { readonly kind: 'handOverRefused'; readonly key: ActionKey; readonly token: Token };

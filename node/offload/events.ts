/**
 * What happens to the actions of this node's clients, and to those it runs for others, as one stream of events for
 * records, metrics and `potluck explain`. Nothing is decided from it.
 */
import type { NodeId } from '../../mesh/core/ids.ts';
import type { Digest } from '../../protos/digest.ts';

/** An action as its client names it. */
export interface NamedAction {
  readonly action: Digest;
  readonly instance: string;
  /** `tool_invocation_id`, or the address of a client that names none. */
  readonly invocation: string;
  /** Of the client's RequestMetadata; empty when it says nothing. */
  readonly mnemonic: string;
  readonly target: string;
}

/** Where an answer came from: a result known here, one of a member, a run here, or a run at a member. */
export type AnswerSource = 'cache' | 'peer-cache' | 'here' | 'peer';

export type EndOutcome = 'succeeded' | 'command-failed' | 'timed-out' | 'cancelled' | 'error';

/** Where the time of one action went, in ms of this node's clock; 0 where it does not apply. */
export interface ActionTimes {
  /** From the submission until somebody began to run it. */
  readonly queuedMs: number;
  /** The command alone, as who ran it measured it. */
  readonly runMs: number;
  /** Fetching result and outputs from who ran it. */
  readonly handOverMs: number;
  /** From the submission to the answer. */
  readonly totalMs: number;
}

export type BuildEvent =
  /** A client asked for a result, or executed an action whose result is known. */
  | ({
      readonly kind: 'lookedUp';
      readonly atMs: number;
      readonly outcome: 'hit' | 'miss';
      /** Of a hit: undefined when it was known here. */
      readonly from: NodeId | undefined;
    } & NamedAction)
  /** A run begins its way; `run` names it in the events that follow. A client that joins it makes no further one. */
  | ({ readonly kind: 'submitted'; readonly atMs: number; readonly run: string } & NamedAction)
  | {
      readonly kind: 'decided';
      readonly atMs: number;
      readonly run: string;
      readonly where: 'here' | 'mesh';
      /** Expected until the outputs are at hand, run here and elsewhere; infinite where it cannot run. */
      readonly hereMs: number;
      readonly elsewhereMs: number;
      readonly why: string;
    }
  | {
      readonly kind: 'progress';
      readonly atMs: number;
      readonly run: string;
      readonly stage: 'queued' | 'fetching' | 'executing';
      readonly node: NodeId | undefined;
    }
  | ({
      readonly kind: 'ended';
      readonly atMs: number;
      readonly run: string;
      readonly outcome: EndOutcome;
      readonly source: AnswerSource;
      /** Who ran it; undefined when nobody did, and outside of a mesh. */
      readonly node: NodeId | undefined;
      /** `generation.term.counter`; undefined for a run that nobody claimed. */
      readonly token: string | undefined;
      /** A sentence, when it did not end well. */
      readonly error: string | undefined;
      readonly times: ActionTimes;
      /** The result as a blob, `function/hash/size`; undefined when there is none. */
      readonly result: string | undefined;
    } & NamedAction)
  /** An action of another member ran here. */
  | {
      readonly kind: 'guestEnded';
      readonly atMs: number;
      readonly action: Digest;
      readonly instance: string;
      readonly submitter: NodeId;
      readonly outcome: EndOutcome;
      readonly runMs: number;
      readonly error: string | undefined;
    }
  /** What ran here under a claim was not accepted. */
  | {
      readonly kind: 'commitRefused';
      readonly atMs: number;
      readonly action: Digest;
      readonly instance: string;
      readonly outcome: string;
    }
  /** A member handed over a result that is not what it should be; it was refused. */
  | {
      readonly kind: 'lied';
      readonly atMs: number;
      readonly action: Digest;
      readonly node: NodeId;
      readonly reason: string;
    };

/** Takes events; must not throw. */
export type Recorder = (event: BuildEvent) => void;

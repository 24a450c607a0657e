/** Counts what happened to actions since the node started, for metrics, `status` and `top`. */
import { digestKey } from '../../protos/digest.ts';
import type { RecordedEvent } from './events.ts';
import * as limits from './limits.ts';
import type { ActionSource } from './records.ts';

/** How actions of this node's clients were answered, and what this node did for others. */
export interface OffloadTally {
  readonly answered: Readonly<Record<ActionSource, number>>;
  readonly failed: number;
  /** Where the policy sent actions. */
  readonly stayed: number;
  readonly offered: number;
  /** Runs begun again because a claim was lost or an executor failed. */
  readonly claimsLost: number;
  /** Actions of members that ran here: begun, and ended by how. */
  readonly guests: {
    readonly started: number;
    readonly succeeded: number;
    readonly failed: number;
    /** Times that one was frozen because the owner of this machine was back. */
    readonly frozen: number;
  };
  /** Commits under an old claim that this node refused as leader of a shard. */
  readonly staleRefused: number;
  /** Commits of this node's own runs that a leader did not accept. */
  readonly commitsRefused: number;
  /** Results of members that were refused for not being what they should be. */
  readonly lies: number;
}

/** An action of a member that runs here now. */
export interface RunningGuest {
  readonly action: string;
  readonly submitter: string;
  readonly ageMs: number;
  readonly frozen: boolean;
}

export interface OffloadCounting {
  record(event: RecordedEvent): void;
  /** What the machines of the mesh note. */
  note(note: { readonly kind: string }): void;
  now(): OffloadTally;
  guests(atMs: number): RunningGuest[];
}

export function createOffloadTally(): OffloadCounting {
  const answered = { 'hit-local': 0, 'hit-peer': 0, here: 0, peer: 0, joined: 0, uploaded: 0 };
  const guests = { started: 0, succeeded: 0, failed: 0, frozen: 0 };
  const running = new Map<string, { readonly submitter: string; readonly sinceMs: number; frozen: boolean }>();
  let [failed, stayed, offered, claimsLost, staleRefused, commitsRefused, lies] = [0, 0, 0, 0, 0, 0, 0];
  const sources = { cache: 'hit-local', 'peer-cache': 'hit-peer', here: 'here', peer: 'peer' } as const;

  return {
    record(event) {
      switch (event.kind) {
        case 'lookedUp':
          if (event.outcome === 'hit') answered[event.from === undefined ? 'hit-local' : 'hit-peer'] += 1;
          return;
        case 'uploaded':
        case 'joined':
          answered[event.kind] += 1;
          return;
        case 'decided':
          if (event.where === 'here') stayed += 1;
          else offered += 1;
          return;
        case 'retried':
          claimsLost += 1;
          return;
        case 'ended':
          answered[sources[event.source]] += 1;
          if (event.outcome !== 'succeeded') failed += 1;
          return;
        case 'guestStarted': {
          guests.started += 1;
          const { submitter, atMs } = event;
          if (running.size < limits.topActionsMax)
            running.set(digestKey(event.action), { submitter, sinceMs: atMs, frozen: false });
          return;
        }
        case 'guestFrozen': {
          if (event.frozen) guests.frozen += 1;
          const guest = running.get(digestKey(event.action));
          if (guest) guest.frozen = event.frozen;
          return;
        }
        case 'guestEnded':
          guests[event.outcome === 'succeeded' ? 'succeeded' : 'failed'] += 1;
          running.delete(digestKey(event.action));
          return;
        case 'lied':
          lies += 1;
          return;
        case 'commitRefused':
          commitsRefused += 1;
          return;
        case 'client':
        case 'submitted':
        case 'progress':
          return;
        default:
          event satisfies never;
      }
    },
    note({ kind }) {
      if (kind === 'staleRefused') staleRefused += 1;
    },
    now: () => ({
      answered: { ...answered },
      failed,
      stayed,
      offered,
      claimsLost,
      guests: { ...guests },
      staleRefused,
      commitsRefused,
      lies,
    }),
    guests: (atMs) =>
      Array.from(running, ([action, { submitter, sinceMs, frozen }]) => ({
        action,
        submitter,
        ageMs: Math.max(0, Math.round(atMs - sinceMs)),
        frozen,
      })),
  };
}

/** What a leader knows about one other member. */
export interface Progress {
  /** Highest index known to agree with the leader's log and to be durable there. */
  match: number;
  /** Next index to send. */
  next: number;
  /**
   * Probing: the follower's log is not known, one append at a time. Replicating: appends are pipelined. Restoring: a
   * snapshot is under way.
   */
  phase: 'probing' | 'replicating' | 'restoring';
  /** Last index of each append under way, oldest first; at most `inflightAppends`. */
  inflight: number[];
  /** When the oldest unanswered append, or the snapshot, was sent. */
  sentAtMs: number;
  /** When anything was last received from it. */
  heardAtMs: number;
  /** The send time of the newest heartbeat that it answered: the start of what the lease rests on. */
  ackedSentAtMs: number;
  /** The newest read round that it confirmed. */
  readRound: number;
  /** It agreed to sleep. */
  asleep: boolean;
  /** Membership says it cannot answer; cleared by any message from it. */
  unreachable: boolean;
}

/** A member about which nothing is known yet; `nowMs` counts as heard, so that check-quorum gives it a full period. */
export function newProgress(next: number, nowMs: number): Progress {
  return {
    match: 0,
    next,
    phase: 'probing',
    inflight: [],
    sentAtMs: nowMs,
    heardAtMs: nowMs,
    ackedSentAtMs: Number.NEGATIVE_INFINITY,
    readRound: 0,
    asleep: false,
    unreachable: false,
  };
}

/** Back to one append at a time, from what is known to agree. */
export function probeFrom(progress: Progress, next: number): void {
  progress.phase = 'probing';
  progress.next = next;
  progress.inflight = [];
}

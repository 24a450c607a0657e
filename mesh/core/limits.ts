/**
 * Every bound of the machines in mesh/core, with its unit and the reason for its value. Grouped by machine.
 */

/** One Raft group. */
export const raftLimits = {
  /** A LAN round trip is below 5 ms and a commit waits on no heartbeat, so this only bounds detection and traffic. */
  heartbeatIntervalMs: 250,
  /** A follower waits this long for its leader, at least; four lost heartbeats in a row. */
  electionTimeoutMs: 1_000,
  /** Each election adds a random part up to this, so that two candidates seldom collide (section 3.4). */
  electionJitterMs: 1_000,
  /** Two clocks may differ in rate by this much; quartz is a thousand times better, virtual machines are not. */
  clockRateErrorPerMille: 50,
  /** Without a proposal, read or claim for this long, a group goes to sleep. */
  hibernateAfterMs: 10_000,
  /** A leadership transfer that is not done by then is given up; one election timeout (section 3.10). */
  transferTimeoutMs: 1_000,
  /** Append messages under way to one follower; at 5 ms a round trip this is 1,600 appends a second. */
  inflightAppends: 8,
  /** Entries in one append. */
  entriesPerAppend: 64,
  /** Bytes of commands in one append; larger ones travel alone. */
  bytesPerAppend: 256 * 1024,
  /** An append that was not answered for this long is sent again. */
  appendRetryMs: 500,
  /** A snapshot that was not answered for this long is sent again; it is at most a shard's registers. */
  snapshotRetryMs: 5_000,
  /** Proposals in the log that are not committed; more are refused as busy, so memory holds when a quorum is slow. */
  uncommittedBytes: 4 * 1024 * 1024,
  /** Commands larger than this are refused: an entry must fit a message. */
  commandBytes: 1024 * 1024,
  /** Reads that wait for their confirmation; more are refused as busy. */
  pendingReads: 4_096,
  /** The log is compacted when it holds this many entries more than the snapshot... */
  compactAfterEntries: 1_024,
  /** ...and keeps this many behind, so that a follower that lags a little needs no snapshot. */
  keepEntries: 128,
  /** Heartbeats in one message between two nodes; more groups than this need a second one. */
  heartbeatsPerMessage: 256,
} as const;

/** One shard's registers. */
export const registerLimits = {
  /** About 100 bytes each: a few megabytes a shard, and a snapshot that one message carries. */
  registersPerShard: 16_384,
  /** Bytes of all registers of a shard, counted as in registers/encoding.ts; what a snapshot may weigh. */
  bytesPerShard: 4 * 1024 * 1024,
  /** Holders kept per register: the executor, the submitter, and two replicas that seeding may add. */
  holdersPerRegister: 4,
  /** Commands in one log entry. */
  commandsPerBatch: 256,
  /** Keys in one lookup message. */
  keysPerLookup: 1_024,
  /** Registers in one offer between two histories. */
  registersPerOffer: 256,
} as const;

/** One node's composite of all machines. */
export const peerLimits = {
  /** Hints wait this long for others, so that a burst of actions is one message a member. */
  hintDelayMs: 20,
  /** Hints waiting to be gossiped; more are dropped, since they are hints. */
  hintsWaiting: 1_024,
  /** Members that one batch of hints goes to; in larger meshes a random part of them hears each. */
  hintFanout: 32,
  /** A client's answer is pinned until its invocation ends, at most this long. */
  clientPinMs: 6 * 60 * 60 * 1_000,
  /** Outputs of an action that ran here are kept for others this long. */
  replicaPinMs: 2 * 60 * 60 * 1_000,
} as const;

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

/** Who coordinates which shard. */
export const shardLimits = {
  /** From so many members on a shard has five voters: two may fail at once, and each pays for two more copies. */
  fiveVotersFrom: 9,
  /** A better coordinator takes over only after the view was stable for so long; joining in the morning is no storm. */
  settleMs: 30_000,
  /** A voter that is away for so long without a replacement is taken out of the count. */
  shrinkAfterMs: 30_000,
  /** Leaders look at their groups this often while there is something to change. */
  steerIntervalMs: 1_000,
  /** ...and this often while their node says goodbye: a lid gives a few seconds. */
  leaveIntervalMs: 100,
  /** A learner that lacks fewer entries than this may vote: it will have them within a round trip. */
  promoteLag: 64,
  /** Members alive without a break for longer than this rank before newcomers. */
  provenMs: 10 * 60 * 1_000,
  /** The quorum of a shard must be away for so long before it is formed anew: longer than a reboot. */
  formAfterMs: 60_000,
  /** Histories of equal number are already two: nothing is won by waiting long. */
  conflictAfterMs: 5_000,
  /** A member that forms a shard waits for consent so long before it tries again under the next number. */
  formTimeoutMs: 10_000,
  /** Who was alive within this time counts in the majority that may form a shard anew. */
  dayMs: 24 * 60 * 60 * 1_000,
  /** Shards are looked at this often for a quorum that is away. */
  formCheckMs: 5_000,
  /** What a node knows of all shards goes to one random member this often; histories that split meet by this. */
  statusIntervalMs: 10_000,
  /** About so many members greet one that comes back with what they know; in larger meshes a random part of them. */
  statusFanout: 16,
  /** A shard whose leader is not known is asked for this often. */
  askIntervalMs: 2_000,
  /** An offer of registers to another history that was not answered is made again. */
  offerRetryMs: 3_000,
  /** Requests that wait for an answer from one shard's log; more are told to come back. */
  requestsPending: 4_096,
} as const;

/** The claims of all shards that one node leads. */
export const claimLimits = {
  /** Actions known at once; more are refused and their submitters work alone. About 1 kB each. */
  tasksMax: 20_000,
  /** Requests that wait for one action; a build of everybody at once. */
  waitersPerTask: 256,
  /** A submitter renews every few seconds; three renewals may be lost. */
  waiterLeaseMs: 15_000,
  /** Expired leases and claims are looked for this often; the precision of every time-out here. */
  sweepMs: 500,
  /** An executor renews every few seconds, all of its claims in one message; two renewals may be lost. */
  claimLeaseMs: 10_000,
  /** A pull that found nothing waits here so that the next action needs no polling; executors repeat it before. */
  pullLeaseMs: 15_000,
  /** Executors whose pull waits. */
  pullsMax: 1_024,
  /** After taking over a shard, actions that were known before wait this long for the executor that may be running them. */
  rebuildMs: 3_000,
  /** Executors that died on one action before it ends: it may be the action that kills them. */
  deathsMax: 3,
  /** Faults of executors before the action ends: not the same fault for ever. */
  retriesMax: 4,
  /** Executors that could not get the inputs before the action ends: then its submitter looks for itself. */
  inputsMissingMax: 2,
  /** The first wait before a retry; each one doubles it. */
  backoffMs: 500,
  /** The longest wait before a retry. */
  backoffMaxMs: 10_000,
  /** Who failed with an action gets it again only when nobody else took it for so long. */
  shunMs: 2_000,
  /** Times one executor may give the same action back for nothing; after each further time it is shunned as after a failure. */
  giveBacksMax: 5,
  /** What a submitter has for retries to begin with, and at most, in thousandths of a retry. */
  retryBudgetPerMille: 20_000,
  /** What each new action adds to that: one retry for ten actions, so that a fleet-wide fault is no storm. */
  retryEarnedPerMille: 100,
  /** Submitters whose budget is remembered. */
  retryBudgets: 1_024,
  /** Requests that were cancelled or served are remembered so long, in case that their submission comes late or twice. */
  settledMemoryMs: 60_000,
  /** ...and at most so many. */
  settledRemembered: 4_096,
  /** Ready actions of one invocation that are compared for how much of their inputs the executor holds. */
  affinityWindow: 16,
  /** Actions granted in answer to one pull. */
  grantsPerPull: 64,
  /** Executors that one request avoids. */
  avoidMax: 16,
  /** A promise for less than this is none: the submitter could not even fetch. */
  promiseMsMin: 60_000,
} as const;

/** What a node asks of registers outside of any claim. */
export const deskLimits = {
  /** Its questions are numbered from here on; those of the submitter, in the same messages, stay below. */
  firstId: 1_000_000_000,
  /** ...from a place drawn for each life, so far apart; all below the numbers of offers between histories. */
  idsPerLife: 128,
  /** A read is answered after this with what is known: a few round trips, since a client waits. */
  lookupMs: 500,
  /** Reads at once; more are answered with nothing. */
  lookupsMax: 4_096,
  /** Publications and invalidations at once; more are dropped. */
  writesMax: 4_096,
  /** A write without an answer is said again after this, at most so often. */
  writeRetryMs: 2_000,
  writeTries: 5,
} as const;

/** One node's composite of all machines. */
export const peerLimits = {
  /** Hints wait this long for others, so that a burst of actions is one message a member. */
  hintDelayMs: 20,
  /** One batch follows another after this, at least: a trickle of actions is no message a member each. */
  hintIntervalMs: 250,
  /** What transfers show of the links counts for offloading after this, at most. */
  throughputMs: 2_000,
  /** Hints waiting to be gossiped; more are dropped, since they are hints. */
  hintsWaiting: 1_024,
  /** Members that one batch of hints goes to; in larger meshes a random part of them hears each. */
  hintFanout: 32,
  /** Messages to itself and wakes that a node deals with in one step; more is a loop. */
  turnsMax: 100_000,
  /** A client's answer is pinned until its invocation ends, at most this long. */
  clientPinMs: 6 * 60 * 60 * 1_000,
  /** Outputs of an action that ran here are kept for others this long. */
  replicaPinMs: 2 * 60 * 60 * 1_000,
  /** Capabilities that a record carries, and their length in characters; records travel in gossip. */
  capabilitiesMax: 64,
  capabilityLengthMax: 128,
} as const;

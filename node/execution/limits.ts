/** Every bound of the execution service. */

/** What the scheduler keeps to; the number of slots is the operator's choice. */
export const schedulerLimits = {
  /** Runs handed to the mesh's machine at once, which keeps the queue then; it takes no more (mesh/core/agents/limits.ts). */
  offeredRunsMax: 10_000,
  /** Executions that wait for a slot; one more is refused with RESOURCE_EXHAUSTED. */
  queuedRunsMax: 10_000,
  /** Operations that are not finished, merged ones included; one more is refused with RESOURCE_EXHAUSTED. */
  openOperationsMax: 40_000,
  /** An operation that nobody waits for is cancelled after this time: a client whose stream broke comes back within it. */
  abandonedGraceMs: 20_000,
  /** How long a finished operation answers WaitExecution and GetOperation. */
  finishedTtlMs: 300_000,
  /** All finished operations together, in number and in bytes of their results; the oldest are forgotten first. */
  finishedOperationsMax: 10_000,
  finishedBytesMax: 64 * 1024 * 1024,
  /** Starts of one action, counting those that failed for reasons of this machine. */
  attemptsMax: 3,
  /** Before the second start; doubles with each further one. */
  retryDelayMs: 250,
} as const;

/** What a client is told to wait when the queue is full. */
export const queueFullRetryMs = 2_000;
/** An Execute or WaitExecution stream repeats its state after this silence; clients give up after 60 s. */
export const keepAliveMs = 5_000;
/** WaitOperation answers after this time at the latest, finished or not. */
export const waitOperationMs = 60_000;
/** Operations in one answer to ListOperations. */
export const operationsPageMax = 1_000;

/** Staging inputs, collecting outputs, committing the result: each, for any action. */
export const phaseMaxMs = 30 * 60_000;
/** What the command may take beyond its timeout, for being started and being killed. */
export const runningSlackMs = 60_000;
/** How long an action that was told to stop may take; the sandbox allows a killed process tree 10 s. */
export const abortedMaxMs = 15_000;

/** Action and Command messages that are read into memory. */
export const messageBytesMax = 16 * 1024 * 1024;
/** Missing blobs named in one error, some 90 bytes each: a message holds 4 MiB. The others are named at the next try. */
export const missingNamedMax = 20_000;
/** Digests pinned for queued executions together; beyond that an execution's inputs are pinned when it starts. */
export const pinnedDigestsMax = 500_000;

/** What an operation keeps of its request: each text of the client's metadata, and the paths of files to inline together. */
export const metadataCharsMax = 200;
export const inlinedPathCharsMax = 64 * 1024;

/** How long the answer waits for its log to be stored. */
export const serverLogMaxMs = 5_000;

/** Live standard output and error. */
export const logLimits = {
  /** Of one log; a reader that falls further behind is told how much it missed. */
  logStreamBytesMax: 1024 * 1024,
  /** Of all logs together. */
  logBytesMax: 32 * 1024 * 1024,
  /** Ended logs that can still be read. */
  endedLogsMax: 256,
} as const;

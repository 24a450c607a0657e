/** Bounds of running actions for and through the mesh, each with its unit and its reason. */

/** A result blob of more bytes is not read: it names some twenty thousand outputs. */
export const resultBytesMax = 8 * 1024 * 1024;
/** Results that were checked, and are asked for again within moments: by the machine, by a second waiter. */
export const resultsKept = 1_024;
/** A guest whose inputs take longer to come gives its slot back: their speed is its submitter's to choose. */
export const inputsMaxMs = 15 * 60_000;
/** Rounds of fetching an input tree again because something of it was evicted before it was pinned. */
export const inputRounds = 2;
/** Blobs named to whoever will need them: a parcel of some 40 kB. What is beyond is found as it would be without. */
export const hintedMax = 512;
/** Larger ones are not fetched because somebody hints at them. */
export const hintedBytesMax = 4 * 1024 * 1024;
/** Hints that came before the claim they are for; the oldest go first. */
export const hintsKept = 256;
/** Beyond its own time limit, how long an action may be at members, with all that they fetch, before it is run here. */
export const awaySlackMs = 15 * 60_000;
/** Space set aside for an action's outputs and scratch; inputs are links to what the store holds. */
export const spaceBytes = 16 * 1024 * 1024;
/** Directories of an input tree that are told, the largest first, so that who holds them is preferred. */
export const sketchedDirectories = 16;
/** ...of trees that were here lately; what a pull carries (docs/protocol.md, "Claims"). */
export const sketchesKept = 64;

/** Newest output of one run, each of its two streams, that members can follow. */
export const tailBytesMax = 256 * 1024;
/** Of each stream in one answer; a frame of the control plane holds 1 MiB. */
export const logAnswerBytesMax = 64 * 1024;
/** An answer waits so long for something new. */
export const logHoldMs = 5_000;
/** Without an answer for so long, the question or the answer was lost: it is asked again. */
export const logSilenceMs = 8_000;
/** Whoever follows asks again after this when there was nothing new. */
export const logPauseMs = 250;
/** Questions that wait for news at once, of all members; more are answered at once. */
export const logQuestionsMax = 256;

/** An invocation of which nothing was heard for so long is over: what is pinned for it may go. */
export const invocationIdleMs = 15 * 60_000;
/** Invocations are looked at this often. */
export const invocationSweepMs = 60_000;

/** Publications wait so long for others, and so many go together. */
export const publishGatherMs = 250;
export const publishTogether = 256;
/** Registers asked for in one question to the machine. */
export const lookupKeysMax = 512;

/** Bounds of sharing blobs with other nodes, each with its unit and its reason. */

/** What a client waits for one blob at most: this, and longer for large ones at the slowest rate worth waiting for. */
export const fetchBaseMs = 5_000;
export const fetchBytesPerMs = 1_000;
/** Added for each other blob that is being fetched: a slow disk makes two hundred files durable in a second. */
export const fetchEachMs = 5;
/** A blob that nobody had is missing at once for so long, however often it is asked for. */
export const missingMs = 2_000;
/** Blobs remembered as missing. */
export const missingMax = 65_536;
/** Wants gathered into one request to the planner. */
export const wantsPerTurn = 4_096;

/** Larger blobs are handed to the client while they still come; smaller ones once they are whole and verified. */
export const streamedBytesMin = 8 * 1024 * 1024;
/** Handed out only when the whole blob is verified: the end of a blob, without which nobody takes it for whole. */
export const heldBackBytes = 64 * 1024;
/** What readers of an arriving blob get at a time. */
export const readChunkBytes = 256 * 1024;
/** A reader that waits for a transfer to begin looks this often. */
export const arrivalPollMs = 10;
/** Blobs remembered to have come wrong, until they are here or given up. */
export const doubtedMax = 1_024;
/** Writes of one transfer under way while more comes in. */
export const writesAhead = 2;

/** Small blobs stored together, and bytes of them. */
export const storedTogether = 512;
export const storedTogetherBytes = 4 * 1024 * 1024;
/** Memory of such groups that waits to be used again. */
export const groupsFreeMax = 4;
/** What came and went is said at most this often, and of whom by name. */
export const transferLogMs = 5_000;
export const transferLogPeers = 4;
/** Progress is reported this often. */
export const progressMs = 100;
/** A busy holder that names no time is asked again after this. */
export const busyMs = 100;

/** Results asked for in one call, and how long further ones are waited for before it is sent while others are under way. */
export const resultsPerCall = 512;
export const resultGatherMs = 1;
/**
 * A result that nobody tells within this time is not waited for any longer: a first connection on a busy machine takes
 * some of it, and running an action again takes longer still.
 */
export const resultBudgetMs = 1_000;
/**
 * A lookup waits so long for the blobs of a result that was found: within what clients wait for an answer. They go on coming,
 * and a later lookup finds them.
 */
export const bringMs = 20_000;
/** Members asked for a result. */
export const resultPeersMax = 8;
/** A result of more bytes is not taken from others. */
export const resultBytesMax = 4 * 1024 * 1024;
/** All results of one answer. */
export const resultsBytesMax = 8 * 1024 * 1024 - 64 * 1024;
/**
 * A member that did not answer is not asked for results for so long, doubling each time up to the second: a link that is
 * full for a moment must not take the only holder away for long.
 */
export const silentPauseMs = 500;
export const silentPauseMsMax = 4_000;
/** One that told something untrue is not asked for so long, doubling each time up to the second. */
export const benchMs = 60_000;
export const benchMsMax = 30 * 60_000;

/** Blobs of one closure that is seeded, and the size of a message that is read for it. */
export const closureMax = 1_000_000;
export const messageBytesMax = 64 * 1024 * 1024;
/** Blobs asked about in one call; those up to the next size travel together, so many bytes in one call. */
export const seedDigestsPerCall = 4_096;
export const seedBatchedBytesMax = 1024 * 1024;
export const seedBatchBytes = 4 * 1024 * 1024;
/** What members may hand over in this time is a share of the cache. */
export const seedWindowMs = 24 * 60 * 60 * 1_000;
export const seedShare = 0.4;
/** A request for progress waits so long for news. */
export const seedReportMs = 500;
/** Results that wait to be handed on to members of the site. */
export const replicationsMax = 10_000;

/** What is kept for a promise that is about to be made is let go when none was made within this time. */
export const unpromisedMs = 60_000;
/** Promises that ended, and those made otherwise, are looked for this often. */
export const promisesLookMs = 15_000;

/** Every bound of the records of builds. */

/** Records kept on disk; the oldest go first. */
export const buildsMax = 200;
export const buildsBytesMax = 256 * 1024 * 1024;
export const buildAgeMaxMs = 30 * 24 * 3_600_000;

/** Of one build; what comes beyond is counted, not kept. */
export const buildBytesMax = 64 * 1024 * 1024;
/** Builds under way at once; the one that was silent longest is closed for one more. */
export const openBuildsMax = 64;
/** A build ends when nothing was heard of it for so long: the protocol has no word for its end. */
export const buildIdleMs = 60_000;

/** Lines are written this long after they came, or when so much has gathered. */
export const flushMs = 500;
export const flushBytes = 64 * 1024;
/** Lines that wait for a slow disk, all builds together; more are dropped and counted. */
export const pendingBytesMax = 8 * 1024 * 1024;

/** Runs under way that are followed. */
export const openRunsMax = 40_000;
/** What is kept of the way of one run: first and last are what explains it. */
export const historyMax = 40;
export const slowestKept = 20;
export const failuresKept = 20;
/** Executors told apart in one build; the rest are counted together. */
export const nodesMax = 64;

/** Texts that clients give. */
export const idCharsMax = 200;
export const mnemonicCharsMax = 100;
export const targetCharsMax = 500;
export const errorCharsMax = 1_000;

/** Recent results of lookups, for the run time that a hit saved. */
export const recentResultsMax = 4_096;

/** Records that one `explain` looks through, newest first, and requests that it shows. */
export const explainBuildsMax = 50;
export const explainedMax = 20;
/** The least of a digest that names an action. */
export const prefixCharsMin = 4;

/** Actions under way that one frame of `top` lists. */
export const topActionsMax = 200;

/** Every bound of the audit. */

/** Read at once from each of two files that are compared. */
export const chunkBytes = 256 * 1024;
/** Shown before and from the first byte that differs. */
export const contextBytes = 8;
export const shownBytes = 16;
/** Differing outputs told of one mismatch, and lines told of one output. */
export const outputsMax = 50;
export const summaryLinesMax = 20;
/** Members of an archive and sections of an object that are looked at. */
export const archiveMembersMax = 20_000;
export const sectionsMax = 10_000;
/** A longer name of a member or section is cut: whoever made the file chose it. */
export const nameCharsMax = 256;
/** What is read of two files to say in what they differ, in sizes of both; sections may lie on top of each other. */
export const readFactor = 8;
/** Tables of names in archives and objects, read into memory. */
export const namesBytesMax = 16 * 1024 * 1024;
/** A message that lists an output directory. */
export const treeBytesMax = 64 * 1024 * 1024;
/** Entries of all output directories of one result. */
export const entriesMax = 100_000;

/** Mismatches that are remembered, and with them the results that are not believed any more. */
export const mismatchesMax = 2_000;

/** Hits that wait for their audit; more are passed over. */
export const waitingMax = 64;
/** Actions that were audited lately, and for how long one is not sampled again. */
export const auditedMax = 10_000;
export const auditedForMs = 24 * 3_600_000;
/** Nothing may have run or been asked for here for so long before an audit begins. */
export const idleMs = 10_000;
/** How often that is looked at while something waits. */
export const idlePollMs = 2_000;
/** Audits of sampled hits within an hour. */
export const auditsPerHour = 120;
/** Tries to have a run that differs made by somebody else, and the time between them: others may be busy. */
export const elsewhereTries = 3;
export const elsewherePauseMs = 3_000;
/** A re-execution, with its fetches, takes no longer. */
export const rerunMaxMs = 3_600_000;
/** What was asked for by hand and how it ended. */
export const jobsMax = 32;

/** Denouncements that this node sends, and takes from one member, within an hour. */
export const denouncementsPerHour = 60;
/** Telling one member. */
export const tellMs = 10_000;
/** Denouncements that proved nothing, as the audit shows them. */
export const refusedShown = 20;
export const denouncementBytesMax = 4 * 1024 * 1024;

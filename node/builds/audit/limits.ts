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
/** Tables of names in archives and objects, read into memory. */
export const namesBytesMax = 16 * 1024 * 1024;
/** A message that lists an output directory. */
export const treeBytesMax = 64 * 1024 * 1024;
/** Entries of all output directories of one result. */
export const entriesMax = 100_000;

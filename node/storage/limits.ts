/** Every bound of the store, with its unit. */

/** Larger blobs are a file each, smaller ones a value in the index: two 4 KiB pages less their headers (ADR 0003). */
export const smallBlobBytesMax = 8_000;

/** The longest chunk of a blob that is kept as a list of chunks: that of FastCDC with the average REAPI recommends. */
export const chunkBytesMax = 2 * 1024 * 1024;
/** A list of shorter chunks, on average, is not worth its reads. */
export const chunkMeanBytesMin = 32 * 1024;
/** Chunks in lists that are kept decoded (about 300 bytes each); a longer list would be decoded at every use. */
export const knownChunksMax = 50_000;

/** Below this the index itself would be most of the cache. */
export const sizeLimitMinBytes = 8 * 1024 * 1024;
/** Eviction goes on until this share of the limit is in use, so that it runs seldom and in large strides. */
export const lowWatermarkShare = 0.9;
/** The index holds small blobs up to this share of the limit; beyond it they become files, whose space can be given back. */
export const indexShareMax = 0.25;
/** How long a write waits for others under way to end when nothing is left to evict. */
export const reserveWaitMs = 10_000;
/** It looks again this often. */
export const reserveRetryMs = 500;
/** Entries evicted in one transaction. */
export const evictBatchEntries = 512;

/** Index changes in one transaction. */
export const commitBatchChanges = 4_096;
/** Bytes of values in one transaction. */
export const commitBatchBytes = 16 * 1024 * 1024;
/** A longer value (a list of chunks, a large result) needs so many free pages in a row that the index may grow by all of it. */
export const indexRunBytesMax = 16 * 1024;
/** What one change may add to the index besides its value: its pages are written anew before the old ones are free. */
export const indexBytesPerChange = 1_024;
/** Left free on the disk by index growth, so that evicting is possible on a disk that others filled. */
export const diskReserveBytes = 512 * 1024;

/** Recency updates wait in memory this long at most, and at most this many. */
export const touchFlushMs = 5_000;
export const touchesMax = 16_384;

/** Presence looked up before others get a turn: about 10 ms. */
export const lookupsPerTurn = 8_192;

/** Chunks that readers yield and that verification reads. */
export const readChunkBytes = 256 * 1024;
/** A write gathers incoming chunks up to this size before it goes to the disk. */
export const writeGatherBytes = 512 * 1024;
/** Bytes of an arriving blob that are sent to the disk together while more come. */
export const syncAheadBytes = 64 * 1024 * 1024;
/** Files of one `putMany` written at a time. */
export const putManyFiles = 32;
/** Directories synced at a time. */
export const directorySyncs = 2;
/** Files hashed at a time by `verify`. */
export const verifyFiles = 2;
/** Files remembered as hashed since this process started. */
export const verifiedFilesMax = 65_536;
/** Digests remembered, over all, as the contents of Trees and Directory hierarchies. */
export const closureDigestsMax = 500_000;
/** Directories followed in one hierarchy, and the size of a Tree or Directory that is expanded. */
export const closureDirectoriesMax = 100_000;
export const closureMessageBytesMax = 64 * 1024 * 1024;
/** Missing blobs named in one error. */
export const namedMissingMax = 50;
/** Keys read from the index at a time when going through all of it. */
export const verifyPageEntries = 512;
/** Time between two reports of progress. */
export const progressMs = 250;

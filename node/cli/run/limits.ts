/** Every bound of `potluck run`, with its unit. */

/** Input files hashed at the same time. */
export const hashesAtOnce = 8;
/** ByteStream uploads, batch uploads or downloads at the same time. */
export const transfersAtOnce = 4;
/** Digests in one FindMissingBlobs request. */
export const digestsPerQuery = 10_000;
/** Larger blobs travel alone, by ByteStream. */
export const batchedBlobBytesMax = 512 * 1024;
/** Blobs of one batch, when the server allows as much; leaves room for framing within a 4 MiB message. */
export const batchBytesMax = 4_000_000;
/** Bytes counted per blob of a batch beside its content: digest and framing. */
export const batchEntryBytes = 160;
/** Of one ByteStream message. */
export const chunkBytes = 256 * 1024;
/** A broken Execute stream is taken up again this often before Execute is started again. */
export const waitAttemptsMax = 5;
export const retryDelayMs = 200;
/** For every call that is not expected to wait for the command. */
export const callTimeoutMs = 60_000;
/** How long the first answer may take: longer, and nobody is there. */
export const connectTimeoutMs = 10_000;
/** How long Ctrl-C waits for the server to confirm. */
export const cancelTimeoutMs = 2_000;
/** A Tree message that describes an output directory. */
export const treeBytesMax = 64 * 1024 * 1024;
/** Files, directories and links of all output directories together. */
export const outputEntriesMax = 1_000_000;

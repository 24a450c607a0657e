/** Every bound of the REAPI server, with its unit. */
const KiB = 1024;
const MiB = 1024 * KiB;

export const limits = {
  /** Largest message the server takes: a batch at its limit with all overhead, or some 200,000 digests to look up. */
  messageBytesMax: 16 * MiB,
  /** Largest message our own client takes or sends. */
  clientMessageBytesMax: 64 * MiB,
  /** What receivers take by default; responses that the server composes itself stay below. */
  responseBytesMax: 4 * MiB - 4 * KiB,
  /** Sum of the blobs of one batch call; leaves room for digests and framing within a 4 MiB message. */
  batchBytesMax: 4_000_000,
  /** HTTP/2 flow-control window of one stream: what a slow handler lets pile up at most. */
  streamWindowBytes: 1 * MiB,
} as const;

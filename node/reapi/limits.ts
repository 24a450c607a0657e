/** Every bound of the REAPI server, with its unit. */
const KiB = 1024;
const MiB = 1024 * KiB;

export const limits = {
  /** UTF-16 units of an instance name. */
  instanceNameCharsMax: 1024,

  // Transport.

  /** Largest message the server takes: a batch at its limit with all overhead, or some 200,000 digests to look up. */
  messageBytesMax: 16 * MiB,
  /** Largest message our own client takes or sends. */
  clientMessageBytesMax: 64 * MiB,
  /** HTTP/2 flow-control window of one stream: what a slow handler lets pile up at most. */
  streamWindowBytes: 1 * MiB,
  /** The same for one connection; it never holds streams back, they do that one by one. */
  connectionWindowBytes: 16 * MiB,
  /** Largest HTTP/2 frame we take. */
  frameBytesMax: 64 * KiB,
  /** Calls at once on one connection. */
  streamsMax: 4096,
  /** Connections at once on one address. */
  connectionsMax: 1024,
  /** All headers of one call. */
  headerBytesMax: 64 * KiB,
  /** What a status says in headers, its text as encoded and its details before base64: many clients take 8 KiB in all. */
  statusTextBytesMax: 2 * KiB,
  statusDetailsBytesMax: 3.5 * KiB,
  /** Request messages queued for a handler that takes a stream of them; one message may exceed it. */
  queuedRequestBytesMax: 256 * KiB,
  /** What one queued request costs besides its bytes. */
  requestOverheadBytes: 256,
  /** Request bytes of all calls together that wait to be complete or to be pulled, or that a handler works on. */
  bufferedRequestBytesMax: 512 * MiB,
  /** Response bytes of one call that wait for the client, and of all calls together. */
  unsentBytesMax: 1 * MiB,
  unsentBytesOfAllMax: 512 * MiB,
  /** How long a call waits for its client to send the next request, or to read; then it is ended. */
  stalledMs: 10 * 60_000,
  /** How long a new connection may take to say that it speaks HTTP/2. */
  helloMs: 20_000,
  /** How long a connection without calls is kept. Clients that still want it open another. */
  idleConnectionMs: 30 * 60_000,
  /** How long a client may go on sending, or not reading, after the status of its call. */
  discardMs: 10_000,
  /** A connection that is silent for so long is probed by the kernel, which drops it when nobody answers. */
  keepaliveMs: 60_000,
  /** What Node's timers can count to. */
  timerMsMax: 2 ** 31 - 1,

  // Messages that the server composes.

  /** What receivers take by default. */
  responseBytesMax: 4 * MiB - 4 * KiB,
  /** So many digests of any function fit in a response: one of SHA512 takes 145 bytes. */
  missingSurelyFit: 28_000,
  /** Sum of the blobs of one batch call; leaves room for digests and framing within a 4 MiB message. */
  batchBytesMax: 4_000_000,
  /** Blobs of one batch read: an answer that says why one is not there takes some 300 bytes. */
  batchReadBlobsMax: 12_000,
  /** Of them, blobs read, or asked of other members, at a time. */
  batchReadsAhead: 128,
  /** Sum of what the compressed blobs of one batch call unpack to. */
  batchUnpackedBytesMax: 64 * MiB,
  /** Directories in one message of GetTree, and in one tree. */
  treePageMax: 1000,
  treeDirectoriesMax: 1_000_000,
  /** Largest Directory or Tree that is parsed. */
  directoryBytesMax: 16 * MiB,

  // Compression.

  /** Frames in one compressed field of a message: each costs some 20 µs. */
  zstdFramesMax: 64,
  /** Uploads that are unpacked at once, each with a window of up to 8 MiB. */
  zstdUploadsMax: 256,
  zstdWindowLogMax: 23,
  /** Unit in which streams come out of the compressor. */
  zstdChunkBytes: 128 * KiB,

  // Uploads.

  /** How long the answer to a finished upload waits for the client's half-close. */
  halfCloseMs: 100,
  /** What is stored in one step instead of being streamed. */
  smallBlobBytes: 256 * KiB,
  /** Broken-off uploads that wait to be resumed: how many, the sizes of their blobs together (one waits in any case), how long. */
  pausedUploadsMax: 64,
  pausedUploadBytesMax: 4096 * MiB,
  pausedUploadMs: 10 * 60_000,

  // Chunking.

  /** Average chunk size of FastCDC, a power of two; the shortest is a quarter of it, the longest four times it. */
  chunkAverageBytes: 512 * KiB,
  /** Chunks stored at the price of one sync. */
  splitBatchBytes: 8 * MiB,
  /** Chunks that are remembered, of all blobs that were split. */
  chunksRememberedMax: 200_000,
  /** Chunks of one SpliceBlob call. */
  spliceChunksMax: 200_000,

  // Remote assets.

  /** URIs of one request. */
  assetUrisMax: 100,
  /** Fetches from origins at once, and how long one call may fetch. */
  assetFetchesMax: 16,
  assetFetchMs: 30 * 60_000,

  /** Range of priorities, for executions and for results; 0 is the default, lower is sooner. */
  priorities: { min: -1000, max: 1000 },
} as const;

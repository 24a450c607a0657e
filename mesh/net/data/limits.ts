/** Every bound of the data plane, with its unit. */

/** A connection that has not proven membership by then is closed. */
export const handshakeMs = 3_000;
/** A peer whose address does not answer in this time counts as away: addresses are of one's own network. */
export const connectMs = 250;
/** The next address of a peer is tried beside the first after this time. */
export const connectStaggerMs = 20;
/** Addresses of one peer that are tried. */
export const addressesMax = 8;
/** Certificate and signature of one side. */
export const helloBytesMax = 16 * 1024;
/** Connections whose other end has not proven anything yet, all together and from one address. */
export const strangersMax = 128;
export const strangersPerAddressMax = 32;

/** Connections served, all together and for one member. */
export const connectionsMax = 1_024;
export const connectionsPerPeerMax = 16;
/** Connections opened to one member, and how many of them are kept for later. */
export const pooledPerPeerMax = 8;
export const pooledIdlePerPeerMax = 4;
/** Requests to one member that wait for a connection; one more is refused. */
export const queuedPerPeerMax = 1_024;
/** A connection on which nothing moved for so long is closed; the client's is shorter, so that it seldom loses the race. */
export const serverIdleMs = 90_000;
export const clientIdleMs = 60_000;
/** A response on which nothing moved for so long is broken off. */
export const stallMs = 5_000;
/** Bytes of a body that are gathered before they are handed on, and come in meanwhile. */
export const gatherBytes = 256 * 1024;
/** Gathered memory that waits to be used again, in pieces of that size. */
export const gatheredFreeMax = 32;
/** What one connection takes out of TLS at a time: a record. */
export const inboxBytes = 16 * 1024;
export const headerBytesMax = 8 * 1024;
/** For the head of a request, and for a small body; how often late heads are looked for. */
export const headersMs = 10_000;
export const bodyMs = 30_000;
export const lateCheckMs = 5_000;
/** A blob that is handed over comes at least this fast on average, or the connection is closed. */
export const takenBytesPerMs = 64;
/** The longest that a timer of Node can run. */
export const timerMsMax = 2 ** 31 - 1;
/** A member that has not taken what was written for so long is closed: it holds an upload that others wait for. */
export const drainMs = 30_000;

/** Blobs of one batch, the size of each, and of all together. */
export const batchBlobsMax = 4_096;
export const batchBlobBytesMax = 1024 * 1024;
export const batchBytesMax = 32 * 1024 * 1024;
/** The text of a batch's request: its digests, a line each. */
export const batchRequestBytesMax = batchBlobsMax * 160;
/** Blobs of a batch read at a time. */
export const batchReadsAhead = 16;
/** Bytes of small blobs gathered into one write. */
export const batchWriteBytes = 256 * 1024;
/** Body and answer of a call. */
export const callBytesMax = 8 * 1024 * 1024;
/** Bodies of calls held in memory at once, all members together. */
export const heldCallBytesMax = 64 * 1024 * 1024;
/** Of them those of one member. */
export const heldCallBytesPerPeerMax = 16 * 1024 * 1024;
/** The name of a call. */
export const callNameMax = 32;

/** Uploads at once, unless configured: to all, and to one member. */
export const uploadsDefault = 64;
export const uploadsPerPeerDefault = 16;
/** An upload waits for its turn so long before its client is told to ask elsewhere. */
export const uploadWaitMs = 100;
/** Uploads that wait. */
export const uploadsWaitingMax = 512;
/** A burst that a capped uplink may take at once. */
export const uploadBurstMs = 100;
/** Others that a busy member may name. */
export const tryPeersMax = 16;
/** Longest wait that a busy member may ask for. */
export const retryAfterMsMax = 10_000;

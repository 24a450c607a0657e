/** Every bound of the HTTP server. */

/** An ActionResult sent to `/ac/`. */
export const resultBytesMax = 16 * 1024 * 1024;
/** A CAS body whose length is not known beforehand (it came compressed) is held in memory up to this size. */
export const bufferedBlobBytesMax = 64 * 1024 * 1024;
/** All bodies held in memory together; one more is answered 503. */
export const bufferedBytesMax = 256 * 1024 * 1024;
/** What such a client is told to wait. */
export const retryAfterSeconds = 2;
/** Smaller blobs are sent as they are, whatever the client accepts. */
export const compressedBytesMin = 1024;

export const connectionsMax = 512;
/** For the whole header of a request. */
export const headersMs = 20_000;
/** A connection on which nothing moves for so long is closed. */
export const idleMs = 120_000;
/** For a whole request, body included. */
export const requestMs = 3_600_000;
export const headerBytesMax = 16 * 1024;

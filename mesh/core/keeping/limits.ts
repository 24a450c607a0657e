/** Bounds of keeping, each with its unit and its reason. */

/** Holders that promise, for a blob to count as kept: one may go. */
export const keepersWanted = 2;
/** Blobs in one request. */
export const blobsPerRequest = 512;
/** Requests of others that wait for their pins at once, and requests of our own; more are answered with nothing. */
export const requestsMax = 256;
/** A holder that has not answered by then is passed over, and another is asked. */
export const answerMs = 500;

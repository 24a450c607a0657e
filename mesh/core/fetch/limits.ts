/** Bounds of fetching and serving, each with its unit and its reason. */
import type { Locality } from './types.ts';

/** Blobs up to this size travel many in one request... */
export const batchedBytes = 1024 * 1024;
/** ...of at most so many bytes and blobs: a quarter of a second on a slow link. */
export const batchBytesMax = 4 * 1024 * 1024;
export const batchBlobsMax = 512;
/** Blobs from this size on are fetched in ranges, from several holders where there are... */
export const stripedBytes = 8 * 1024 * 1024;
/** ...of this size: large enough for a full window, small enough that a slow holder can be dropped. */
export const rangeBytes = 4 * 1024 * 1024;

/** Transfers under way at once, in all and from one holder. */
export const transfersMax = 64;
export const transfersPerHolder = 4;
/** Ranges are asked of a holder that does less than this; one comes while the next is asked for. */
export const rangesPerHolder = 2;
/** Blobs being fetched at once; more wait. */
export const fetchesMax = 8_192;
/** Wants that are not done; more fail at once as over budget, so that memory holds. */
export const wantsMax = 65_536;
/** Failed deliveries of one blob beyond one for each of its ranges, before it counts as missing. */
export const deliveriesFailedMax = 12;
/** Times that one holder is asked for one blob when the connection breaks, and the wait between. */
export const failuresMax = 2;
export const retryMs = 250;
/** Wait before asking again a node that has not got the piece yet, doubling up to the longest... */
export const earlyMs = 150;
export const earlyMsMax = 2_000;
/** ...and how often, when nobody else is known to have it. */
export const earlyMax = 6;
/** Longest wait that a busy holder may ask for, and its doubling when it is busy again and again. */
export const busyMsMax = 2_000;
export const busyDoublingsMax = 1;

/** A transfer without progress for this long is broken: several losses on a poor Wi-Fi. */
export const stallMs = 3_000;
/** A driver reports progress about this often. */
export const progressMs = 100;

/** Hedging: expected time times the measured 95th percentile of (taken / expected), within these bounds, in percent. */
export const hedgePercentile = 95;
export const hedgeSamples = 128;
export const hedgeSamplesMin = 16;
export const hedgePercentMin = 150;
export const hedgePercentMax = 1_000;
/** Used until there are samples. */
export const hedgePercentUnknown = 300;
/** No transfer is hedged before this: it is not worth a second connection. */
export const hedgeMsMin = 50;
/** Hedges allowed: a few, and a share of all transfers, in percent; a slow mesh is not made slower. */
export const hedgesFree = 4;
export const hedgePercentOfTransfers = 5;

/** What is assumed of a holder that was not measured, by locality: round trip, and bytes in a millisecond. */
export const assumedRoundTripMs: { readonly [L in Locality]: number } = { host: 1, subnet: 2, site: 5, other: 40 };
export const assumedBytesPerMs: { readonly [L in Locality]: number } = {
  host: 200_000,
  subnet: 50_000,
  site: 20_000,
  other: 2_000,
};
/** How much slower a nearer holder may be and is still preferred: links between sites are shared by many. */
export const distanceFactor: { readonly [L in Locality]: number } = { host: 1, subnet: 1, site: 2, other: 8 };
/** A suspected holder is asked when others would take this much longer. */
export const suspectFactor = 16;
/** Transfers below this say nothing about throughput. */
export const measuredBytesMin = 64 * 1024;

/** Serving. Requests for one large blob at once; more are sent to those who have it from here. */
export const uploadsPerBlob = 4;
/** Requests of one node at once. */
export const uploadsPerNode = 8;
/** Blobs from this size on are remembered with those who got them... */
export const rememberedBytes = 1024 * 1024;
/** ...so many blobs, and so many nodes of each. */
export const rememberedBlobs = 1_024;
export const rememberedNodes = 16;
/** Nodes named in a refusal. */
export const tryNodesMax = 4;
/** What may be sent at once after a quiet time, in milliseconds of the upload budget. */
export const uploadBurstMs = 1_000;
/** Shortest wait that a refusal asks for. */
export const refusalMsMin = 50;

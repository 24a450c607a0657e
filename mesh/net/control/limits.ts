/** Bounds of the control streams, each with its unit and its reason. */

/** One frame: a part of a whole view, or the places of one announcement, several times over. */
export const frameBytesMax = 1024 * 1024;
/** Frames and bytes that wait for one member; beyond it the newest are dropped, as a lossy network would. */
export const framesWaiting = 4_096;
export const bytesWaiting = 4 * 1024 * 1024;
/** Bytes of parts of snapshots that wait for one member, behind everything else. */
export const partsBytesWaiting = 16 * 1024 * 1024;
/** Frames that could not be sent for so long, because there is no connection, are old news: claims last as long. */
export const frameAgeMs = 10_000;
/** Between two tries to connect while something waits that is still news. */
export const retryMs = 250;
/** For opening a stream on a connection, which is tried again then. */
export const openMs = 1_500;
/** Between two echoes on a link, first and later: they keep it from timing out and measure its round trip. */
export const echoMsMin = 1_000;
export const echoMsMax = 45_000;
/** Links are looked at no more often than this while all of them are quiet: each look wakes the processor up. */
export const quietLookMs = 5_000;
/** A connection on which echoes stay unanswered for so long is cut: far above what a busy machine needs. */
export const silentMs = 20_000;
/** A round of echoes that comes this late means that this node stood still. */
export const standstillMs = 5_000;
/** The shortest of so many counts: the others tell of busy machines more than of the link. */
export const roundTripsKept = 8;
/** A far end that reads nothing for so long is gone, whatever TCP says. */
export const stuckMs = 10_000;
/** For what was sent to leave this machine when the node stops. */
export const partingMs = 500;
/** Lists and texts within one message. */
export const rumoursMax = 128;
export const placesMax = 16_384;
export const nodesMax = 4_096;
export const contactsMax = 256;
export const noticesMax = 256;
export const textMax = 512;
export const blobsMax = 8_192;
/** An action's name ends with an instance name, which has at most 1,024 characters. */
export const keyMax = 1_536;
export const shardsMax = 65_536;
/** Voters or learners of a group; five and one, and as many again while histories meet. */
export const replicasMax = 16;
export const heartbeatsMax = 1_024;
export const entriesMax = 1_024;
/** Registers, commands and keys in one message; and in one snapshot. */
export const registersMax = 1_024;
export const snapshotRegistersMax = 32_768;
/** A part of a snapshot, and how many there may be: registers of 4 MiB, in which every character takes three bytes. */
export const snapshotPartBytes = 512 * 1024;
export const snapshotPartsMax = 64;
/** Holders of one register. */
export const promisesMax = 16;
/** Actions or claims in one message: a node submits and runs no more at once. */
export const claimsMax = 16_384;
export const hintsMax = 4_096;
export const capabilitiesMax = 64;
/** Small hashes in the sketch of an input tree, or of a store. */
export const sketchMax = 1_024;
/** Executors that a submitter drained. */
export const avoidMax = 16;
/** Hand-overs whose promises are remembered until the commit; what is beyond that is committed with fewer promises. */
export const proofsKept = 4_096;
/** Between two looks whether everybody has answered. */
export const settlePollMs = 5;

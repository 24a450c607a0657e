/** Bounds of the network as a whole, each with its unit and its reason. */

/** How often expiry, renewal and revocations are looked at: revocation reaches whoever missed the gossip within this. */
export const tendMs = 30_000;
/** A refusal of one peer is told once in so long, and so many in all: a stranger may knock often, with many keys. */
export const refusalLogMs = 60_000;
export const refusalsTold = 32;
/** Certificates or revocations in one frame. */
export const partBytesMax = 256 * 1024;
/** The address book is written this long after it changed. */
export const saveMs = 2_000;
/** Addresses that one member may give for another. */
export const addressesPerContact = 8;
/** A renewed certificate is given again for so long, to so many members, instead of another. */
export const renewedMs = 60_000;
export const renewalsKept = 256;
/** A member that asks for all revocations gets them at most once in so long. */
export const tellAllMs = 5_000;
/** Whose membership was revoked is told so on its open connection, which is cut after this. */
export const lastWordsMs = 200;

/** Bounds of the network as a whole, each with its unit and its reason. */

/** How often expiry, renewal and revocations are looked at: revocation reaches whoever missed the gossip within this. */
export const tendMs = 30_000;
/** A refusal of one peer is told once in so long; a stranger may knock often. */
export const refusalLogMs = 60_000;
export const refusalsKept = 256;
/** Between two requests for renewal. */
export const renewMs = 60_000;
/** The address book is written this long after it changed. */
export const saveMs = 2_000;
/** Addresses that one member may give for another. */
export const addressesPerContact = 8;
/** Channels of parcels. */
export const channelsMax = 32;
/** Between two looks whether everything was sent. */
export const idlePollMs = 5;
/** For the last words to get through the encryption to the sockets when the node stops. */
export const flushMs = 20;

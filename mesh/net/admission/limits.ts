/** Bounds of admission, each with its unit and its reason. */

/** For a whole admission, from the encrypted connection to the verdict: a slow link's round trips and a sync of the disk. */
export const admissionMs = 5_000;
/** A hello: a certificate, or a request to join. */
export const helloBytesMax = 8 * 1024;
/** A grant: with the revocations and contacts of a large mesh. */
export const grantBytesMax = 1024 * 1024;
/** How long the issuer waits for the new member to hang up, so that the grant has arrived. */
export const partingMs = 2_000;
/** Contacts in a grant. */
export const contactsMax = 64;
export const nonceBytes = 16;

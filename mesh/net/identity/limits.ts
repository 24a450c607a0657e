/** Bounds of identity and joining, each with its unit and its reason. */

/** Clocks of members may differ by this much, in milliseconds; wall clocks of laptops that woke up do. */
export const skewMs = 10 * 60_000;
/** Life of a membership; it renews from half of it on, so a holiday of two weeks costs nobody the mesh. */
export const membershipMs = 30 * 24 * 3_600_000;
/** Life of a delegation; the administrator's node renews it from half-life on. */
export const delegationMs = 365 * 24 * 3_600_000;
/** Life of an invitation unless one is given, and the longest that can be given. */
export const invitationMs = 3_600_000;
export const invitationMaxMs = 7 * 24 * 3_600_000;
/** Invitations remembered at once, burnt ones included until they expire. */
export const invitationsMax = 1_024;
/** Secret of an invitation: as many bits as sixteen typed letters carry, far beyond guessing within its life. */
export const secretBytes = 10;
/** A certificate with its delegation. */
export const certificateBytesMax = 4_096;
export const rolesMax = 16;
export const roleLengthMax = 32;
export const nameLengthMax = 64;
/** Revocations of one revoker that are kept; an issuer that makes more is broken or hostile. */
export const revocationsPerRevokerMax = 1_024;
/** Revokers whose revocations are kept. */
export const revokersMax = 256;
/** A revocation with its delegation; one of the administrator may list whom to keep of a removed issuer, in one frame. */
export const revocationBytesMax = 1_024;
export const removalBytesMax = 768 * 1_024;
/** Public keys kept ready for checking signatures. */
export const keysCachedMax = 1_024;
/** Addresses in a token. */
export const addressesMax = 8;
/** Shards of a new mesh: enough that their leaders are spread over an office, few enough that one node carries them alone. */
export const shards = 16;
/** Members whose certificates are kept: as many as the membership machine knows. */
export const membersMax = 10_000;

/** Bounds of the membership machine, each with its unit and its reason. */

/** One protocol period: every node probes one other in each. */
export const periodMs = 1_000;
/** How long a direct probe may take before others are asked: several Wi-Fi round trips. */
export const probeTimeoutMs = 300;
/** Others asked to probe in our place; three of them make a lossy link of our own improbable as the cause. */
export const indirectProbes = 3;
/** Rumours carried by one message, so that a message stays within one datagram's order of size. */
export const rumoursPerMessage = 8;
/** A rumour is passed on this many times per doubling of the mesh: enough that loss of a third does not stop it. */
export const transmitsPerDoubling = 3;
/** Rumours waiting to be passed on; a mesh that forms at once has more to say than gossip carries. */
export const newsMax = 128;
/** Shortest and longest suspicion, in periods per doubling of the mesh; confirmations move it from long to short. */
export const suspicionPeriodsMin = 1;
export const suspicionPeriodsMax = 3;
/** Independent accusers after which a suspicion takes its shortest time. */
export const confirmationsMax = 3;
/** Highest self-doubt: a node stretches its own time-outs by up to this factor plus one (Lifeguard, section IV.A). */
export const selfDoubtMax = 8;
/** A wake this late means that this node stood still, and that its own missing answers prove nothing. */
export const lateWakeMs = 500;
/** Periods between reconciliations with a random member. */
export const syncPeriods = 10;
/** Periods between probes of a random absent member, so that healed partitions find each other. */
export const absentProbePeriods = 2;
/** Rumours in one part of a whole view. */
export const syncRumours = 128;
/** Members known at most, absent ones included; beyond it the longest absent are forgotten. */
export const membersMax = 10_000;
/** Incarnations reserved on disk at once, so that raising one needs no write. */
export const incarnationReserve = 64;
/** Ping requests being relayed at once; more are answered by silence. */
export const relaysMax = 64;

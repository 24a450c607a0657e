/** Bounds of the mesh in a node, each with its unit and its reason. */

/** How long a farewell may take before the node stops without it. */
export const farewellMs = 500;
/** How long a node that stops tries to hand over the shards that it leads, and how often it looks whether it has. */
export const handOverMs = 2_000;
export const handOverPollMs = 20;
/** What happens to many shards at once is one line of the log: notes are gathered for so long. */
export const coordinationLogMs = 1_000;
/** The own data address and power are looked at again so often. */
export const factsMs = 30_000;
/** One administration request, and its answer. */
export const adminBytesMax = 64 * 1024;
/** Uploads of this node together unless the configuration says otherwise: a link of 10 Gbit/s, which is no bound. */
export const uploadBytesPerSecond = 1_250_000_000;
export const uploadsMax = 64;
/** Longest path that a Unix socket can have on every system, less some room for its name. */
export const socketPathBytesMax = 100;
/** A lock that is held longer than this was left behind by a process that died. */
export const lockMs = 10_000;
/** A mesh that could not run is tried again after this long. */
export const wakeRetryMs = 30_000;

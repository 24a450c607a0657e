/** Every bound of the sandbox, with its unit. */

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

// The input tree.
/** Largest Directory message that is read into memory. */
export const directoryBytesMax = 16 * MiB;
export const treeDepthMax = 256;
/** Entries of an input tree once every repeated directory is counted each time it appears. */
export const treeEntriesMax = 1_000_000;
/** What Linux and macOS accept as one name. */
export const nameBytesMax = 255;
/** Parsed directories kept in memory, counted in entries (about 300 bytes each). */
export const parsedEntriesMax = 200_000;
export const directoryReadsMax = 32;
/** Missing blobs named in one error (about 100 bytes each, and a message ends at 4 MiB); the rest is found on retry. */
export const missingNamedMax = 20_000;

// Staging.
/** Files copied or linked at once by one action. */
export const fileStagingsMax = 16;
/** Read-only mounts of one action: bubblewrap's cost for them is quadratic (10: 0.7 ms, 50: 3.5 ms, 100: 9 ms). */
export const mountsMax = 32;
/** From this size a file next to outputs is mounted read-only instead of copied. */
export const mountedFileBytesMin = 1 * MiB;
/** Staged directories kept for the next action. They share their bytes with the store where links are possible. */
export const stagedEntriesMax = 200_000;
export const stagedBytesMax = 4 * GiB;

// Running.
/** Longest wall time a timer of Node can hold. */
export const timeoutMsMax = 2 ** 31 - 1;
export const openFilesMax = 16_384;
/** Largest file an action may write (RLIMIT_FSIZE). */
export const fileBytesMax = 16 * GiB;
/** Share of this machine's memory one action may use, and the size of its private /tmp. */
export const memoryShareMax = 0.75;
export const tmpBytesMax = 4 * GiB;
export const sharedMemoryBytesMax = 1 * GiB;
/** An action is killed when less than this is free on the disk it writes to, which is looked at this often. */
export const diskFreeBytesMin = 512 * MiB;
export const diskWatchIntervalMs = 500;
/** The same for the files it can hold (inodes): this share of all of them has to be free. */
export const diskFreeFilesShareMin = 0.02;
/** Processes and threads of one action. */
export const processesMax = 2_048;
/** How long a killed process tree may take to be gone before it is reported. */
export const killWaitMs = 10_000;
/** Processes that wait to become the next sandbox (about 1 MB each). */
export const spareLaunchersMax = 2;
/** Named pipes made by one run of `mkfifo`, which costs as much as starting any program; an action uses two. */
export const pipesMadeAtOnce = 32;
/** One argument or variable, and all of them: what Linux takes, less what bubblewrap is told besides. */
export const argumentBytesMax = 128 * KiB - 1;
export const argumentsBytesMax = 2 * MiB - 128 * KiB;
/** How often, and after which pause, a kill looks for the sandbox that bubblewrap is about to make. */
export const killLooksMax = 500;
export const killLookIntervalMs = 2;
/** Arguments of bubblewrap for the command; its own limit is 9,000 for all. */
export const bubblewrapArgumentsMax = 8_000;
/** The start-up trial of bubblewrap. */
export const trialTimeoutMs = 10_000;

/** When less than this share of the processors was idle, a guest that ran out of time may have had none of them. */
export const crowdedIdleShare = 0.1;

// Freezing.
/** How long a freeze or thaw is waited for, and how often it is looked at. */
export const freezeWaitMs = 1_000;
export const freezeLookMs = 2;

// Guests, all together.
/** Share of this machine's memory. */
export const guestMemoryShare = 0.5;
/** Share of what was free on the disk when the node started, and the most. */
export const guestDiskShare = 0.25;
export const guestDiskBytesMax = 20 * GiB;
/** What they wrote is added up this often, or less often when that would take more than this share of the time. */
export const guestDiskLookMs = 2_000;
export const guestDiskLookShare = 0.05;

// Standard output and error.
/** Held in memory before the rest goes to a file. */
export const captureMemoryBytesMax = 1 * MiB;
/** What is kept of one stream; the rest is dropped and a last line says so. */
export const captureBytesMax = 256 * MiB;

// Outputs.
export const outputEntriesMax = 1_000_000;
export const outputDepthMax = 256;
/** Output files hashed at once. */
export const outputReadsMax = 8;

// Cleaning up.
/** Finished actions whose directories are still being removed; a further action waits for them. */
export const removalsMax = 8;
/** Entries of a tree that the node removes itself; a program removes larger ones. */
export const removedHereMax = 1_000;

/** Bounds of the sensors, each with its unit and its reason. */

/** Battery, heat and the list of terminals change slowly, and are looked at this often. */
export const slowLookMs = 5_000;
/** The same for keyboards and mice: that one was plugged in. */
export const devicesLookMs = 15_000;
/** Below this use of all cores, in thousandths, nobody is busy, and our own part of it need not be found out. */
export const ownLookPermille = 50;
/** The price of traffic changes with the network, and costs a program to ask for. */
export const networkLookMs = 30_000;
/** Where only a program can tell of input, it is run this often: some 10 ms of processor time each. */
export const inputProgramMs = 2_000;
/** How long a program may take. */
export const programMaxMs = 2_000;
/** The kernel counts processor time in steps of 10 ms: two readings closer than this say nothing new. */
export const processorsMinMs = 200;
/** Share of the last ten seconds in which some program waited for memory, in percent, from which memory is short. */
export const pressurePercentMax = 10;
/** Processes of this node that are added up; beyond it the rest counts as the owner's. */
export const ownProcessesMax = 20_000;

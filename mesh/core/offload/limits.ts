/** Bounds of the offload policy, each with its unit and its reason. */

/** A free slot here is taken unless elsewhere takes less than this share of the time, in percent (icecream's rule). */
export const elsewherePercent = 70;
/** Below this measured throughput (100 Mbit/s) inputs are not shipped... */
export const shippingBytesPerMsMin = 12_500;
/** ...unless they are this small: that much passes on any link. */
export const shippedFreeBytes = 256 * 1024;
/** Assumed run time of an action of which nothing is known. */
export const unknownRunMs = 5_000;
/** Assumed wait until somebody claims an offer, until one was seen. */
export const unknownWaitMs = 200;
/** The longest wait for a claim that is learned from. */
export const waitMsMax = 2_000;
/** A new observation weighs one part in so many. */
export const observationShare = 4;
/** Families of actions, and pairs of node and mnemonic, of which something is remembered; the least recent go first. */
export const familiesMax = 50_000;
export const pairsMax = 4_096;
/** A node counts as at most so many times slower or faster than the mean, in percent. */
export const slownessPercentMin = 20;
export const slownessPercentMax = 1_000;
/** Runs shorter than this say nothing about a machine: starting the process is most of them. */
export const measuredRunMsMin = 50;

/** Stragglers: time expected times the measured 95th percentile, within these bounds, in percent. */
export const stragglerPercentMin = 150;
export const stragglerPercentMax = 1_000;
export const stragglerPercentUnknown = 400;
export const stragglerSamples = 64;
export const stragglerSamplesMin = 8;
/** Nothing is a straggler before this. */
export const stragglerMsMin = 2_000;
/** Local runs of stragglers: so many, and this share of all offers, in percent. */
export const hedgesFree = 2;
export const hedgePercent = 5;
/** Offers that are followed at once. */
export const offersMax = 10_000;

/** An executor with so many faults in a row takes no more of our actions... */
export const faultsToDrain = 3;
/** ...for this long, doubling up to the longest; then one action is a probe. */
export const drainMs = 30_000;
export const drainMsMax = 10 * 60 * 1_000;
/** Executors of which faults are remembered. */
export const marksMax = 1_024;

/** The machine is idle when the owner's use of the processors stayed below this, in thousandths of all... */
export const idlePermille = 100;
/** ...for this long, with nobody at the keyboard. */
export const enterIdleMs = 60_000;
/** It is not idle any more when it was above this for so long: half the time at most. */
export const busyPermille = 200;
export const leaveIdleMs = 15_000;
/** Input this recent means that somebody is there. */
export const inputMs = 30_000;
/** What still comes in this soon after the owner went was on its way: the key that locked the screen, let go. */
export const awayGraceMs = 2_000;
/** Memory that must be left for the owner; on a small machine this share of all. */
export const freeMemoryBytes = 2 * 1024 * 1024 * 1024;
export const freeMemoryShare = 1 / 8;
/** Without a sample for this long nothing is known, and the machine counts as in use. */
export const sampleMsMax = 10_000;

/** Bounds of the provider index, each with its unit and its reason. */

/** Points at which a node stands; with 16 the most loaded of 300 nodes keeps a third more than the mean (ADR 16). */
export const pointsPerNode = 16;
/** Nodes that keep the records of one blob: two may sleep. */
export const recordKeepers = 3;
/** Keepers that must have said so before "nobody has it" is believed. */
export const keepersForMiss = 2;
/** Parts of the space of places that are reconciled one by one; a power of two. */
export const regions = 256;

/** Changes wait this long for others, so that a build's outputs travel together. */
export const announceDelayMs = 100;
/** Changes that wait at most; more are sent at once. */
export const announceWaiting = 32_768;
/** Places in one announcement: 32 KiB. */
export const placesPerAnnouncement = 4_096;
/** Announcements under way at once, one per keeper. */
export const announcementsUnderWay = 32;
/** Changes that wait for one keeper; beyond it they are forgotten and the keeper is reconciled later. */
export const changesPerKeeper = 262_144;
/** An announcement without an answer is sent again, so many times; then its keeper is reconciled later. */
export const announceRetryMs = 1_000;
export const announceTries = 4;

/** Records follow a change of membership when nothing changed for this long: a lid that opens again moves nothing. */
export const settleMs = 10_000;
/** ...or for this long when most members are not among the keepers yet: the mesh is forming. */
export const formingMs = 1_000;
/** ...and at the latest after this long, so that a mesh where something always changes still follows. */
export const settleMsMax = 60_000;
/** An absent member keeps its place among the keepers for this long. */
export const absentMs = 60_000;
/** Records moved or compared in a second: about 80 kB/s of traffic beside the builds. */
export const sweptPlacesPerSecond = 20_000;
/** Shortest time between two regions of a sweep. */
export const sweepStepMs = 20;
/** Places looked at in one step of a sweep in which nothing has to be told: about a millisecond. */
export const lookedPerStep = 1_024;
/** Keepers whose regions are compared in one sweep. */
export const comparedKeepers = 64;
/** One keeper, drawn at random, is checked this often even when nothing seems wrong. */
export const checkMs = 10 * 60 * 1_000;
/** A keeper is not reconciled more often than this, however it answers. */
export const reconcileMs = 30_000;
/** A keeper that said it is full is told nothing more for this long. */
export const fullMs = 10 * 60 * 1_000;

/** Records kept for one provider; beyond it announcements are not taken. */
export const recordsPerProvider = 1_000_000;
/** Records kept in all: about 20 bytes each. */
export const recordsMax = 4_000_000;
/** Providers with records at once. */
export const providersMax = 65_535;
/** Records of a member that stayed away longer are dropped. */
export const hiddenMs = 24 * 60 * 60 * 1_000;

/** Places in one question. */
export const placesPerQuestion = 1_024;
/** Holders named in one answer for one place. */
export const holdersPerAnswer = 8;
/** Holders looked at for one answer: a blob that everybody has need not be searched to its end. */
export const holdersLookedAt = 256;
/** A keeper that has not answered by then is passed over: ten round trips of a busy Wi-Fi. */
export const answerMs = 150;
/** A keeper that did not answer is asked last for this long. */
export const silentMs = 5_000;
/** A find is over by then, whatever was answered. */
export const findBudgetMs = 600;
/** Finds under way; more are answered at once with nothing. */
export const findsMax = 1_024;

/** First bench of a node, by reason, and the longest: each further one doubles. Only lies are held against it for long. */
export const benchMs = { wrong: 5 * 60 * 1_000, absent: 10_000, unreachable: 5_000 } as const;
export const benchMsMax = { wrong: 30 * 60 * 1_000, absent: 60_000, unreachable: 30_000 } as const;
/** Blobs that a node may lack in `strikesMs` before it is benched: an eviction overtakes its announcement. */
export const strikes = 3;
export const strikesMs = 60_000;

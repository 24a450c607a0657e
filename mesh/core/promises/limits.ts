/** Bounds of the promises machine, each with its unit and its reason. */

/** The part of the disk that pins may take, in percent: eviction must keep room to work in. */
export const pinBudgetPercent = 60;
/**
 * How far into the pin budget each purpose may reach, in percent. A pin that was granted is never broken before it ends;
 * what comes first in the order of precedence can therefore only be favoured by what is left free for it.
 */
export const reachPercent = { ownClient: 100, handOver: 85, replica: 70, seed: 40 } as const;
/** Longest time that any pin is granted for: a build that forgot to release it must not keep it for ever. */
export const pinMsMax = 24 * 60 * 60 * 1_000;
/** Pins held at once, whatever their size. */
export const pinsMax = 200_000;
/** Reservations held at once: a few per execution slot. */
export const reservationsMax = 1_024;

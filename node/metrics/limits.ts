/** Every bound of the metrics: what an outsider chooses must not make labels without end. */

/** Instance names that get a label of their own, first come first served; all others share `other`. */
export const instanceLabelsMax = 50;
/** Errors that `status` shows. */
export const recentEventsMax = 20;

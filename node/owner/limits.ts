/** Bounds of the watch over the owner, each with its unit and its reason. */

/** The machine is looked at so often while guests may be here: the owner's first key is seen within this time. */
export const sampleMs = 1_000;

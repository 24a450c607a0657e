/**
 * What a re-execution says about a result. A pure rule: who ran what, and whether the outputs were the same.
 *
 * One member's word never drops what others use: that takes two members who ran the action anew, each with outputs that
 * differ from those that were known, and neither of them the one who made these. What a node saw with its own eyes, by
 * running the action itself, counts for itself.
 */

/** A run of the action and what came out. */
export interface Run {
  /** Peer id; this node's own outside of a mesh is ''. */
  readonly node: string;
  readonly fingerprint: string;
  /** It was no run of that node: a client brought the result. */
  readonly isUpload?: boolean;
}

export type Verdict =
  /** The same, bit for bit. */
  | { readonly kind: 'same' }
  /** Nobody else could run it a third time: nothing follows yet. */
  | { readonly kind: 'unconfirmed' }
  /** The third run agrees with the result that was known. */
  | { readonly kind: 'refuted' }
  /**
   * It does not come out as it was known. `nonDeterministic`: nor does it come out the same twice. `everywhere`: what was
   * found convinces others as well.
   */
  | { readonly kind: 'wrong'; readonly nonDeterministic: boolean; readonly everywhere: boolean };

/** @param self - whose runs this node believes whatever others say */
export function judge(self: string, known: Run, again: Run, third: Run | undefined): Verdict {
  if (known.fingerprint === again.fingerprint) return { kind: 'same' };
  const own = [known, again, third].filter((run) => run?.node === self && !run.isUpload);
  // This node itself got two different outcomes.
  const isOwnTwice = new Set(own.map((run) => run?.fingerprint)).size > 1;
  if (isOwnTwice) return { kind: 'wrong', nonDeterministic: true, everywhere: convinces(known, again, third) };
  if (!third) return { kind: 'unconfirmed' };
  if (third.fingerprint === known.fingerprint) return { kind: 'refuted' };
  const everywhere = convinces(known, again, third);
  const isOwn = again.node === self && third.node === self;
  if (!everywhere && !isOwn) return { kind: 'unconfirmed' };
  return { kind: 'wrong', nonDeterministic: third.fingerprint !== again.fingerprint, everywhere };
}

/** Two others than who made it, of whom neither is the other, and neither had what was known. */
export function convinces(known: Run, again: Run, third: Run | undefined): boolean {
  return (
    third !== undefined &&
    new Set([known.node, again.node, third.node]).size === 3 &&
    again.fingerprint !== known.fingerprint &&
    third.fingerprint !== known.fingerprint
  );
}

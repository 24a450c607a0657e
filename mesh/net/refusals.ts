/** What is told of those who were turned away: enough to notice, and no more however often strangers knock. */
import * as limits from './limits.ts';

/** Passes on what is said of one stranger once in `refusalLogMs`, and of all together `refusalsTold` times in it. */
export function tellRefusals(
  nowMs: () => number,
  tell: (who: string, reason: string) => void,
): (who: string, reason: string) => void {
  const told = new Map<string, number>();
  return (who, reason) => {
    const oldestMs = nowMs() - limits.refusalLogMs;
    for (const [other, toldMs] of told) {
      if (toldMs >= oldestMs) break;
      told.delete(other);
    }
    // A stranger can come with another key each time.
    if (told.has(who) || told.size >= limits.refusalsTold) return;
    told.set(who, nowMs());
    tell(who, reason);
  };
}

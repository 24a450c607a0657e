/** Majorities. */

/** How many of `count` voters are more than half of them. */
export function majority(count: number): number {
  return Math.floor(count / 2) + 1;
}

/** The highest value that a majority of the voters has reached; `lowest` when there are no voters. */
export function quorumValue<Voter>(
  voters: readonly Voter[],
  valueOf: (voter: Voter) => number,
  lowest: number,
): number {
  if (voters.length === 0) return lowest;
  const descending = voters.map(valueOf).sort((a, b) => b - a);
  return descending[majority(voters.length) - 1] ?? lowest;
}

/** Won: a majority said yes. Lost: a majority said no. A voter that did not answer counts for neither. */
export function tally<Voter>(voters: readonly Voter[], answers: ReadonlyMap<Voter, boolean>): 'won' | 'lost' | 'open' {
  let yes = 0;
  let no = 0;
  for (const voter of voters) {
    const answer = answers.get(voter);
    if (answer === true) yes++;
    else if (answer === false) no++;
  }
  const needed = majority(voters.length);
  if (voters.length > 0 && yes >= needed) return 'won';
  return no >= needed ? 'lost' : 'open';
}

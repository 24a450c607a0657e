/** Scenario files: a seed with the fault schedule that once broke it, kept so that it is run again for ever. */
import { readFileSync } from 'node:fs';
import type { Scenario } from './shrink.ts';

/** Reads a scenario. Throws when the file is missing or is no scenario. */
export function readScenario(path: string): Scenario {
  const read = JSON.parse(readFileSync(path, 'utf8')) as Partial<Scenario>;
  const { seed, nodes, minutes, faults, found } = read;
  if (typeof seed !== 'number' || typeof nodes !== 'number' || typeof minutes !== 'number' || !Array.isArray(faults)) {
    throw new Error('a scenario has a seed, a number of nodes, minutes and faults');
  }
  return { seed, nodes, minutes, faults, found: found ?? '' };
}

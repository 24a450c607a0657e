/** Schedule files: a seed with the faults that once broke it, kept so that it is run again for ever. */
import { readFileSync } from 'node:fs';
import type { Schedule } from './shrink.ts';

/** Reads a schedule. Throws when the file is missing or is none. */
export function readSchedule(path: string): Schedule {
  const read = JSON.parse(readFileSync(path, 'utf8')) as Partial<Schedule>;
  const { seed, nodes, minutes, faults, found } = read;
  if (typeof seed !== 'number' || typeof nodes !== 'number' || typeof minutes !== 'number' || !Array.isArray(faults)) {
    throw new Error('a schedule has a seed, a number of nodes, minutes and faults');
  }
  return { seed, nodes, minutes, faults, found: found ?? '' };
}

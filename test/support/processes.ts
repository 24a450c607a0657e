/** What runs below a process, as Linux tells in /proc. */
import { readdirSync, readFileSync } from 'node:fs';

export interface RunningProcess {
  readonly pid: number;
  readonly command: string;
}

/** Every living process below `pid` whose command line has `text` in it. */
export function processesBelow(pid: number, text: string): RunningProcess[] {
  const found: RunningProcess[] = [];
  const open = [pid];
  for (let parent = open.pop(); parent !== undefined; parent = open.pop()) {
    for (const child of childrenOf(parent)) {
      open.push(child);
      const seen = lookAt(child);
      if (seen?.command.includes(text)) found.push(seen);
    }
  }
  return found;
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
    );
  } catch {
    // It ended meanwhile.
    return [];
  }
}

function lookAt(pid: number): RunningProcess | undefined {
  try {
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    const state = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.[0];
    return state === 'Z' ? undefined : { pid, command };
  } catch {
    return undefined;
  }
}

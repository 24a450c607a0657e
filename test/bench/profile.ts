/** Where a process spent its processor time, from what `node --cpu-prof` leaves when the process ends. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string };
  }[];
  readonly samples: readonly number[];
  /** Microseconds since the sample before. */
  readonly timeDeltas: readonly number[];
}

const shownMax = 12;

/** The most expensive places by their own time: functions of ours, packages, Node's modules, and what V8 does for itself. */
export async function profileText(dir: string): Promise<string> {
  const microseconds = new Map<string, number>();
  let totalUs = 0;
  for (const name of await readdir(dir)) {
    const profile = JSON.parse(await readFile(join(dir, name), 'utf8')) as CpuProfile;
    const places = new Map(profile.nodes.map(({ id, callFrame }) => [id, placeOf(callFrame)]));
    for (const [at, id] of profile.samples.entries()) {
      const place = places.get(id);
      const us = profile.timeDeltas[at] ?? 0;
      if (place === undefined) continue;
      microseconds.set(place, (microseconds.get(place) ?? 0) + us);
      totalUs += us;
    }
  }
  const top = [...microseconds].toSorted((one, other) => other[1] - one[1]).slice(0, shownMax);
  const lines = top.map(([place, us]) => `  ${((100 * us) / totalUs).toFixed(1).padStart(5)} %  ${place}`);
  return [`  ${(totalUs / 1e6).toFixed(1)} s in all`, ...lines].join('\n');
}

/** Undefined: the process had nothing to do. */
function placeOf({ functionName, url }: { readonly functionName: string; readonly url: string }): string | undefined {
  if (functionName === '(idle)' || functionName === '(root)') return undefined;
  const inPackage = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1];
  if (inPackage !== undefined) return inPackage;
  if (url.startsWith('node:')) return url;
  const own = /\/((?:node|mesh|protos|sandbox)\/.*)$/.exec(url)?.[1];
  return own === undefined ? functionName || 'native code' : own;
}

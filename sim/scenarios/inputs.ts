/** Which inputs a machine has, so that only what it lacks crosses the network. */
import { resultOf, type SimNode } from '../node.ts';
import type { SimAction } from '../workload.ts';
import type { ScenarioPlan } from './plan.ts';

export interface Inputs {
  /** Bytes that the node lacks; from now on it counts as having them. */
  fetch(node: SimNode, action: SimAction): number;
}

/**
 * A machine asks once for what several of its actions need at the same time. A fetch that breaks off is begun again for
 * nothing: what it was about counts as here. That is rare, and errs by one fetch.
 */
export function createInputs(actions: ScenarioPlan['actions']): Inputs {
  const held = new Map<string, Set<string>>();
  return {
    fetch(node, { key }) {
      const planned = actions.get(key);
      if (!planned) return 0;
      const disk = `${node.index} ${node.disk().generation}`;
      let here = held.get(disk);
      if (!here) held.set(disk, (here = new Set()));
      let bytes = 0;
      const need = (name: string, sizeBytes: number): void => {
        if (here.has(name)) return;
        here.add(name);
        bytes += sizeBytes;
      };
      need(`shared ${planned.graph}`, planned.sharedBytes);
      need(`sources ${key}`, planned.sourceBytes);
      for (const other of planned.needs) {
        const result = resultOf(other);
        if (!node.disk().blobs.has(result)) need(result, actions.get(other)?.sim.outputBytes ?? 0);
      }
      return bytes;
    },
  };
}

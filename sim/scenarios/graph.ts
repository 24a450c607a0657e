/** Graphs of actions, drawn from a scenario's numbers, and the variants of one that different revisions need. */
import { actionKey, type ActionKey } from '../../mesh/core/ids.ts';
import { createRng, type Rng } from '../../mesh/core/rng.ts';
import type { SimAction } from '../workload.ts';
import type { Spread } from './schema.ts';

export interface GraphAction {
  readonly name: string;
  readonly durationMs: number;
  /** Its own sources; what it needs of other actions and of the shared inputs comes on top. */
  readonly sourceBytes: number;
  readonly outputBytes: number;
  readonly cacheable: boolean;
  /** Numbers of earlier actions. */
  readonly needs: readonly number[];
}

export interface Graph {
  readonly actions: readonly GraphAction[];
  /** Inputs of all actions. */
  readonly sharedBytes: number;
}

export interface GraphModel {
  readonly actions: number;
  readonly layers: number;
  readonly fanOut: number;
  readonly duration: Spread;
  readonly sources: Spread;
  readonly shared: number;
  readonly outputs: Spread;
  readonly cacheable: number;
}

/**
 * One value of a distribution: a quarter of the median at the least, twice the 90th percentile at the most, straight lines
 * between. Integers and one division, so that every machine draws the same.
 */
export function drawSpread(rng: Rng, { median, p90 }: Spread): number {
  const u = rng.below(1_000);
  if (median === p90) return median;
  if (u < 500) return Math.round(median / 4 + (u * median * 3) / 2_000);
  if (u < 900) return Math.round(median + ((u - 500) * (p90 - median)) / 400);
  return Math.round(p90 + ((u - 900) * p90) / 100);
}

/** Layers shrink evenly: of three, a half, a third and a sixth of the actions. */
export function drawGraph(rng: Rng, model: GraphModel): Graph {
  const layers = Math.min(model.layers, model.actions);
  const actions: { -readonly [K in keyof GraphAction]: GraphAction[K] }[] = [];
  const weights = (layers * (layers + 1)) / 2;
  let below: number[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const rest = model.actions - actions.length;
    const left = layers - layer;
    const count =
      left === 1 ? rest : Math.min(rest - left + 1, Math.max(1, Math.trunc((model.actions * left) / weights)));
    const here: number[] = [];
    for (let i = 0; i < count; i++) {
      here.push(actions.length);
      actions.push({
        name: `${layer + 1}.${i + 1}`,
        durationMs: Math.max(1, drawSpread(rng, model.duration)),
        sourceBytes: drawSpread(rng, model.sources),
        outputBytes: drawSpread(rng, model.outputs),
        cacheable: rng.below(10_000) < Math.round(model.cacheable * 10_000),
        needs: [],
      });
    }
    if (below.length > 0) connect(rng, actions, below, here, model.fanOut);
    below = here;
  }
  return { actions, sharedBytes: model.shared };
}

/** Every action of a layer needs one of the layer before, and every result is used, about `fanOut` times. */
function connect(
  rng: Rng,
  actions: { needs: readonly number[] }[],
  below: readonly number[],
  here: readonly number[],
  fanOut: number,
): void {
  const needs = new Map(here.map((number) => [number, new Set([below[rng.below(below.length)] as number])]));
  for (const source of below) {
    for (let i = 0; i < Math.min(fanOut, here.length); i++) {
      needs.get(here[rng.below(here.length)] as number)?.add(source);
    }
  }
  for (const number of here) {
    (actions[number] as { needs: readonly number[] }).needs = [...(needs.get(number) as Set<number>)].sort(
      (a, b) => a - b,
    );
  }
}

/** An action of one revision, with what has to be at hand before it runs. */
export interface PlannedAction {
  readonly sim: SimAction;
  readonly name: string;
  readonly graph: string;
  readonly sourceBytes: number;
  readonly sharedBytes: number;
  readonly needs: readonly ActionKey[];
}

/** The actions of a graph as a revision has them: what changed, and all that needs it, has keys of its own. */
export function actionsOf(
  name: string,
  graph: Graph,
  revision: { readonly name: string; readonly changed: number },
  seed: number,
): PlannedAction[] {
  const rng = createRng(seed).fork(`${name} at ${revision.name}`);
  const perTenThousand = Math.round(revision.changed * 10_000);
  const changed: boolean[] = [];
  const planned: PlannedAction[] = [];
  for (const [number, action] of graph.actions.entries()) {
    const own = rng.below(10_000) < perTenThousand;
    changed.push(own || action.needs.some((need) => changed[need]));
    const suffix = changed[number] ? `@${revision.name}` : '';
    planned.push({
      name: action.name,
      graph: name,
      sourceBytes: action.sourceBytes,
      sharedBytes: graph.sharedBytes,
      needs: action.needs.map((need) => (planned[need] as PlannedAction).sim.key),
      sim: {
        key: actionKey('main', 'sha256', `${name}-${number}${suffix}`, 150),
        shardDraw: 0,
        durationMs: action.durationMs,
        inputBytes: action.sourceBytes,
        outputBytes: action.outputBytes,
        deterministic: true,
        doNotCache: !action.cacheable,
        fails: false,
        mnemonic: 'Genrule',
      },
    });
  }
  return planned;
}

/**
 * Build graphs with realistic durations and fan-out: developers who build and rebuild, runners that all build the same
 * commit at once, actions whose outputs differ from run to run, and builds that are cancelled half way.
 */
import { actionKey, type ActionKey } from '../mesh/core/ids.ts';
import type { Rng } from '../mesh/core/rng.ts';
import type { MachineModel } from './plan.ts';

export interface SimAction {
  readonly key: ActionKey;
  readonly shardDraw: number;
  readonly durationMs: number;
  readonly inputBytes: number;
  readonly outputBytes: number;
  readonly deterministic: boolean;
  readonly doNotCache: boolean;
  /** It ends with an error, each time: its outcome is handed over, and nothing is stored. */
  readonly fails: boolean;
  readonly mnemonic: string;
}

export interface Build {
  readonly node: number;
  readonly atMs: number;
  readonly invocation: string;
  readonly actions: readonly { readonly action: SimAction; readonly needs: readonly number[] }[];
  /** The user loses patience after this long. */
  readonly cancelAfterMs: number | undefined;
  readonly skipCacheLookup: boolean;
  readonly priority: number;
  /** Actions that the client has under way at once; all that are ready when undefined. */
  readonly jobs?: number;
}

/** Most actions are short; a few link or test for long. */
const durationsMs = [40, 80, 120, 200, 300, 500, 800, 1_200, 2_000, 3_500, 6_000, 12_000];
const mnemonics = ['CppCompile', 'CppLink', 'TestRunner'];
const outputsBytes = [2_000, 8_000, 20_000, 60_000, 200_000, 800_000, 3_000_000];

type Graph = Build['actions'];

/** Draws builds until at least `actionsMin` executions are asked for between the two times. */
export function drawBuilds(
  rng: Rng,
  machines: readonly MachineModel[],
  fromMs: number,
  toMs: number,
  actionsMin: number,
): Build[] {
  const builds: Build[] = [];
  const graphs: Graph[] = [];
  const runners = machines.flatMap((machine, node) => (machine.kind === 'ci' ? [node] : []));
  let actions = 0;
  while (actions < actionsMin) {
    const again = graphs.length > 0 && rng.below(3) === 0;
    const graph = again ? (graphs[rng.below(graphs.length)] as Graph) : drawGraph(rng, graphs.length, 12);
    if (!again) graphs.push(graph);
    const burst = runners.length > 1 && rng.below(4) === 0;
    const nodes = burst ? runners.slice(0, 4) : [rng.below(machines.length)];
    const atMs = fromMs + rng.below(toMs - fromMs);
    for (const node of nodes) {
      builds.push({
        node,
        atMs: atMs + (burst ? rng.below(300) : 0),
        invocation: `build-${builds.length}`,
        actions: graph,
        cancelAfterMs: rng.below(8) === 0 ? rng.between(100, 10_000) : undefined,
        skipCacheLookup: rng.below(20) === 0,
        priority: rng.below(5) === 0 ? rng.between(-5, 5) : 0,
      });
      actions += graph.length;
    }
  }
  return builds.sort((a, b) => a.atMs - b.atMs);
}

function drawGraph(rng: Rng, number: number, widthMax: number): Graph {
  const graph: { action: SimAction; needs: number[] }[] = [];
  const layers = rng.between(2, 5);
  for (let layer = 0, below: number[] = []; layer < layers; layer++) {
    const here: number[] = [];
    for (let i = rng.between(1, layer === layers - 1 ? 2 : widthMax); i > 0; i--) {
      const needs = below.filter(() => rng.below(3) === 0);
      here.push(graph.length);
      graph.push({ action: drawAction(rng, `${number}-${graph.length}`), needs });
    }
    below = here;
  }
  return graph;
}

function drawAction(rng: Rng, name: string): SimAction {
  return {
    key: actionKey('main', 'sha256', `action-${name}`, 150),
    shardDraw: rng.next(),
    durationMs: durationsMs[rng.below(durationsMs.length)] as number,
    inputBytes: (outputsBytes[rng.below(outputsBytes.length)] as number) * 4,
    outputBytes: outputsBytes[rng.below(outputsBytes.length)] as number,
    deterministic: rng.below(10) > 0,
    doNotCache: rng.below(25) === 0,
    fails: rng.below(30) === 0,
    mnemonic: mnemonics[rng.below(mnemonics.length)] as string,
  };
}

/** One build per node after the faults ended, each shared by two nodes: the mesh must carry it. */
export function drawFinalBuilds(rng: Rng, nodes: number, fromMs: number, spreadMs: number): Build[] {
  const graphs = Array.from({ length: (nodes + 1) >> 1 }, (_, number) => drawGraph(rng, 100_000 + number, 4));
  return Array.from({ length: nodes }, (_, node) => ({
    node,
    atMs: fromMs + rng.below(spreadMs),
    invocation: `final-${node}`,
    actions: graphs[node >> 1] as Graph,
    cancelAfterMs: undefined,
    skipCacheLookup: false,
    priority: 0,
  }));
}

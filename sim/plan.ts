/**
 * What one seed expands to: machines, network, workload and faults, all drawn before anything runs, so that a plan can
 * be printed, cut down and replayed. Each seed turns whole kinds of faults off (swarm testing: uniform faults hide bugs).
 *
 * @see A. Groce et al.: Swarm Testing (ISSTA 2012)
 */
import { shardLimits } from '../mesh/core/limits.ts';
import { periodMs } from '../mesh/core/membership/limits.ts';
import { doublings } from '../mesh/core/membership/membership.ts';
import { createRng, type Rng } from '../mesh/core/rng.ts';
import { type Build, drawBuilds } from './workload.ts';

export type FaultKind =
  | 'pause'
  | 'suspend'
  | 'crash'
  | 'shutdown'
  | 'diskSwap'
  | 'split'
  | 'oneWay'
  | 'cut'
  | 'hold'
  | 'reset'
  | 'move'
  | 'loss'
  | 'clockRate'
  | 'diskFull'
  | 'liar'
  | 'ownerBack'
  | 'blobsLost'
  | 'lidsClosed'
  | 'badMoments';

export interface Fault {
  readonly kind: FaultKind;
  readonly atMs: number;
  readonly forMs: number;
  /** Whom it hits; for `split` and `oneWay` one side of it. */
  readonly nodes: readonly number[];
  /** Loss per million, clock rate error per million, or a choice between variants. */
  readonly amount: number;
  /** Directed links that a split blocks, instead of all that lead from `nodes` to the others and back. */
  readonly links?: readonly (readonly [from: number, to: number])[];
}

export interface MachineModel {
  readonly kind: 'laptop' | 'desktop' | 'ci';
  readonly site: number;
  readonly wired: boolean;
  readonly slots: number;
  /** Of the reference machine's speed, in percent. */
  readonly speedPercent: number;
  readonly capacityBytes: number;
  readonly syncUsMax: number;
  /** Alternately: away for, back for, away for, … */
  readonly ownerTraceMs: readonly number[];
  /** Alternately: on mains for, on battery for, … */
  readonly powerTraceMs: readonly number[];
}

export interface Plan {
  readonly seed: number;
  readonly shards: number;
  readonly chaosMs: number;
  readonly healMs: number;
  readonly machines: readonly MachineModel[];
  readonly lossPerMillion: number;
  readonly duplicatePerMillion: number;
  readonly stragglePerMillion: number;
  readonly faults: readonly Fault[];
  readonly builds: readonly Build[];
}

export interface PlanOptions {
  readonly seed: number;
  readonly nodes: number;
  readonly minutes: number;
  /** Draws no faults, a faultless network, and owners who are away. */
  readonly calm?: boolean;
}

/** Chance of each kind when its seed has it at all, as weights; and the bounds of its duration. */
const faultKinds: readonly (readonly [FaultKind, weight: number, minMs: number, maxMs: number])[] = [
  ['pause', 8, 200, 20_000],
  ['suspend', 8, 500, 60_000],
  ['crash', 10, 500, 40_000],
  ['shutdown', 4, 1_000, 40_000],
  ['diskSwap', 3, 1_000, 30_000],
  ['split', 6, 2_000, 60_000],
  ['oneWay', 4, 1_000, 30_000],
  ['cut', 8, 1_000, 40_000],
  ['hold', 6, 200, 10_000],
  ['reset', 6, 0, 0],
  ['move', 3, 0, 0],
  ['loss', 4, 1_000, 20_000],
  ['clockRate', 4, 5_000, 120_000],
  ['diskFull', 3, 1_000, 30_000],
  ['liar', 3, 5_000, 60_000],
  ['ownerBack', 6, 1_000, 60_000],
  ['blobsLost', 3, 0, 0],
  ['lidsClosed', 3, 70_000, 150_000],
  ['badMoments', 4, 5_000, 40_000],
];

/** Before the first fault the mesh forms; a mesh that never formed would hide everything behind its own absence. */
const settleMs = 15_000;

/** Periods to find an absent member again, and per doubling of the mesh to tell everybody. */
const periodsToMeet = 24;
const periodsPerDoubling = 6;

/** Within this time a change of one member is known to all, by gossip or by the next comparison of views. */
export function spreadMs(nodes: number): number {
  return 3 * doublings(nodes) * periodMs;
}

/** Within this time after healing all views agree. */
export function convergeMs(nodes: number): number {
  return (periodsToMeet + periodsPerDoubling * doublings(nodes)) * periodMs;
}

/**
 * What healing may take before everything must have come to its end. Views agree first. A shard whose quorum is gone for
 * good is then left alone for `formAfterMs`; members look every `formCheckMs`, so the first attempt to form it anew may
 * come too early for some of them, and the second one follows when it timed out. What had another history hears of it with
 * the next status, and the first leader is elected meanwhile.
 */
function healMsMin(nodes: number): number {
  const { formAfterMs, formCheckMs, formTimeoutMs, statusIntervalMs } = shardLimits;
  return convergeMs(nodes) + formAfterMs + 2 * (formCheckMs + formTimeoutMs) + 2 * statusIntervalMs;
}

export function drawPlan(options: PlanOptions): Plan {
  const rng = createRng(options.seed);
  const totalMs = options.minutes * 60_000;
  const healMs = Math.max(Math.trunc((totalMs * 3) / 10), healMsMin(options.nodes));
  // Half of the time is chaos at least, also when healing then takes longer than was asked for.
  const chaosMs = Math.max(totalMs - healMs, totalMs >> 1);
  const calm = options.calm === true;
  const machines = drawMachines(rng.fork('machines'), options.nodes, chaosMs + healMs, calm);
  const network = rng.fork('network');
  return {
    seed: options.seed,
    shards: [1, 2, 4, 4, 8][rng.below(5)] as number,
    chaosMs,
    healMs,
    machines,
    lossPerMillion: calm ? 0 : ([0, 0, 1_000, 10_000, 50_000][network.below(5)] as number),
    duplicatePerMillion: calm ? 0 : ([0, 0, 1_000, 20_000][network.below(4)] as number),
    stragglePerMillion: calm ? 0 : ([0, 1_000, 20_000, 100_000][network.below(4)] as number),
    faults: calm ? [] : drawFaults(rng.fork('faults'), options.nodes, chaosMs),
    builds: drawBuilds(rng.fork('builds'), machines, settleMs, chaosMs, actionsFor(options)),
  };
}

/** As much work as the machines can do in the time: 320 actions for twenty of them in ten minutes. */
function actionsFor({ nodes, minutes }: PlanOptions): number {
  return Math.max(30, Math.ceil((320 * nodes * minutes) / 200));
}

function drawMachines(rng: Rng, nodes: number, totalMs: number, calm: boolean): MachineModel[] {
  const machines: MachineModel[] = [];
  for (let i = 0; i < nodes; i++) {
    // The founder and a few more are always desktops or runners: somebody has to own the office.
    const kind =
      i === 0 ? 'desktop' : (['laptop', 'laptop', 'laptop', 'desktop', 'ci'][rng.below(5)] as MachineModel['kind']);
    const laptop = kind === 'laptop';
    machines.push({
      kind,
      site: kind === 'ci' ? 1 : 0,
      wired: laptop ? rng.below(3) === 0 : true,
      slots: kind === 'ci' ? rng.between(4, 8) : rng.between(2, 6),
      speedPercent: laptop ? rng.between(60, 110) : rng.between(90, 140),
      capacityBytes: drawCapacity(rng),
      syncUsMax: laptop ? 4_000 : rng.between(500, 20_000),
      ownerTraceMs: kind === 'ci' || calm ? [totalMs] : trace(rng, totalMs, 20_000, 180_000),
      powerTraceMs: laptop && !calm ? trace(rng, totalMs, 60_000, 400_000) : [totalMs],
    });
  }
  return machines;
}

/** Two fifths of the disks are so small that promises are refused and blobs evicted. */
function drawCapacity(rng: Rng): number {
  const megabytes = rng.between(200, 2_000);
  return (megabytes < 900 ? megabytes >> 3 : megabytes) * 1_000_000;
}

function trace(rng: Rng, totalMs: number, minMs: number, maxMs: number): number[] {
  const spans: number[] = [];
  for (let atMs = 0; atMs < totalMs; atMs += spans.at(-1) as number) spans.push(rng.between(minMs, maxMs));
  return spans;
}

function drawFaults(rng: Rng, nodes: number, chaosMs: number): Fault[] {
  // A third of the kinds is off in each seed, so that the others are not always interrupted by them.
  const on = faultKinds.filter(() => rng.below(3) > 0);
  const kinds = on.length > 0 ? on : faultKinds;
  const weightSum = kinds.reduce((sum, [, weight]) => sum + weight, 0);
  const count = rng.between(30, 80);
  const faults: Fault[] = [];
  for (let i = 0; i < count; i++) {
    let draw = rng.below(weightSum);
    const [kind, , minMs, maxMs] = kinds.find(([, weight]) => (draw -= weight) < 0) as (typeof faultKinds)[number];
    const atMs = settleMs + rng.below(chaosMs - settleMs);
    const forMs = Math.min(rng.between(minMs, maxMs), chaosMs - atMs);
    faults.push({ kind, atMs, forMs, nodes: drawVictims(rng, kind, nodes), amount: drawAmount(rng, kind) });
  }
  return faults.sort((a, b) => a.atMs - b.atMs);
}

function drawVictims(rng: Rng, kind: FaultKind, nodes: number): number[] {
  const all = Array.from({ length: nodes }, (_, node) => node);
  let count = 1;
  if (kind === 'split' || kind === 'oneWay' || kind === 'badMoments') count = rng.between(1, Math.max(1, nodes - 1));
  else if (kind === 'cut' || kind === 'hold' || kind === 'reset') count = Math.min(nodes, 2);
  // Lids close together: now and then a pause, a crash or a suspend takes several machines.
  else if ((kind === 'suspend' || kind === 'crash') && rng.below(6) === 0)
    count = rng.between(2, Math.max(2, nodes >> 1));
  const victims: number[] = [];
  while (victims.length < Math.min(count, nodes)) victims.push(...all.splice(rng.below(all.length), 1));
  return victims.sort((a, b) => a - b);
}

function drawAmount(rng: Rng, kind: FaultKind): number {
  if (kind === 'loss') return rng.between(50_000, 500_000);
  if (kind === 'clockRate') return rng.between(-20_000, 20_000);
  return rng.below(2);
}

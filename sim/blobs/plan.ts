/** What one seed of the world of blobs expands to: machines, links, blobs and who wants them, and faults. */
import { createRng, type Rng } from '../../mesh/core/rng.ts';

export interface BlobMachine {
  readonly site: number;
  readonly wired: boolean;
  /** Bytes in a millisecond. */
  readonly upBytesPerMs: number;
  readonly downBytesPerMs: number;
  readonly capacityBytes: number;
  readonly uploadBytesPerSecond: number;
}

export type BlobFaultKind =
  | 'pause'
  | 'suspend'
  | 'crash'
  | 'lid'
  | 'split'
  | 'cut'
  | 'loss'
  | 'reset'
  | 'liar'
  | 'bitRot'
  | 'blobsLost'
  | 'newDisk'
  | 'slow'
  | 'diskFull';

export interface BlobFault {
  readonly kind: BlobFaultKind;
  readonly atMs: number;
  readonly forMs: number;
  readonly nodes: readonly number[];
}

/** One node makes blobs; some others want them later. */
export interface Making {
  readonly atMs: number;
  readonly node: number;
  readonly sizesBytes: readonly number[];
  readonly readers: readonly { readonly node: number; readonly afterMs: number; readonly budgetMs: number }[];
  /** Readers are told who made them. */
  readonly hinted: boolean;
  /** Everybody wants the one large blob at the same moment. */
  readonly stampede: boolean;
}

export interface BlobPlan {
  readonly seed: number;
  readonly chaosMs: number;
  /** From the end of chaos until every record must be where it belongs. */
  readonly settleMs: number;
  /** Then everything that can be found is asked for. */
  readonly askMs: number;
  readonly machines: readonly BlobMachine[];
  readonly pipeBytesPerMs: number;
  readonly lossPerMillion: number;
  readonly faults: readonly BlobFault[];
  /** Machines that go during chaos and never come back: as many as keep one record. */
  readonly retired: readonly { readonly node: number; readonly atMs: number }[];
  readonly makings: readonly Making[];
}

export interface BlobPlanOptions {
  readonly seed: number;
  readonly nodes: number;
  /** Simulated minutes of chaos. */
  readonly minutes: number;
}

const kinds: readonly (readonly [BlobFaultKind, weight: number, minMs: number, maxMs: number])[] = [
  ['pause', 6, 200, 15_000],
  ['suspend', 6, 1_000, 90_000],
  ['crash', 6, 1_000, 40_000],
  ['lid', 4, 20_000, 150_000],
  ['split', 4, 2_000, 60_000],
  ['cut', 6, 1_000, 30_000],
  ['loss', 4, 1_000, 20_000],
  ['reset', 6, 0, 0],
  ['liar', 5, 10_000, 90_000],
  ['bitRot', 5, 0, 0],
  ['blobsLost', 4, 0, 0],
  ['newDisk', 3, 1_000, 20_000],
  ['slow', 5, 2_000, 40_000],
  ['diskFull', 2, 1_000, 20_000],
];
const formMs = 15_000;
const kib = 1_024;
const mib = 1_024 * 1_024;

export function drawBlobPlan({ seed, nodes, minutes }: BlobPlanOptions): BlobPlan {
  const rng = createRng(seed);
  const chaosMs = minutes * 60_000;
  const machineRng = rng.fork('machines');
  const sites = 1 + machineRng.below(3);
  const machines: BlobMachine[] = [];
  for (let i = 0; i < nodes; i++) {
    const wired = machineRng.below(3) > 0;
    machines.push({
      site: i === 0 ? 0 : machineRng.below(sites),
      wired,
      upBytesPerMs: wired ? 110_000 : machineRng.between(2_000, 25_000),
      downBytesPerMs: wired ? 110_000 : machineRng.between(4_000, 40_000),
      capacityBytes: (machineRng.below(4) === 0 ? machineRng.between(80, 200) : machineRng.between(500, 2_000)) * mib,
      uploadBytesPerSecond: machineRng.between(wired ? 4 : 1, wired ? 40 : 8) * mib,
    });
  }
  const network = rng.fork('network');
  return {
    seed,
    chaosMs,
    settleMs: 200_000,
    askMs: 60_000,
    machines,
    pipeBytesPerMs: [1_000, 5_000, 20_000][network.below(3)] as number,
    lossPerMillion: [0, 0, 1_000, 20_000][network.below(4)] as number,
    faults: drawFaults(rng.fork('faults'), nodes, chaosMs, minutes),
    retired: drawRetired(rng.fork('retired'), nodes, chaosMs),
    makings: drawMakings(rng.fork('makings'), nodes, chaosMs, minutes),
  };
}

function drawFaults(rng: Rng, nodes: number, chaosMs: number, minutes: number): BlobFault[] {
  // A third of the kinds is off in each seed, so that the others are not always interrupted by them.
  const on = kinds.filter(() => rng.below(3) > 0);
  const weightSum = on.reduce((sum, [, weight]) => sum + weight, 0);
  const faults: BlobFault[] = [];
  for (let i = 0; i < minutes * 6 && on.length > 0; i++) {
    let draw = rng.below(weightSum);
    const [kind, , minMs, maxMs] = on.find(([, weight]) => (draw -= weight) < 0) as (typeof kinds)[number];
    const atMs = formMs + rng.below(chaosMs - formMs);
    const count =
      kind === 'split' ? rng.between(1, nodes - 1) : kind === 'lid' ? rng.between(1, 3) : kind === 'cut' ? 2 : 1;
    const chosen = new Set<number>();
    while (chosen.size < Math.min(count, nodes)) chosen.add(rng.below(nodes));
    faults.push({ kind, atMs, forMs: Math.min(rng.between(minMs, maxMs), chaosMs - atMs), nodes: [...chosen] });
  }
  return faults.sort((a, b) => a.atMs - b.atMs);
}

function drawRetired(rng: Rng, nodes: number, chaosMs: number): { node: number; atMs: number }[] {
  if (rng.below(3) > 0 || nodes < 6) return [];
  // The first three are everybody's contacts.
  const chosen = new Set<number>();
  while (chosen.size < 3) chosen.add(rng.between(3, nodes - 1));
  return [...chosen].map((node) => ({ node, atMs: formMs + rng.below(chaosMs - formMs) }));
}

function drawMakings(rng: Rng, nodes: number, chaosMs: number, minutes: number): Making[] {
  const makings: Making[] = [];
  const add = (atMs: number, sizesBytes: number[], readers: number, stampede: boolean): void => {
    const node = rng.below(nodes);
    const others = new Set<number>();
    while (others.size < Math.min(readers, nodes - 1)) {
      const other = rng.below(nodes);
      if (other !== node) others.add(other);
    }
    makings.push({
      atMs,
      node,
      sizesBytes,
      hinted: rng.below(3) === 0,
      stampede,
      readers: [...others].map((reader) => ({
        node: reader,
        afterMs: stampede ? 2_000 : rng.between(0, 40_000),
        budgetMs: stampede ? 120_000 : rng.between(500, 30_000),
      })),
    });
  };
  for (let i = 0; i < minutes * 12; i++) {
    const atMs = formMs + rng.below(chaosMs - formMs);
    const draw = rng.below(10);
    if (draw < 6) {
      const sizes = Array.from({ length: rng.between(1, 60) }, () => rng.between(1, 64) * kib);
      add(atMs, sizes, rng.between(1, 4), false);
    } else if (draw < 9) add(atMs, [rng.between(1, 7) * mib], rng.between(1, 4), false);
    else add(atMs, [rng.between(8, 64) * mib], rng.between(1, 4), false);
  }
  for (let i = 0; i < minutes; i++) {
    add(formMs + rng.below(chaosMs - formMs), [rng.between(16, 64) * mib], nodes - 1, true);
  }
  return makings.sort((a, b) => a.atMs - b.atMs);
}

/** Adds up what is known of a build. */
import * as limits from './limits.ts';
import type { ActionRecord, ActionSource, BuildReport, MovedBytes, NodeShare } from './records.ts';

export interface Summing {
  add(record: ActionRecord): void;
  miss(): void;
  unrecorded(): void;
  report(facts: BuildFacts): BuildReport;
}

export interface BuildFacts {
  readonly id: string;
  readonly correlated: string;
  readonly tool: string;
  readonly started: string;
  readonly ended: string;
  readonly active: boolean;
  readonly moved: MovedBytes;
  /** Of this node; 0 for one that only caches. */
  readonly slots: number;
}

export const nothingMoved: MovedBytes = {
  subnet: { receivedBytes: 0, servedBytes: 0 },
  site: { receivedBytes: 0, servedBytes: 0 },
  other: { receivedBytes: 0, servedBytes: 0 },
};

/** Sources whose run time this machine did not spend. */
const elsewhere: ReadonlySet<ActionSource> = new Set(['hit-local', 'hit-peer', 'peer']);

/** Stands for all executors beyond `nodesMax`. */
const otherNodes = 'others';

export function createSumming(): Summing {
  const sources: Record<ActionSource, number> = {
    'hit-local': 0,
    'hit-peer': 0,
    here: 0,
    peer: 0,
    joined: 0,
    uploaded: 0,
  };
  const nodes = new Map<string | null, { executed: number; hits: number; runMs: number }>();
  const slowest: ActionRecord[] = [];
  const failures: ActionRecord[] = [];
  let misses = 0;
  let failed = 0;
  let retries = 0;
  let workElsewhereMs = 0;
  let unrecorded = 0;

  function shareOf(node: string | null) {
    const known = nodes.has(node) || nodes.size < limits.nodesMax ? node : otherNodes;
    const share = nodes.get(known) ?? { executed: 0, hits: 0, runMs: 0 };
    nodes.set(known, share);
    return share;
  }

  function addSlow(record: ActionRecord): void {
    const at = slowest.findIndex(({ totalMs }) => totalMs < record.totalMs);
    if (at === -1 && slowest.length >= limits.slowestKept) return;
    slowest.splice(at === -1 ? slowest.length : at, 0, record);
    if (slowest.length > limits.slowestKept) slowest.pop();
  }

  return {
    add(record) {
      sources[record.source] += 1;
      retries += record.retries;
      if (elsewhere.has(record.source)) workElsewhereMs += record.runMs;
      if (record.outcome !== 'succeeded') {
        failed += 1;
        failures.push(record);
        if (failures.length > limits.failuresKept) failures.shift();
      }
      const isHit = record.source === 'hit-local' || record.source === 'hit-peer';
      if (isHit) shareOf(record.node).hits += 1;
      else if (record.source === 'here' || record.source === 'peer') {
        const share = shareOf(record.node);
        share.executed += 1;
        share.runMs += record.runMs;
      }
      if (!isHit) addSlow(record);
    },
    miss: () => void (misses += 1),
    unrecorded: () => void (unrecorded += 1),
    report({ slots, ...facts }) {
      const shares = Array.from(nodes, ([node, share]): NodeShare => ({ node, ...share }));
      return {
        ...facts,
        sources: { ...sources },
        misses,
        failed,
        retries,
        workElsewhereMs: Math.round(workElsewhereMs),
        savedMs: Math.round(workElsewhereMs / Math.max(1, slots)),
        unrecorded,
        nodes: shares.sort((a, b) => b.executed + b.hits - a.executed - a.hits),
        slowest: [...slowest],
        failures: [...failures],
      };
    },
  };
}

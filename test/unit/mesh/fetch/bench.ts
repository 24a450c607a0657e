/** A planner with nodes around it, driven by hand. */
import { createPlanner, type Planner } from '../../../../mesh/core/fetch/planner.ts';
import type { FetchEffect, FetchEvent, Locality, TransferOutcome } from '../../../../mesh/core/fetch/types.ts';

export type Effect<K extends FetchEffect['kind']> = Extract<FetchEffect, { kind: K }>;

export interface PlannerBench {
  readonly planner: Planner;
  nowMs: number;
  /** Effects of the last step. */
  last: readonly FetchEffect[];
  readonly all: FetchEffect[];
  step(event: FetchEvent): readonly FetchEffect[];
  /** Lets time pass, waking the planner whenever it asked for it. */
  pass(forMs: number): void;
  of<K extends FetchEffect['kind']>(kind: K): Effect<K>[];
  want(blob: string, sizeBytes: number, budgetMs?: number, hints?: readonly string[]): number;
  located(blob: string, ...holders: string[]): readonly FetchEffect[];
  /** Transfers that were started and neither ended nor were cancelled. */
  running(): Effect<'transfer'>[];
  part(
    transfer: Effect<'transfer'>,
    outcome: 'stored' | 'arrived' | 'absent' | 'wrong' | 'noRoom',
    blob?: string,
  ): void;
  ended(transfer: Effect<'transfer'>, outcome?: TransferOutcome): void;
  /** Everything that the transfer was to bring comes, and it ends. */
  deliver(transfer: Effect<'transfer'>): void;
}

export function createBench(nodes: { readonly [node: string]: Locality }): PlannerBench {
  const planner = createPlanner({ self: 'self' });
  const over = new Set<number>();
  let wants = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  const bench: PlannerBench = {
    planner,
    nowMs: 1_000,
    last: [],
    all: [],
    step(event) {
      bench.last = planner.step(event, bench.nowMs);
      bench.all.push(...bench.last);
      for (const effect of bench.last) {
        if (effect.kind === 'wakeAt') wakeAtMs = effect.atMs;
        if (effect.kind === 'cancelTransfer') over.add(effect.transfer);
      }
      return bench.last;
    },
    pass(forMs) {
      const endMs = bench.nowMs + forMs;
      while (wakeAtMs <= endMs) {
        bench.nowMs = Math.max(bench.nowMs, wakeAtMs);
        wakeAtMs = Number.POSITIVE_INFINITY;
        bench.step({ kind: 'wake' });
      }
      bench.nowMs = endMs;
    },
    of: (kind) => bench.all.filter((effect) => effect.kind === kind) as Effect<typeof kind>[],
    want(blob, sizeBytes, budgetMs = 60_000, hints = []) {
      wants += 1;
      bench.step({ kind: 'want', wants: [{ want: wants, blob, sizeBytes, budgetMs, hints }] });
      return wants;
    },
    located: (blob, ...holders) => bench.step({ kind: 'located', found: [{ blob, holders, sure: 'asked' }] }),
    running: () => bench.of('transfer').filter(({ transfer }) => !over.has(transfer)),
    part(transfer, outcome, blob = transfer.parts[0]?.blob as string) {
      bench.step({ kind: 'part', transfer: transfer.transfer, blob, outcome });
    },
    ended(transfer, outcome = { kind: 'done' }) {
      over.add(transfer.transfer);
      bench.step({ kind: 'ended', transfer: transfer.transfer, outcome });
    },
    deliver(transfer) {
      for (const { blob, whole } of transfer.parts) bench.part(transfer, whole ? 'stored' : 'arrived', blob);
      bench.ended(transfer);
    },
  };
  for (const [node, locality] of Object.entries(nodes)) bench.step({ kind: 'peer', node, status: 'alive', locality });
  return bench;
}

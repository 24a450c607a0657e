/**
 * Every action that a client asked for is answered: after healing by the end of the run, and at any time within a bound,
 * whatever the mesh does. The time that the client's own machine was down or standing still does not count. Where nothing
 * goes wrong the mesh carries every action: none is run apart from it because nobody answered.
 */
import type { DecidedWhy } from '../../mesh/core/offload/types.ts';
import type { CheckerFactory } from './checker.ts';

/** The budgets of the submitter, and a queue of long actions on a machine with few slots. */
const patienceMs = 240_000;
/** Reasons to run an action here because the mesh did not carry it. */
const aloneWhy: readonly DecidedWhy[] = ['noLeader', 'silentLeader', 'badResult', 'lastTry'];

interface Open {
  readonly node: number;
  readonly key: string;
  readonly atMs: number;
  upMs: number;
}

export const everyActionEnds: CheckerFactory = (world, fail) => {
  const open = new Map<string, Open>();
  let observed = 0;
  let joined = 0;
  const cancelledAtMs = new Map<string, number>();
  const keysOpen = new Map<string, number>();
  let raced = 0;

  function close(request: string): void {
    const one = open.get(request);
    if (!one) return;
    open.delete(request);
    keysOpen.set(one.key, (keysOpen.get(one.key) ?? 1) - 1);
  }

  return {
    name: 'every-action-ends',
    observed: () => observed,
    sometimes: () => ({ 'cancel racing a join': raced, 'merged with a running action': joined }),
    onExecute(node, item) {
      const others = keysOpen.get(item.key) ?? 0;
      if (others > 0) joined += 1;
      if (world.nowMs() - (cancelledAtMs.get(item.key) ?? Number.NEGATIVE_INFINITY) < 1_000) raced += 1;
      keysOpen.set(item.key, others + 1);
      open.set(item.request, { node: node.index, key: item.key, atMs: world.nowMs(), upMs: 0 });
    },
    onCancel(_node, request) {
      const one = open.get(request);
      if (!one) return;
      cancelledAtMs.set(one.key, world.nowMs());
      if ((keysOpen.get(one.key) ?? 0) > 1) raced += 1;
    },
    onAnswer(node, request, answer) {
      const one = open.get(request);
      if (!one) return;
      observed += 1;
      close(request);
      const excused = answer.kind === 'result' || answer.reason === 'cancelled' || node.disk().full;
      if (!excused) fail(`${request} failed with ${answer.reason}: no build may fail because of the mesh`);
    },
    onNote(_node, note) {
      if (world.calm && note.kind === 'decided' && aloneWhy.includes(note.why)) {
        fail(`${note.request} runs apart from a mesh in which nothing went wrong: ${note.why}`);
      }
    },
    onDown(node) {
      for (const [request, { node: index }] of open) if (index === node.index) close(request);
    },
    onSecond() {
      for (const [request, one] of open) {
        if (world.nodes[one.node]?.state() !== 'up') continue;
        one.upMs += 1_000;
        if (one.upMs > patienceMs) fail(`${request} (${one.key}) has waited ${one.upMs} ms`);
      }
    },
    onEnd() {
      for (const [request, one] of open) fail(`${request} (${one.key}) was never answered`);
    },
  };
};

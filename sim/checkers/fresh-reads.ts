/**
 * Register histories are linearizable, key by key within a generation: the log orders the writes, and a read that asked
 * for the newest value never returns one that had been overwritten, visibly to anybody, before the read was asked. A lease
 * read may lag by what a lease allows, unless its server was paused: a paused machine cannot know.
 */
import type { ActionKey } from '../../mesh/core/ids.ts';
import { raftLimits } from '../../mesh/core/limits.ts';
import type { SimNode } from '../node.ts';
import type { CheckerFactory } from './checker.ts';

/** A lease is at most an election time-out long; this adds the error of clocks and the way of an answer. */
const leaseLagMs = raftLimits.electionTimeoutMs + 500;
/** After a pause this long ago a server has heard of its successors. */
const pauseMs = 10_000;

interface Write {
  readonly index: number;
  /** The result, or undefined after a tombstone. */
  readonly value: string | undefined;
  readonly appliedAtMs: number;
}

export const freshReads: CheckerFactory = (world, fail) => {
  const writes = new Map<string, Write[]>();
  const asked = new Map<
    string,
    { readonly atMs: number; readonly keys: readonly ActionKey[]; readonly fresh: boolean }
  >();
  const pausedUntilMs = new Map<number, number>();
  let observed = 0;

  function historyOf(node: SimNode, shard: number): string | undefined {
    const group = node.peer()?.coordination.groupOf(shard);
    return group && `${shard}/${group.generation.number}:${group.generation.hash}`;
  }

  return {
    name: 'fresh-reads',
    observed: () => observed,
    onFault(fault) {
      // Disks and links do not stop a clock from being read; only a pause does so unseen.
      if (fault.kind !== 'pause') return;
      for (const node of fault.nodes) pausedUntilMs.set(node, fault.atMs + fault.forMs);
    },
    onNote(node, note) {
      if (note.kind !== 'registerWritten' || note.outcome !== 'accepted') return;
      const key = `${note.shard}/${note.generation.number}:${note.generation.hash} ${note.key}`;
      const history = writes.get(key) ?? [];
      const last = history.at(-1);
      if (last && last.index >= note.index) return;
      const register = node.peer()?.coordination.groupOf(note.shard)?.registers.get(note.key);
      const value = register?.kind === 'result' ? register.result : undefined;
      history.push({ index: note.index, value, appliedAtMs: world.nowMs() });
      writes.set(key, history);
    },
    onSend(node, to, message) {
      if (message.kind === 'lookup') {
        asked.set(`${node.index} ${to} ${message.id}`, {
          atMs: world.nowMs(),
          keys: message.keys,
          fresh: message.fresh,
        });
        return;
      }
      if (message.kind !== 'lookedUp') return;
      const question = asked.get(`${to} ${node.index} ${message.id}`);
      const history = historyOf(node, message.shard);
      if (!question || history === undefined) return;
      const { fresh } = question;
      if (!fresh && world.nowMs() < (pausedUntilMs.get(node.index) ?? Number.NEGATIVE_INFINITY) + pauseMs) return;
      const knownByMs = fresh ? question.atMs : question.atMs - leaseLagMs;
      for (const key of question.keys) {
        const past = writes.get(`${history} ${key}`);
        if (!past) continue;
        observed += 1;
        const found = message.found.find((other) => other.key === key)?.register;
        const value = found?.kind === 'result' ? found.result : undefined;
        let newestKnown = -1;
        for (const [i, write] of past.entries()) if (write.appliedAtMs < knownByMs) newestKnown = i;
        const allowed = newestKnown < 0 || past.slice(newestKnown).some((write) => write.value === value);
        if (!allowed) {
          fail(
            `${node.id} answered ${value ?? 'nothing'} for ${key}, overwritten at index ${past[newestKnown]?.index}`,
          );
        }
      }
    },
  };
};

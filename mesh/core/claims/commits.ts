/**
 * A claimed result on its way into the log: checked here against the claim that is current, judged again by the register
 * when the entry is applied. While it is in the log, its claim neither ends nor moves.
 */
import type { NodeId, RequestId, ShardId, Token } from '../ids.ts';
import { claimLimits as limits } from '../limits.ts';
import type { ApplyOutcome } from '../registers/types.ts';
import type { ClaimMessage, ClaimRef, RequestState, RevokeReason, Setback } from './messages.ts';
import type { Outbox } from './outbox.ts';
import type { TaskTable } from './table.ts';
import type { ClaimsEffect, ClaimsView, DropReason, Led, Task } from './types.ts';

export interface CommitsPort {
  led(shard: ShardId): Led | undefined;
  emit(effect: ClaimsEffect): void;
  drop(task: Task, reason: DropReason): void;
  revoke(task: Task, reason: RevokeReason): void;
  makeReady(task: Task, readyAtMs: number, after: Setback | undefined, nowMs: number): void;
  /** The action ran: its waiters are told, its claim is over and so is the task. */
  finish(task: Task, state: (request: RequestId) => RequestState): void;
  /** The request was told of the result under this token. */
  settle(request: RequestId, served: Token | undefined, nowMs: number): void;
}

export interface Commits {
  onCommit(from: NodeId, message: Extract<ClaimMessage, { kind: 'commit' }>): void;
  /** What became of a proposed commit; `lost` when it did not come into the log, or nobody can say. */
  onApplied(proposal: number, outcome: ApplyOutcome | 'lost', nowMs: number): void;
}

export function createCommits(table: TaskTable, view: ClaimsView, outbox: Outbox, port: CommitsPort): Commits {
  const proposals = new Map<number, { readonly claim: ClaimRef; readonly executor: NodeId }>();
  let nextProposal = 0;

  function refuseStale(to: NodeId, ref: ClaimRef): void {
    const { shard, key, token } = ref;
    port.emit({ kind: 'staleRefused', shard, key, token });
    outbox.send(to, { kind: 'committed', claim: ref, outcome: 'stale' });
  }

  /** Ends the task with what its register says; false when that is no result. */
  function succeed(task: Task | undefined, nowMs: number): boolean {
    if (!task || task.doNotCache) return false;
    const register = view.register(task.shard, task.key);
    if (register?.kind !== 'result') return false;
    const { shard } = task;
    const { result, executor, token } = register;
    for (const request of task.waiters.keys()) port.settle(request, token, nowMs);
    port.finish(task, (request) => ({ kind: 'succeeded', shard, request, result, executor, token }));
    return true;
  }

  return {
    onCommit(from, message) {
      const { claim: ref, result, cacheable } = message;
      const { shard, key, token } = ref;
      const led = port.led(shard);
      if (!led) return port.emit({ kind: 'notLeader', to: from, shard });
      const task = table.current(from, ref);
      const ownTerm = token.generation === led.generation && token.term === led.term;
      // It was issued here and is not current any more: revoked, expired, or done. Or it is only a reservation.
      if ((!task && ownTerm) || task?.claim?.reserved) return refuseStale(from, ref);
      if (task?.claim?.committing !== undefined) return;
      const promises = message.promises.filter(
        ({ holder, pinnedForMs }) => pinnedForMs >= limits.promiseMsMin && (holder === from || view.isAlive(holder)),
      );
      if (task?.doNotCache || !cacheable) {
        // From before this leader's term: it has to be adopted before anybody can be told.
        outbox.send(from, { kind: 'committed', claim: ref, outcome: task ? 'accepted' : 'lost' });
        if (!task) return;
        port.drop(task, 'done');
        return port.finish(task, (request) => ({ kind: 'finished', shard, request, token, result, executor: from }));
      }
      if (promises.length === 0) {
        outbox.send(from, { kind: 'committed', claim: ref, outcome: 'notPromised' });
        if (!task) return;
        // No disk has room to keep it for others. Who waits may fetch it while it is there; running it again helps nobody.
        port.drop(task, 'done');
        return port.finish(task, (request) => ({ kind: 'succeeded', shard, request, result, executor: from, token }));
      }
      // A token from before this leader's term is judged where it counts: when the entry is applied.
      const proposal = ++nextProposal;
      proposals.set(proposal, { claim: ref, executor: from });
      if (task?.claim) task.claim.committing = proposal;
      const replaces = task?.claim?.replaces;
      const commit = { key, token, replaces, result, executor: from, promises };
      port.emit({ kind: 'propose', proposal, shard, commit });
    },

    onApplied(proposal, outcome, nowMs) {
      const proposed = proposals.get(proposal);
      if (!proposed) return;
      proposals.delete(proposal);
      const { claim: ref, executor } = proposed;
      const task = table.current(executor, ref);
      if (outcome === 'lost') {
        // Nothing was decided, and asking again at once would be no better: the executor repeats its commit after a while.
        if (task?.claim) task.claim.committing = undefined;
        else outbox.send(executor, { kind: 'committed', claim: ref, outcome: 'lost' });
        return;
      }
      const accepted = outcome === 'accepted' || outcome === 'same';
      if (accepted) outbox.send(executor, { kind: 'committed', claim: ref, outcome: 'accepted' });
      else refuseStale(executor, ref);
      if (task) {
        port.drop(task, 'done');
        if (!succeed(task, nowMs)) port.makeReady(task, 0, undefined, nowMs);
      } else if (accepted) {
        // Its own claim is gone; whoever waits for the action under a newer one can have this result now.
        succeed(table.tasks.get(ref.key), nowMs);
      }
    },
  };
}

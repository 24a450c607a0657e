/** After a change of leader: what executors say that they run is taken over, under a token of the new leader. */
import { compareTokens, type NodeId, type RequestId, type ShardId, type Token } from '../ids.ts';
import { claimLimits as limits } from '../limits.ts';
import type { ClaimRef, RunningClaim } from './messages.ts';
import type { Outbox } from './outbox.ts';
import { type TaskItem, type TaskTable, taskId } from './table.ts';
import { type ClaimsEffect, type ClaimsView, claimRef, type Led, type Task } from './types.ts';

export interface RebuildingPort {
  led(shard: ShardId): Led | undefined;
  emit(effect: ClaimsEffect): void;
  isSettled(request: RequestId): boolean;
  newTask(item: TaskItem, nowMs: number): Task;
  issue(task: Task, executor: NodeId, reserved: boolean, nowMs: number): Token;
  tellWaiters(task: Task, nowMs: number): void;
}

export interface Rebuilding {
  onRegister(from: NodeId, running: RunningClaim, nowMs: number): void;
}

export function createRebuilding(table: TaskTable, view: ClaimsView, outbox: Outbox, port: RebuildingPort): Rebuilding {
  /** The executor came before its submitter: the request is taken as read until its lease runs out. */
  function adoptTask(running: RunningClaim, executor: NodeId, nowMs: number): Task | undefined {
    if (table.tasks.size >= limits.tasksMax || port.isSettled(running.request)) return undefined;
    const { shard, key, request, requires, spaceBytes, doNotCache } = running;
    const task = port.newTask(
      {
        request,
        shard,
        key,
        invocation: `adopted from ${executor}`,
        priority: 0,
        requires,
        spaceBytes,
        inputs: [],
        doNotCache,
        expectedMs: 0,
      },
      nowMs,
    );
    task.adopted = true;
    table.addWaiter(task, { request, stay: false, avoid: [] }, running.submitter, nowMs);
    return task;
  }

  return {
    onRegister(from, running, nowMs) {
      const { shard, key, token, request } = running;
      const led = port.led(shard);
      if (!led) return port.emit({ kind: 'notLeader', to: from, shard });
      const old: ClaimRef = { shard, key, token };
      const register = view.register(shard, key);
      const known = table.tasks.get(taskId(key, request, running.doNotCache));
      // It is current: an answer was lost, or a commit could not be proposed.
      if (table.current(from, old)) {
        return outbox.send(from, { kind: 'adopted', old: token, claim: old, expiresInMs: limits.claimLeaseMs });
      }
      if (register?.kind === 'result' && register.token && compareTokens(register.token, token) === 0) {
        return outbox.send(from, { kind: 'committed', claim: old, outcome: 'accepted' });
      }
      const newerResult = register?.token !== undefined && compareTokens(register.token, token) > 0;
      const isOwnTerm = token.generation === led.generation && token.term === led.term;
      const taken = known?.claim !== undefined && known.claim.executor !== from;
      if (taken || newerResult || isOwnTerm) return outbox.revoke(from, old, 'superseded');
      const task = known ?? adoptTask(running, from, nowMs);
      if (!task) return outbox.revoke(from, old, 'superseded');
      // Its answer to an earlier registration was lost: the same claim goes on under the token issued then.
      const fresh = task.claim ? task.claim.token : port.issue(task, from, false, nowMs);
      const claim = claimRef(task, fresh);
      outbox.send(from, { kind: 'adopted', old: token, claim, expiresInMs: limits.claimLeaseMs });
      port.tellWaiters(task, nowMs);
    },
  };
}

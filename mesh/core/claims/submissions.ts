/** What submitters say to the leader of a shard: new requests, renewals and cancels. */
import { compareTokens, type NodeId, type RequestId, type ShardId, type Token } from '../ids.ts';
import { claimLimits as limits } from '../limits.ts';
import type { ClaimMessage, EndReason, RequestState, RevokeReason, Setback, SubmitItem } from './messages.ts';
import type { Outbox } from './outbox.ts';
import type { RetryBudgets } from './retries.ts';
import type { TaskItem, TaskTable } from './table.ts';
import type { ClaimsEffect, ClaimsView, Led, Task } from './types.ts';

type MessageOf<Kind extends ClaimMessage['kind']> = Extract<ClaimMessage, { kind: Kind }>;

export interface SubmissionsPort {
  readonly led: ReadonlyMap<ShardId, Led>;
  /** Requests that ended, with the token that served them if one did. */
  readonly settled: ReadonlyMap<RequestId, { readonly served: Token | undefined }>;
  readonly budgets: RetryBudgets;
  emit(effect: ClaimsEffect): void;
  newTask(item: TaskItem, nowMs: number): Task;
  makeReady(task: Task, readyAtMs: number, after: Setback | undefined, nowMs: number): void;
  /** Gives the action to a waiter whose node runs it already. */
  grantStay(task: Task, nowMs: number): boolean;
  stateOf(task: Task, request: RequestId, nowMs: number): RequestState;
  removeWaiter(task: Task, request: RequestId, reason: RevokeReason): void;
  settle(request: RequestId, served: Token | undefined, nowMs: number): void;
}

export interface Submissions {
  onSubmit(from: NodeId, item: SubmitItem, nowMs: number): void;
  onRenewRequests(from: NodeId, message: MessageOf<'renewRequests'>, nowMs: number): void;
  onCancel(from: NodeId, message: MessageOf<'cancelRequests'>, nowMs: number): void;
}

export function createSubmissions(
  table: TaskTable,
  view: ClaimsView,
  outbox: Outbox,
  port: SubmissionsPort,
): Submissions {
  function onSubmit(from: NodeId, item: SubmitItem, nowMs: number): void {
    const { shard, request, key } = item;
    const shardLed = port.led.get(shard);
    if (!shardLed) return port.emit({ kind: 'notLeader', to: from, shard });
    const ended = (reason: EndReason) => outbox.tell(from, { kind: 'ended', shard, request, reason, after: undefined });
    const last = port.settled.get(request);
    // The cancel overtook the submission.
    if (last && !last.served) return ended('cancelled');
    const known = table.ofRequest(request);
    if (known) {
      // Deaths under this leader are counted here, and may be in what a known submitter says.
      if (known.adopted) countDeaths(known, item);
      table.addWaiter(known, item, from, nowMs);
      if (known.adopted) table.describe(known, item);
      return serveWaiter(known, request, from, nowMs);
    }
    const register = view.register(shard, key);
    // Who refuses the cache gets what was made for this very request.
    const own = register?.token && last?.served && compareTokens(register.token, last.served) === 0;
    if (register?.kind === 'result' && (!item.skipCacheLookup || own) && !item.doNotCache) {
      const { result, executor, token } = register;
      return outbox.tell(from, { kind: 'succeeded', shard, request, result, executor, token });
    }
    const joined = item.doNotCache ? undefined : table.tasks.get(key);
    if (joined) return joinTask(joined, item, from, nowMs);
    if (table.tasks.size >= limits.tasksMax) return ended('queueFull');
    if (!item.reoffer) port.budgets.earn(from);
    const task = port.newTask(item, nowMs);
    countDeaths(task, item);
    table.addWaiter(task, item, from, nowMs);
    // After a take-over, whoever runs a re-offered action already has a moment to say so.
    const readyAtMs = item.reoffer && nowMs < shardLed.rebuiltAtMs ? shardLed.rebuiltAtMs : 0;
    port.makeReady(task, readyAtMs, undefined, nowMs);
  }

  /** Whom the action killed under earlier leaders, as the submitter who heard of most of them says. */
  function countDeaths(task: Task, item: SubmitItem): void {
    task.deaths = Math.max(task.deaths, item.deaths);
  }

  /** Tells a waiter where its action stands, after giving it the claim if it has a use for it. */
  function serveWaiter(task: Task, request: RequestId, from: NodeId, nowMs: number): void {
    if (task.readyAtMs <= nowMs && port.grantStay(task, nowMs)) return;
    outbox.tell(from, port.stateOf(task, request, nowMs));
  }

  function joinTask(task: Task, item: SubmitItem, from: NodeId, nowMs: number): void {
    const { shard, request } = item;
    if (task.waiters.size >= limits.waitersPerTask) {
      return outbox.tell(from, { kind: 'ended', shard, request, reason: 'queueFull', after: undefined });
    }
    countDeaths(task, item);
    table.addWaiter(task, item, from, nowMs);
    if (item.priority < task.priority && !task.claim) {
      table.ready.remove(task);
      task.priority = item.priority;
      table.ready.add(task);
    }
    serveWaiter(task, request, from, nowMs);
  }

  function onRenewRequests(from: NodeId, message: MessageOf<'renewRequests'>, nowMs: number): void {
    for (const { shard, request } of message.requests) {
      const task = table.ofRequest(request);
      const waiter = task?.waiters.get(request);
      if (task && waiter?.node === from) {
        waiter.leaseUntilMs = nowMs + limits.waiterLeaseMs;
        outbox.tell(from, port.stateOf(task, request, nowMs));
      } else if (port.led.has(shard)) {
        outbox.tell(from, { kind: 'unknown', shard, request });
      } else {
        port.emit({ kind: 'notLeader', to: from, shard });
      }
    }
  }

  function onCancel(from: NodeId, message: MessageOf<'cancelRequests'>, nowMs: number): void {
    for (const { shard, request } of message.requests) {
      if (!port.led.has(shard)) continue;
      const task = table.ofRequest(request);
      if (task && task.waiters.get(request)?.node !== from) continue;
      port.settle(request, undefined, nowMs);
      if (task) port.removeWaiter(task, request, 'cancelled');
    }
  }

  return { onSubmit, onRenewRequests, onCancel };
}

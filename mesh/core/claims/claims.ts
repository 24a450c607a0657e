/**
 * Who runs what: the soft state of a leader, for all shards that its node leads. Nothing here is on disk. What makes it
 * safe is the token: a claim's result is accepted only by the leader that issued it, while it is current, and then once
 * more by the register at apply time. After a change of leader everything is rebuilt from those who know: submitters offer
 * their requests again, executors register what they run and get a fresh token, unless another was issued.
 *
 * @see docs/protocol.md, "Claims"
 */
import type { NodeId, RequestId, ShardId, Token } from '../ids.ts';
import { claimLimits as limits } from '../limits.ts';
import type { Machine } from '../machine.ts';
import type { Rng } from '../rng.ts';
import type {
  ClaimMessage,
  ClaimRef,
  EndReason,
  FailureReason,
  RequestState,
  RevokeReason,
  Setback,
} from './messages.ts';
import { createCommits } from './commits.ts';
import { createMatching } from './matching.ts';
import { createOutbox } from './outbox.ts';
import { createRebuilding } from './rebuilding.ts';
import { createSubmissions } from './submissions.ts';
import { backoffMs, createRetryBudgets } from './retries.ts';
import { createTaskTable, type TaskItem } from './table.ts';
import {
  type DropReason,
  type ClaimsEffect,
  type ClaimsEvent,
  type Claim,
  type ClaimsView,
  claimRef,
  type Led,
  type Task,
  type WaitingPull,
} from './types.ts';

export interface Claims extends Machine<ClaimsEvent, ClaimsEffect> {
  readonly dueAtMs: number;
  readonly tasks: ReadonlyMap<string, Readonly<Task>>;
}

type MessageOf<Kind extends ClaimMessage['kind']> = Extract<ClaimMessage, { kind: Kind }>;

export function createClaims(view: ClaimsView, rng: Rng): Claims {
  const led = new Map<ShardId, Led>();
  const table = createTaskTable();
  const matching = createMatching(table, { grant, takeBack: (task) => revoke(task, 'stolen') });
  // Requests whose submission may come late or twice: cancelled ones, and those that were told of a result, by its token.
  const settled = new Map<RequestId, { readonly served: Token | undefined; readonly untilMs: number }>();
  const budgets = createRetryBudgets();
  const outbox = createOutbox();
  const commits = createCommits(table, view, outbox, {
    led: (shard) => led.get(shard),
    emit: (effect) => void effects.push(effect),
    drop,
    revoke,
    makeReady,
    finish,
    settle,
  });
  const submissions = createSubmissions(table, view, outbox, {
    led,
    settled,
    budgets,
    emit: (effect) => void effects.push(effect),
    newTask,
    makeReady,
    grantStay,
    stateOf,
    removeWaiter,
    settle,
  });
  const rebuilding = createRebuilding(table, view, outbox, {
    led: (shard) => led.get(shard),
    emit: (effect) => void effects.push(effect),
    isSettled: (request) => settled.has(request),
    newTask,
    issue,
    tellWaiters: (task, nowMs) => tellWaiters(task, (request) => stateOf(task, request, nowMs)),
  });
  let sweepAtMs = Number.POSITIVE_INFINITY;
  let effects: ClaimsEffect[] = [];

  // ---- Tasks ----

  function newTask(item: TaskItem, nowMs: number): Task {
    sweepAtMs = Math.min(sweepAtMs, nowMs + limits.sweepMs);
    return table.add(item);
  }

  function removeWaiter(task: Task, request: RequestId, reason: RevokeReason): void {
    table.removeWaiter(task, request);
    // What is in the log already was current when it got there, and is decided there.
    if (task.waiters.size > 0 || task.claim?.committing !== undefined) return;
    if (task.claim) revoke(task, reason);
    table.remove(task);
  }

  function tellWaiters(task: Task, state: (request: RequestId) => RequestState): void {
    for (const waiter of task.waiters.values()) outbox.tell(waiter.node, state(waiter.request));
  }

  function stateOf(task: Task, request: RequestId, nowMs: number, after?: Setback): RequestState {
    const { shard, claim } = task;
    if (!claim) return { kind: 'ready', shard, request, leaseMs: limits.waiterLeaseMs, after };
    const { executor, token, issuedAtMs } = claim;
    const running = !claim.reserved;
    return { kind: 'claimed', shard, request, executor, token, running, ageMs: nowMs - issuedAtMs };
  }

  function endTask(task: Task, reason: EndReason, after: Setback): void {
    tellWaiters(task, (request) => ({ kind: 'ended', shard: task.shard, request, reason, after }));
    hint(task, 'done');
    table.remove(task);
  }

  /** The action ran: its waiters are told, its claim is over and so is the task. */
  function finish(task: Task, state: (request: RequestId) => RequestState): void {
    tellWaiters(task, state);
    if (task.claim) revoke(task, 'done');
    hint(task, 'done');
    table.remove(task);
  }

  function settle(request: RequestId, served: Token | undefined, nowMs: number): void {
    sweepAtMs = Math.min(sweepAtMs, nowMs + limits.sweepMs);
    if (settled.size < limits.settledRemembered)
      settled.set(request, { served, untilMs: nowMs + limits.settledMemoryMs });
  }

  /** Only what was said to wait is said to be taken: most actions never wait. */
  function hint(task: Task, state: 'ready' | 'claimed' | 'done'): void {
    if (state === 'ready') task.hinted = true;
    else if (!task.hinted) return;
    const { shard, key, requires } = task;
    effects.push({ kind: 'hint', hint: { shard, key, state, leader: view.self, requires } });
  }

  /**
   * READY, at once or when `readyAtMs` has passed; unless nobody waits for it any more. Waiters are told when they have to
   * wait, or to what it was lost.
   */
  function makeReady(task: Task, readyAtMs: number, after: Setback | undefined, nowMs: number): void {
    if (task.waiters.size === 0) return table.remove(task);
    task.readyAtMs = readyAtMs;
    table.ready.add(task);
    if (after) tellWaiters(task, (request) => stateOf(task, request, nowMs, after));
    if (readyAtMs <= nowMs) offer(task, nowMs);
    if (task.claim) return;
    if (!after) tellWaiters(task, (request) => stateOf(task, request, nowMs));
    hint(task, 'ready');
  }

  function offer(task: Task, nowMs: number): void {
    if (!grantStay(task, nowMs)) matching.offer(task, nowMs);
  }

  // ---- Claims ----

  function issue(task: Task, executor: NodeId, isReservation: boolean, nowMs: number): Token {
    const { shard, key } = task;
    const replaces = view.register(shard, key)?.token;
    const { token } = table.issue(task, led.get(shard) as Led, executor, isReservation, replaces, nowMs);
    effects.push({ kind: 'granted', shard, key, token, executor });
    return token;
  }

  function grant(task: Task, pull: WaitingPull, isReservation: boolean, nowMs: number): void {
    const token = issue(task, pull.node, isReservation, nowMs);
    if (isReservation) pull.reservations -= 1;
    else pull.slots -= 1;
    pull.freeBytes -= task.spaceBytes;
    const [oldest] = task.waiters.values();
    outbox.grant(pull.node, pull.id, {
      ...claimRef(task, token),
      submitter: oldest?.node ?? pull.node,
      request: oldest?.request ?? '',
      doNotCache: task.doNotCache,
      spaceBytes: task.spaceBytes,
      reserved: isReservation,
      stay: false,
      expiresInMs: limits.claimLeaseMs,
    });
    tellWaiters(task, (request) => stateOf(task, request, nowMs));
    hint(task, 'claimed');
  }

  /** Gives an action to the waiter whose node runs it already, if there is one; what is only reserved is taken back. */
  function grantStay(task: Task, nowMs: number): boolean {
    if (task.claim?.reserved === false) return false;
    for (const { node, request, stay } of task.waiters.values()) {
      if (!stay) continue;
      if (task.claim) revoke(task, 'stolen');
      const token = issue(task, node, false, nowMs);
      const [oldest] = task.waiters.values();
      outbox.grant(node, 0, {
        ...claimRef(task, token),
        submitter: oldest?.node ?? node,
        request: oldest?.request ?? request,
        doNotCache: task.doNotCache,
        spaceBytes: task.spaceBytes,
        reserved: false,
        stay: true,
        expiresInMs: limits.claimLeaseMs,
      });
      tellWaiters(task, (waiting) => stateOf(task, waiting, nowMs));
      hint(task, 'claimed');
      return true;
    }
    return false;
  }

  /** The run that some of this node's requests stayed for is over. */
  function forgetStay(task: Task, node: NodeId): void {
    for (const waiter of task.waiters.values()) if (waiter.node === node) waiter.stay = false;
  }

  /** Ends a claim that its executor knows, or caused, to be over. */
  function drop(task: Task, reason: DropReason): ClaimRef & { readonly executor: NodeId } {
    const { executor, token } = table.release(task);
    const { shard, key } = task;
    effects.push({ kind: 'revoked', shard, key, token, reason });
    return { shard, key, token, executor };
  }

  function revoke(task: Task, reason: RevokeReason): void {
    const { executor, ...ref } = drop(task, reason);
    outbox.revoke(executor, ref, reason);
  }

  // ---- From executors ----

  function onPull(from: NodeId, message: MessageOf<'pull'>, nowMs: number): void {
    matching.onPull(from, message, nowMs);
    sweepAtMs = Math.min(sweepAtMs, nowMs + limits.sweepMs);
  }

  function onStart(from: NodeId, ref: ClaimRef, nowMs: number): void {
    const task = table.current(from, ref);
    if (!task?.claim) return refuse(from, ref);
    task.claim.reserved = false;
    table.reserved.delete(task);
    task.claim.expiresAtMs = nowMs + limits.claimLeaseMs;
    outbox.send(from, { kind: 'started', claim: ref, expiresInMs: limits.claimLeaseMs });
    tellWaiters(task, (request) => stateOf(task, request, nowMs));
  }

  function onRenewClaims(from: NodeId, message: MessageOf<'renewClaims'>, nowMs: number): void {
    for (const ref of message.claims) {
      const task = table.current(from, ref);
      if (!task?.claim) {
        refuse(from, ref);
        continue;
      }
      task.claim.expiresAtMs = nowMs + limits.claimLeaseMs;
      outbox.renewed(from, claimRef(task, task.claim.token), limits.claimLeaseMs);
    }
  }

  /** To who leads the shard, an unknown token is no claim; who does not lead cannot know. */
  function refuse(from: NodeId, ref: ClaimRef): void {
    if (led.has(ref.shard)) outbox.revoke(from, { shard: ref.shard, key: ref.key, token: ref.token }, 'unknown');
    else effects.push({ kind: 'notLeader', to: from, shard: ref.shard });
  }

  function onGiveBack(from: NodeId, message: MessageOf<'giveBack'>, nowMs: number): void {
    for (const ref of message.claims) {
      const task = table.current(from, ref);
      if (!task || task.claim?.committing !== undefined) continue;
      drop(task, 'givenBack');
      // A run that was over before its claim came: its submitter is about to say that nobody waits any more.
      const hasStayed = [...task.waiters.values()].some(({ node, stay }) => stay && node === from);
      forgetStay(task, from);
      const times = (task.givenBack.get(from) ?? 0) + 1;
      task.givenBack.set(from, times);
      // Who claims it and gives it back for ever would keep it from everybody.
      if (times > limits.giveBacksMax) task.shunnedUntilMs.set(from, nowMs + limits.shunMs);
      makeReady(task, hasStayed ? nowMs + limits.backoffMs : 0, { executor: from, reason: 'givenBack' }, nowMs);
    }
  }

  function onFail(from: NodeId, ref: ClaimRef, reason: FailureReason, nowMs: number): void {
    const task = table.current(from, ref);
    if (!task || task.claim?.committing !== undefined) return;
    drop(task, 'failed');
    forgetStay(task, from);
    const after: Setback = { executor: from, reason };
    if (reason === 'actionInvalid') return endTask(task, 'actionInvalid', after);
    task.retries += 1;
    if (reason === 'inputsMissing') task.inputsMissing += 1;
    if (task.inputsMissing >= limits.inputsMissingMax) return endTask(task, 'inputsMissing', after);
    if (task.retries >= limits.retriesMax) return endTask(task, 'tooManyRetries', after);
    retryLater(task, task.retries, after, nowMs);
  }

  // ---- Time and failures ----

  function retryLater(task: Task, attempt: number, after: Setback, nowMs: number): void {
    const [oldest] = task.waiters.values();
    if (oldest && !budgets.spend(oldest.node)) return endTask(task, 'tooManyRetries', after);
    const readyAtMs = nowMs + backoffMs(attempt, rng);
    task.shunnedUntilMs.set(after.executor, readyAtMs + limits.shunMs);
    makeReady(task, readyAtMs, after, nowMs);
  }

  /** The executor is lost with the claim; a reservation had not started and counts for nothing. */
  function onLost(task: Task, counts: boolean, reason: RevokeReason, nowMs: number): void {
    const { executor, reserved } = task.claim as Claim;
    revoke(task, reason);
    forgetStay(task, executor);
    if (!counts || reserved) return makeReady(task, 0, { executor, reason: 'givenBack' }, nowMs);
    task.deaths += 1;
    const after: Setback = { executor, reason: 'lost' };
    if (task.deaths >= limits.deathsMax) return endTask(task, 'tooManyDeaths', after);
    retryLater(task, task.deaths, after, nowMs);
  }

  function onMemberGone(node: NodeId, dead: boolean, nowMs: number): void {
    matching.forget(node);
    for (const task of table.claimed()) {
      if (task.claim?.executor === node && task.claim.committing === undefined) onLost(task, dead, 'expired', nowMs);
    }
  }

  function sweep(nowMs: number): void {
    for (const [request, { untilMs }] of settled) if (untilMs <= nowMs) settled.delete(request);
    matching.expire(nowMs);
    for (const task of [...table.tasks.values()]) {
      for (const waiter of [...task.waiters.values()]) {
        if (waiter.leaseUntilMs <= nowMs) removeWaiter(task, waiter.request, 'cancelled');
      }
      const { claim } = task;
      if (claim && claim.committing === undefined && claim.expiresAtMs <= nowMs) onLost(task, true, 'expired', nowMs);
    }
    const idle = table.tasks.size === 0 && matching.waiting === 0 && settled.size === 0;
    sweepAtMs = idle ? Number.POSITIVE_INFINITY : nowMs + limits.sweepMs;
  }

  function unlead(shard: ShardId): void {
    led.delete(shard);
    for (const task of [...table.tasks.values()]) {
      if (task.shard !== shard) continue;
      if (task.claim) table.release(task);
      table.remove(task);
    }
  }

  function onMessage(from: NodeId, message: ClaimMessage, nowMs: number): void {
    switch (message.kind) {
      case 'submit':
        for (const item of message.items) submissions.onSubmit(from, item, nowMs);
        return;
      case 'renewRequests':
        return submissions.onRenewRequests(from, message, nowMs);
      case 'cancelRequests':
        return submissions.onCancel(from, message, nowMs);
      case 'pull':
        return onPull(from, message, nowMs);
      case 'start':
        return onStart(from, message.claim, nowMs);
      case 'renewClaims':
        return onRenewClaims(from, message, nowMs);
      case 'giveBack':
        return onGiveBack(from, message, nowMs);
      case 'fail':
        return onFail(from, message.claim, message.reason, nowMs);
      case 'commit':
        return commits.onCommit(from, message);
      case 'register':
        for (const running of message.claims) rebuilding.onRegister(from, running, nowMs);
        return;
      // To submitters and executors; the peer takes them there.
      case 'requestState':
      case 'granted':
      case 'started':
      case 'renewed':
      case 'revoked':
      case 'adopted':
      case 'committed':
        return;
      default:
        message satisfies never;
    }
  }

  return {
    step(event, nowMs) {
      effects = [];
      switch (event.kind) {
        case 'lead': {
          const { generation, term } = event;
          led.set(event.shard, { generation, term, rebuiltAtMs: nowMs + limits.rebuildMs, counter: 0 });
          break;
        }
        case 'unlead':
          unlead(event.shard);
          break;
        case 'message':
          onMessage(event.from, event.message, nowMs);
          break;
        case 'applied':
          commits.onApplied(event.proposal, event.outcome, nowMs);
          break;
        case 'memberGone':
          onMemberGone(event.node, event.dead, nowMs);
          break;
        case 'wake':
          if (nowMs >= sweepAtMs) sweep(nowMs);
          for (const task of table.ready.matured(nowMs)) grantStay(task, nowMs);
          matching.serveAll(nowMs);
          break;
        default:
          event satisfies never;
      }
      for (const { to, message } of outbox.flush()) effects.push({ kind: 'send', to, message });
      return effects;
    },
    get dueAtMs() {
      return Math.min(sweepAtMs, table.ready.dueAtMs);
    },
    tasks: table.tasks,
  };
}

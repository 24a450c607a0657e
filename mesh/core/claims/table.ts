/**
 * The actions that a leader knows, who waits for each, and who holds its claim. One action has at most one claim, and a
 * token that is not current here is worth nothing: there is no other place to look.
 */
import { type NodeId, type RequestId, type ShardId, type Token, tokenText } from '../ids.ts';
import { claimLimits as limits } from '../limits.ts';
import type { ClaimRef, SubmitItem } from './messages.ts';
import { createReadyQueue, type ReadyQueue } from './queue.ts';
import type { Claim, Led, Task } from './types.ts';

export type WaiterItem = Pick<SubmitItem, 'request' | 'stay' | 'avoid'>;
export type TaskItem = Omit<SubmitItem, 'reoffer' | 'skipCacheLookup' | 'stay' | 'avoid' | 'deaths'>;

export interface TaskTable {
  /** By `Task.id`, in order of arrival. */
  readonly tasks: ReadonlyMap<string, Task>;
  readonly ready: ReadyQueue;
  /** Actions whose claim is a reservation, in the order in which they were reserved. */
  readonly reserved: Set<Task>;
  add(item: TaskItem): Task;
  remove(task: Task): void;
  /** What its submitter says of an action that was known only from its executor. */
  describe(task: Task, item: TaskItem): void;
  /** Adds the request, or renews it with what its submitter says now. */
  addWaiter(task: Task, item: WaiterItem, node: NodeId, nowMs: number): void;
  removeWaiter(task: Task, request: RequestId): void;
  ofRequest(request: RequestId): Task | undefined;
  /** Gives the action to an executor under the shard's next token. */
  issue(task: Task, led: Led, executor: NodeId, reserved: boolean, replaces: Token | undefined, nowMs: number): Claim;
  /** Forgets the claim; whatever its token is used for from now on is refused. */
  release(task: Task): Claim;
  /** The action whose current claim this is, if it is `from`'s to use. */
  current(from: NodeId, ref: ClaimRef): Task | undefined;
  /** Actions with a claim, as they are now. */
  claimed(): readonly Task[];
}

export function createTaskTable(): TaskTable {
  const tasks = new Map<string, Task>();
  const requests = new Map<RequestId, Task>();
  const claims = new Map<string, Task>();
  const reserved = new Set<Task>();
  const ready = createReadyQueue();

  return {
    tasks,
    ready,
    reserved,
    add(item) {
      const { key, request, shard, invocation, requires, spaceBytes, inputs, doNotCache, expectedMs, priority } = item;
      const task: Task = {
        id: taskId(key, request, doNotCache),
        shard,
        key,
        invocation,
        requires,
        spaceBytes,
        inputs,
        doNotCache,
        expectedMs,
        priority,
        adopted: false,
        hinted: false,
        waiters: new Map(),
        claim: undefined,
        readyAtMs: 0,
        deaths: 0,
        retries: 0,
        inputsMissing: 0,
        givenBack: new Map(),
        shunnedUntilMs: new Map(),
      };
      tasks.set(task.id, task);
      return task;
    },
    remove(task) {
      ready.remove(task);
      for (const request of task.waiters.keys()) requests.delete(request);
      tasks.delete(task.id);
    },
    describe(task, { requires, inputs, expectedMs }) {
      Object.assign(task, { requires, inputs, expectedMs, adopted: false });
    },
    addWaiter(task, { request, stay, avoid }, node, nowMs) {
      const bounded = avoid.slice(0, limits.avoidMax);
      task.waiters.set(request, { request, node, stay, avoid: bounded, leaseUntilMs: nowMs + limits.waiterLeaseMs });
      requests.set(request, task);
    },
    removeWaiter(task, request) {
      task.waiters.delete(request);
      requests.delete(request);
    },
    ofRequest: (request) => requests.get(request),
    issue(task, led, executor, isReserved, replaces, nowMs) {
      led.counter += 1;
      const token: Token = { generation: led.generation, term: led.term, counter: led.counter };
      const claim: Claim = {
        token,
        executor,
        replaces,
        reserved: isReserved,
        issuedAtMs: nowMs,
        expiresAtMs: nowMs + limits.claimLeaseMs,
        committing: undefined,
      };
      task.claim = claim;
      claims.set(claimId(task.shard, token), task);
      if (isReserved) reserved.add(task);
      ready.remove(task);
      ready.ran(task.invocation, 1);
      return claim;
    },
    release(task) {
      const claim = task.claim as Claim;
      claims.delete(claimId(task.shard, claim.token));
      reserved.delete(task);
      task.claim = undefined;
      ready.ran(task.invocation, -1);
      return claim;
    },
    current(from, ref) {
      const task = claims.get(claimId(ref.shard, ref.token));
      return task?.claim?.executor === from && task.key === ref.key ? task : undefined;
    },
    claimed: () => [...claims.values()],
  };
}

/** Merged actions share their key; one that must not be cached is its request's alone. */
export function taskId(key: string, request: RequestId, doNotCache: boolean): string {
  return doNotCache ? `${key}#${request}` : key;
}

function claimId(shard: ShardId, token: Token): string {
  return `${shard}/${tokenText(token)}`;
}

/**
 * Which ready action an executor gets. Lowest priority number first; among invocations of that priority those of the
 * executor's own clients, then the one with the fewest actions running, so that a large build does not starve a small one; within an invocation, of the oldest few that
 * the executor can run, the one whose inputs it holds most of. Nothing ever waits for a better executor.
 */
import type { InvocationId } from '../ids.ts';
import { claimLimits } from '../limits.ts';
import type { Task, WaitingPull } from './types.ts';

export interface ReadyQueue {
  add(task: Task): void;
  remove(task: Task): void;
  /** Counts towards fairness: an action of the invocation started or ended. */
  ran(invocation: InvocationId, change: 1 | -1): void;
  /** The best action for this executor at this time; it stays in the queue. */
  pick(pull: WaitingPull, nowMs: number): Task | undefined;
  /** When the next action that waits for its time becomes ready; `matured` takes those that are. */
  readonly dueAtMs: number;
  matured(nowMs: number): Task[];
  readonly size: number;
}

interface Lane {
  readonly priority: number;
  /** In the order in which they were last served: among equals, whoever waited longest is first. */
  readonly invocations: Map<InvocationId, Map<string, Task>>;
}

export function createReadyQueue(): ReadyQueue {
  // Ascending by priority.
  const lanes: Lane[] = [];
  const running = new Map<InvocationId, number>();
  // Tasks that are not ready yet; few, and looked through as a whole.
  const waiting = new Map<string, Task>();
  let size = 0;

  const laneOf = (priority: number): Lane => {
    let at = lanes.findIndex((lane) => lane.priority >= priority);
    if (at < 0) at = lanes.length;
    const found = lanes[at];
    if (found?.priority === priority) return found;
    const lane: Lane = { priority, invocations: new Map() };
    lanes.splice(at, 0, lane);
    return lane;
  };

  const best = (tasks: Map<string, Task>, pull: WaitingPull, nowMs: number): Task | undefined => {
    let chosen: Task | undefined;
    let chosenOverlap = -1;
    let fitting = 0;
    for (const task of tasks.values()) {
      if (fitting >= claimLimits.affinityWindow) break;
      if (task.readyAtMs > nowMs || !fits(task, pull, nowMs)) continue;
      fitting++;
      const overlap = overlapOf(task, pull);
      if (overlap > chosenOverlap) {
        chosen = task;
        chosenOverlap = overlap;
      }
    }
    return chosen;
  };

  return {
    add(task) {
      const { invocations } = laneOf(task.priority);
      let tasks = invocations.get(task.invocation);
      if (!tasks) {
        tasks = new Map();
        invocations.set(task.invocation, tasks);
      }
      if (tasks.has(task.id)) return;
      tasks.set(task.id, task);
      if (task.readyAtMs > 0) waiting.set(task.id, task);
      size++;
    },
    remove(task) {
      waiting.delete(task.id);
      const at = lanes.findIndex((lane) => lane.invocations.get(task.invocation)?.has(task.id));
      const lane = lanes[at];
      const tasks = lane?.invocations.get(task.invocation);
      if (!lane || !tasks) return;
      tasks.delete(task.id);
      size--;
      if (tasks.size === 0) lane.invocations.delete(task.invocation);
      if (lane.invocations.size === 0) lanes.splice(at, 1);
    },
    ran(invocation, change) {
      const count = (running.get(invocation) ?? 0) + change;
      if (count > 0) running.set(invocation, count);
      else running.delete(invocation);
    },
    pick(pull, nowMs) {
      for (const { invocations } of lanes) {
        const fairest = [...invocations]
          .map(([invocation, tasks]) => ({ invocation, tasks, own: isOwn(tasks, pull) ? 0 : 1 }))
          .sort((a, b) => a.own - b.own || (running.get(a.invocation) ?? 0) - (running.get(b.invocation) ?? 0));
        for (const { invocation, tasks } of fairest) {
          const task = best(tasks, pull, nowMs);
          if (!task) continue;
          invocations.delete(invocation);
          invocations.set(invocation, tasks);
          return task;
        }
      }
      return undefined;
    },
    get dueAtMs() {
      let dueAtMs = Number.POSITIVE_INFINITY;
      for (const task of waiting.values()) dueAtMs = Math.min(dueAtMs, task.readyAtMs);
      return dueAtMs;
    },
    matured(nowMs) {
      const ready = [...waiting.values()].filter((task) => task.readyAtMs <= nowMs);
      for (const { id } of ready) waiting.delete(id);
      return ready;
    },
    get size() {
      return size;
    },
  };
}

/** Whether the executor may and can run it; somebody who waits for it must be willing to let it. */
export function fits(task: Task, pull: WaitingPull, nowMs: number): boolean {
  if (nowMs < (task.shunnedUntilMs.get(pull.node) ?? 0)) return false;
  if (task.spaceBytes > pull.freeBytes) return false;
  const waiters = [...task.waiters.values()];
  if (!waiters.some(({ node, avoid }) => !avoid.includes(pull.node) && (node === pull.node || !pull.ownOnly))) {
    return false;
  }
  return task.requires.every((required) => pull.capabilities.has(required));
}

/** Whether a client of the executor's own node waits for it. */
export function isOwnOf(task: Task, pull: WaitingPull): boolean {
  for (const waiter of task.waiters.values()) if (waiter.node === pull.node) return true;
  return false;
}

/** An invocation belongs to one client, so that its first action speaks for all. */
function isOwn(tasks: ReadonlyMap<string, Task>, pull: WaitingPull): boolean {
  const [first] = tasks.values();
  return first !== undefined && isOwnOf(first, pull);
}

/** How many of the action's largest input directories the executor says it holds. */
export function overlapOf(task: Task, pull: WaitingPull): number {
  return task.inputs.reduce((count, hash) => count + (pull.holds.has(hash) ? 1 : 0), 0);
}

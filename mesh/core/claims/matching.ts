/** Executors that asked for work, and which action each of them gets. Nothing ever waits for a better executor. */
import type { NodeId } from '../ids.ts';
import { claimLimits as limits } from '../limits.ts';
import type { ClaimMessage } from './messages.ts';
import { fits, isOwnOf, overlapOf } from './queue.ts';
import type { TaskTable } from './table.ts';
import type { Task, WaitingPull } from './types.ts';

export interface MatchingPort {
  /** Gives the action to the executor, running or reserved, and takes it off the pull. */
  grant(task: Task, pull: WaitingPull, reserved: boolean, nowMs: number): void;
  /** Takes a reservation away from who has not started it. */
  takeBack(task: Task): void;
}

export interface Matching {
  onPull(from: NodeId, message: Extract<ClaimMessage, { kind: 'pull' }>, nowMs: number): void;
  /** A new action goes to its submitter's own free slot, to the waiting executor that holds most of its inputs, then to the one with most free slots. */
  offer(task: Task, nowMs: number): void;
  /** Actions may have become ready by time alone. */
  serveAll(nowMs: number): void;
  forget(node: NodeId): void;
  expire(nowMs: number): void;
  readonly waiting: number;
}

export function createMatching(table: TaskTable, port: MatchingPort): Matching {
  const pulls = new Map<NodeId, WaitingPull>();

  function serve(pull: WaitingPull, nowMs: number): void {
    for (let granted = 0; granted < limits.grantsPerPull && !served(pull); granted++) {
      const task = table.ready.pick(pull, nowMs);
      if (task) port.grant(task, pull, pull.slots === 0, nowMs);
      else if (pull.slots === 0 || !steal(pull, nowMs)) break;
    }
    if (served(pull)) pulls.delete(pull.node);
  }

  /**
   * Somebody is free now: of what others only reserved and have not started, the longest goes to it. Those who reserved the
   * rest start it soon; what takes long decides when a build ends.
   */
  function steal(pull: WaitingPull, nowMs: number): boolean {
    let longest: Task | undefined;
    for (const task of table.reserved) {
      if (task.claim?.executor === pull.node || !fits(task, pull, nowMs)) continue;
      if (!longest || task.expectedMs > longest.expectedMs) longest = task;
    }
    if (!longest) return false;
    port.takeBack(longest);
    port.grant(longest, pull, false, nowMs);
    return true;
  }

  return {
    onPull(from, message, nowMs) {
      const old = pulls.get(from);
      // Messages may overtake each other; an older pull says what was, not what is.
      if (old && old.id > message.id) return;
      pulls.delete(from);
      const pull: WaitingPull = {
        id: message.id,
        node: from,
        slots: message.slots,
        reservations: message.reservations,
        ownOnly: message.ownOnly,
        capabilities: new Set(message.capabilities),
        freeBytes: message.freeBytes,
        holds: new Set(message.holds),
        untilMs: nowMs + limits.pullLeaseMs,
      };
      if (served(pull) || pulls.size >= limits.pullsMax) return;
      pulls.set(from, pull);
      serve(pull, nowMs);
    },
    offer(task, nowMs) {
      let chosen: WaitingPull | undefined;
      for (const pull of pulls.values()) {
        if (pull.untilMs <= nowMs || !fits(task, pull, nowMs)) continue;
        if (!chosen || preference(task, pull) > preference(task, chosen)) chosen = pull;
      }
      if (!chosen) return;
      port.grant(task, chosen, chosen.slots === 0, nowMs);
      if (served(chosen)) pulls.delete(chosen.node);
    },
    serveAll(nowMs) {
      for (const pull of [...pulls.values()]) serve(pull, nowMs);
    },
    forget: (node) => void pulls.delete(node),
    expire(nowMs) {
      for (const [node, pull] of pulls) if (pull.untilMs <= nowMs) pulls.delete(node);
    },
    get waiting() {
      return pulls.size;
    },
  };
}

function served(pull: WaitingPull): boolean {
  return pull.slots <= 0 && pull.reservations <= 0;
}

function preference(task: Task, pull: WaitingPull): number {
  // A free slot before any reservation, the submitter's own before others, then inputs held, then free slots; each is
  // bounded below the next weight.
  const free = pull.slots > 0 ? 2_000_000 : 0;
  const own = isOwnOf(task, pull) ? 1_000_000 : 0;
  return free + own + Math.min(overlapOf(task, pull), 999) * 1_000 + Math.min(pull.slots, 999);
}

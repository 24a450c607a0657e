/** Steers the groups that this node leads: when to look, and what has been preferred for how long. */
import type { ReplicaId, ShardId } from '../ids.ts';
import { shardLimits } from '../limits.ts';
import type { Group } from './group.ts';
import { preferredVoters } from './placement.ts';
import { nextStep } from './steering.ts';
import type { MemberView } from './types.ts';

export interface Helm {
  readonly dueAtMs: number;
  /** Something changed that steering may have to answer: look often until it has settled. */
  unsettled(nowMs: number): void;
  /** The next change may follow at once. */
  hurry(nowMs: number): void;
  /** One step for each group that needs one. */
  steer(groups: Iterable<Group>, members: readonly MemberView[], leaving: boolean, nowMs: number): void;
}

export function createHelm(self: ReplicaId, startMs: number): Helm {
  const preferredSince = new Map<ShardId, { readonly text: string; readonly sinceMs: number }>();
  let dueAtMs = startMs + shardLimits.steerIntervalMs;
  let unsettledUntilMs = startMs;

  function unsettled(nowMs: number): void {
    unsettledUntilMs = nowMs + shardLimits.settleMs + 5 * shardLimits.steerIntervalMs;
    dueAtMs = Math.min(dueAtMs, nowMs + shardLimits.steerIntervalMs);
  }

  function steerGroup(group: Group, members: readonly MemberView[], leaving: boolean, nowMs: number): void {
    const { shard, status } = group;
    const preferred = preferredVoters(shard, members, nowMs);
    const text = preferred.join(' ');
    let since = preferredSince.get(shard);
    if (since?.text !== text) {
      since = { text, sinceMs: nowMs };
      preferredSince.set(shard, since);
      unsettled(nowMs);
    }
    if (!status.settled || status.transferring) return;
    const step = nextStep({
      self,
      configuration: status.configuration,
      preferred,
      preferredForMs: nowMs - since.sinceMs,
      members,
      lagOf: (other) => (other === self ? 0 : status.commit - (status.members.get(other)?.match ?? 0)),
      leaving,
    });
    if (!step) return;
    unsettled(nowMs);
    if (step.kind === 'change') group.change(step.configuration, nowMs);
    else group.step({ kind: 'transferLeadership', to: step.to }, nowMs);
  }

  return {
    get dueAtMs() {
      return dueAtMs;
    },
    unsettled,
    hurry(nowMs) {
      dueAtMs = nowMs;
    },
    steer(groups, members, leaving, nowMs) {
      for (const group of groups) if (group.ready) steerGroup(group, members, leaving, nowMs);
      const calm = nowMs >= unsettledUntilMs;
      if (leaving) dueAtMs = nowMs + shardLimits.leaveIntervalMs;
      else dueAtMs = nowMs + (calm ? shardLimits.settleMs : shardLimits.steerIntervalMs);
    },
  };
}

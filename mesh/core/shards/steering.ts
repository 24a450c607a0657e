/**
 * How a leader moves its group towards the preferred members: one step at a time, a replacement before a removal, and
 * nobody who is caught up and alive is moved for a small gain. Decides one step from what is; remembers nothing.
 */
import { type ReplicaId, replicaId } from '../ids.ts';
import { shardLimits } from '../limits.ts';
import { makeConfiguration } from '../raft/configuration.ts';
import type { Configuration } from '../raft/types.ts';
import type { MemberView } from './types.ts';

export interface SteeringView {
  readonly self: ReplicaId;
  readonly configuration: Configuration;
  /** Preferred voters, the best first; see `preferredVoters`. */
  readonly preferred: readonly ReplicaId[];
  /** How long the preference has been this one. */
  readonly preferredForMs: number;
  readonly members: readonly MemberView[];
  /** Entries that a replica lacks. */
  lagOf(replica: ReplicaId): number;
  /** This node is about to stop or suspend; it is not among the alive members then. */
  readonly leaving: boolean;
}

export type SteeringStep =
  | { readonly kind: 'change'; readonly configuration: Configuration }
  | { readonly kind: 'transfer'; readonly to: ReplicaId };

/** The next step, or undefined when the group is where it should be or has to wait. */
export function nextStep(view: SteeringView): SteeringStep | undefined {
  const { self, configuration, leaving } = view;
  const { voters, learners } = configuration;
  const alive = new Set(
    view.members
      .filter((member) => member.status === 'alive' && !member.stability.optedOut)
      .map((member) => replicaId(member.node, member.disk)),
  );
  // Suspected members get no new part, and keep the one they have until they are known to be away.
  const present = new Set(alive);
  for (const { node, disk, status, stability } of view.members) {
    if (status === 'suspect' && !stability.optedOut) present.add(replicaId(node, disk));
  }
  const settled = view.preferredForMs >= shardLimits.settleMs;
  const preferred = view.preferred.filter((replica) => alive.has(replica));
  const gone = voters.filter((voter) => !present.has(voter));
  const staying = voters.filter((voter) => present.has(voter));
  const caughtUp = (replica: ReplicaId): boolean => view.lagOf(replica) < shardLimits.promoteLag;

  // A seat is free when a voter is away or there are too few; it is up for change when the preference has settled.
  const wanted = preferred.length;
  const vacancy = staying.length < wanted || (settled && preferred.some((replica) => !voters.includes(replica)));
  const candidate = vacancy ? preferred.find((replica) => !voters.includes(replica)) : undefined;

  const successor = preferred.find((replica) => replica !== self && voters.includes(replica) && caughtUp(replica));
  const heir = successor ?? staying.find((voter) => voter !== self && caughtUp(voter));
  // Who leaves has little time: whatever else is to be done, the next leader can do.
  if (leaving && heir) return { kind: 'transfer', to: heir };

  const uselessLearner = learners.find((learner) => learner !== candidate);
  if (uselessLearner) {
    return change(
      voters,
      learners.filter((learner) => learner !== uselessLearner),
    );
  }
  if (candidate && voters.length <= wanted) {
    if (!learners.includes(candidate)) return change(voters, [candidate]);
    return caughtUp(candidate) ? change([...voters, candidate], []) : undefined;
  }

  const leave = whoLeaves(view, voters, gone, preferred, settled);
  if (leave && leave !== self) {
    return change(
      voters.filter((voter) => voter !== leave),
      [],
    );
  }
  const handOver = leave === self || (settled && preferred[0] !== self && preferred[0] === successor);
  return handOver && heir ? { kind: 'transfer', to: heir } : undefined;
}

/** Of too many voters, the one to take out next: one that is away, then the least preferred. */
function whoLeaves(
  view: SteeringView,
  voters: readonly ReplicaId[],
  gone: readonly ReplicaId[],
  preferred: readonly ReplicaId[],
  settled: boolean,
): ReplicaId | undefined {
  if (preferred.length === 0 || voters.length <= preferred.length) return undefined;
  const [absent] = gone;
  if (absent) {
    // An even number of voters bears no more failures than one fewer: with one away, it is only in the way.
    const even = voters.length % 2 === 0;
    return even || view.preferredForMs >= shardLimits.shrinkAfterMs || view.leaving ? absent : undefined;
  }
  if (!settled) return undefined;
  const surplus = voters.filter((voter) => !preferred.includes(voter));
  // Others first, so that the leader stays until there is nobody else to remove.
  return surplus.find((voter) => voter !== view.self) ?? surplus[0];
}

function change(voters: readonly ReplicaId[], learners: readonly ReplicaId[]): SteeringStep {
  return { kind: 'change', configuration: makeConfiguration(voters, learners) };
}

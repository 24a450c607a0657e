/**
 * Membership of a group. One voter is added or removed at a time, so that a majority before and a majority after the
 * change always share a member, and no joint configuration is needed (section 4.1).
 */
import { compareIds, type ReplicaId } from '../ids.ts';
import type { Configuration } from './types.ts';

export const emptyConfiguration: Configuration = { voters: [], learners: [] };

/** Sorted, without doubles; a replica in both lists is a voter. */
export function makeConfiguration(voters: readonly ReplicaId[], learners: readonly ReplicaId[] = []): Configuration {
  const sortedVoters = [...new Set(voters)].sort(compareIds);
  const sortedLearners = [...new Set(learners)].filter((id) => !sortedVoters.includes(id)).sort(compareIds);
  return { voters: sortedVoters, learners: sortedLearners };
}

export function isMember(configuration: Configuration, replica: ReplicaId): boolean {
  return configuration.voters.includes(replica) || configuration.learners.includes(replica);
}

/** Voters, then learners. */
export function membersOf(configuration: Configuration): readonly ReplicaId[] {
  return [...configuration.voters, ...configuration.learners];
}

/** Whether one step leads from the one to the other: at most one voter more or less, and never no voter. */
export function isSingleChange(from: Configuration, to: Configuration): boolean {
  const added = to.voters.filter((id) => !from.voters.includes(id)).length;
  const removed = from.voters.filter((id) => !to.voters.includes(id)).length;
  return to.voters.length > 0 && added + removed <= 1;
}

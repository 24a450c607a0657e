/** Replicas and configurations of groups, as they are named in messages. */
import type { Configuration as WireConfiguration } from '../../../../protos/gen/potluck/mesh/v1/coordination_pb.ts';
import { nodeOf, type ReplicaId, replicaId } from '../../../core/ids.ts';
import type { Configuration } from '../../../core/raft/types.ts';
import * as limits from '../limits.ts';
import { bounded, BrokenRule, name, set } from './checks.ts';

export function diskOf(replica: ReplicaId): bigint {
  return BigInt(replica.slice(replica.lastIndexOf('~') + 1));
}

/** A replica anywhere in the mesh. */
function replicaIn(value: string): ReplicaId {
  const disk = value.slice(value.lastIndexOf('~') + 1);
  if (!/^\d{1,16}$/.test(disk) || replicaId(nodeOf(value), Number(disk)) !== value || value.startsWith('~')) {
    throw new BrokenRule('a replica that is none');
  }
  return name(value);
}

export function replicasIn(list: readonly string[]): readonly ReplicaId[] {
  return bounded(list, limits.replicasMax).map(replicaIn);
}

export function configurationOf({ voters, learners }: Configuration) {
  return { voters: [...voters], learners: [...learners] };
}

export function configurationIn(configuration: WireConfiguration | undefined): Configuration {
  const { voters, learners } = set(configuration);
  return { voters: replicasIn(voters), learners: replicasIn(learners) };
}

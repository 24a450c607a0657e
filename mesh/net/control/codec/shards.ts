/** Who coordinates which shard, and forming one anew. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type * as wire from '../../../../protos/gen/potluck/mesh/v1/coordination_pb.ts';
import type { FormReason, ShardMessage, ShardStatus } from '../../../core/shards/messages.ts';
import * as limits from '../limits.ts';
import { bounded, BrokenRule, count, generationIn, generationOf, optionalName, shardIn } from './checks.ts';
import { configurationIn, configurationOf, replicasIn } from './replicas.ts';

export function shardsOf(message: ShardMessage): MessageInitShape<typeof wire.ShardsSchema> {
  switch (message.kind) {
    case 'shardStatus':
      return { message: { case: 'statuses', value: { statuses: message.statuses.map(statusOf) } } };
    case 'askShards':
      return { message: { case: 'ask', value: { shards: [...message.shards] } } };
    case 'formRequest': {
      const { shard, generation, voters, because } = message;
      const value = { shard, generation: generationOf(generation), voters: [...voters], ...reasonOf(because) };
      return { message: { case: 'formRequest', value } };
    }
    case 'formReply': {
      const { shard, generation, consent, known } = message;
      const value = { shard, generation: generationOf(generation), consent, ...(known && { known: statusOf(known) }) };
      return { message: { case: 'formReply', value } };
    }
    case 'formed': {
      const { shard, generation, voters } = message;
      return {
        message: { case: 'formed', value: { shard, generation: generationOf(generation), voters: [...voters] } },
      };
    }
    default:
      return message satisfies never;
  }
}

export function shardsIn({ message }: wire.Shards): ShardMessage {
  switch (message.case) {
    case 'statuses':
      return { kind: 'shardStatus', statuses: bounded(message.value.statuses, limits.shardsMax).map(statusIn) };
    case 'ask':
      return { kind: 'askShards', shards: bounded(message.value.shards, limits.shardsMax).map(shardIn) };
    case 'formRequest': {
      const { shard, generation, voters } = message.value;
      const because = reasonIn(message.value);
      const of = { shard: shardIn(shard), generation: generationIn(generation) };
      return { kind: 'formRequest', ...of, voters: replicasIn(voters), because };
    }
    case 'formReply': {
      const { shard, generation, consent, known } = message.value;
      const of = { shard: shardIn(shard), generation: generationIn(generation) };
      return { kind: 'formReply', ...of, consent, known: known && statusIn(known) };
    }
    case 'formed': {
      const { shard, generation, voters } = message.value;
      const of = { shard: shardIn(shard), generation: generationIn(generation) };
      return { kind: 'formed', ...of, voters: replicasIn(voters) };
    }
    case undefined:
      throw new BrokenRule('a message about shards that is none');
    default:
      return message satisfies never;
  }
}

function statusOf(status: ShardStatus): MessageInitShape<typeof wire.ShardStatusSchema> {
  const { shard, generation, term, leader = '', configuration, configurationIndex } = status;
  return {
    shard,
    generation: generationOf(generation),
    term: BigInt(term),
    leader,
    configuration: configurationOf(configuration),
    configurationIndex: BigInt(configurationIndex),
  };
}

function statusIn(status: wire.ShardStatus): ShardStatus {
  const { shard, generation, term, leader, configuration, configurationIndex } = status;
  return {
    shard: shardIn(shard),
    generation: generationIn(generation),
    term: count(term),
    leader: optionalName(leader),
    configuration: configurationIn(configuration),
    configurationIndex: count(configurationIndex),
  };
}

function reasonOf(because: FormReason): Pick<MessageInitShape<typeof wire.FormRequestSchema>, 'one' | 'other'> {
  if (because.kind === 'quorumGone') return {};
  return { one: generationOf(because.one), other: generationOf(because.other) };
}

function reasonIn({ one, other }: wire.FormRequest): FormReason {
  if (!one && !other) return { kind: 'quorumGone' };
  return { kind: 'conflict', one: generationIn(one), other: generationIn(other) };
}

/** Between the node that submitted an action and the one that ran it. */
import assert from 'node:assert';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type * as wire from '../../../../protos/gen/potluck/mesh/v1/actions_pb.ts';
import type { AgentMessage } from '../../../core/agents/messages.ts';
import { BrokenRule, count, duration, keyIn, name, shardIn, tokenIn, tokenOf } from './checks.ts';
import { type ProofOf, promiseIn, promiseOf } from './registers.ts';

export function agentsOf(message: AgentMessage, proofOf: ProofOf): MessageInitShape<typeof wire.AgentsSchema> {
  assert(message.token, 'only a node itself hears of a run without a claim');
  const of = { key: message.key, token: tokenOf(message.token) };
  switch (message.kind) {
    case 'handOver': {
      const { shard, request, outcome, runMs } = message;
      const { result, sizeBytes, cacheable } = outcome;
      const value = { shard, request, result, sizeBytes: BigInt(sizeBytes), cacheable, runMs };
      return { ...of, message: { case: 'handOver', value } };
    }
    case 'stage':
      return {
        ...of,
        message: { case: 'stage', value: { request: message.request, frozen: message.stage === 'frozen' } },
      };
    case 'handedOver': {
      const { promise } = message;
      const value = promise ? { promise: promiseOf(promise, proofOf(promise)) } : {};
      return { ...of, message: { case: 'handedOver', value } };
    }
    case 'handOverRefused':
      return { ...of, message: { case: 'handOverRefused', value: {} } };
    default:
      return message satisfies never;
  }
}

export function agentsIn({ key, token, message }: wire.Agents): AgentMessage {
  const of = { key: keyIn(key), token: tokenIn(token) };
  switch (message.case) {
    case 'handOver': {
      const { shard, request, result, sizeBytes, cacheable, runMs } = message.value;
      return {
        kind: 'handOver',
        ...of,
        shard: shardIn(shard),
        request: name(request),
        outcome: { result: name(result), sizeBytes: count(sizeBytes), cacheable },
        runMs: duration(runMs),
      };
    }
    case 'stage': {
      const { request, frozen } = message.value;
      return { kind: 'stage', ...of, request: name(request), stage: frozen ? 'frozen' : 'executing' };
    }
    case 'handedOver': {
      const { promise } = message.value;
      return { kind: 'handedOver', ...of, promise: promise && promiseIn(promise) };
    }
    case 'handOverRefused':
      return { kind: 'handOverRefused', ...of };
    case undefined:
      throw new BrokenRule('a message between agents that is none');
    default:
      return message satisfies never;
  }
}

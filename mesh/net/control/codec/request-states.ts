/** What a leader says of a request. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import * as wire from '../../../../protos/gen/potluck/mesh/v1/actions_pb.ts';
import type { EndReason, RequestState, Setback } from '../../../core/claims/messages.ts';
import { BrokenRule, duration, keyOf, name, optionalTokenIn, shardIn, tokenIn, tokenOf } from './checks.ts';

const ends = {
  cancelled: wire.RequestState_End.CANCELLED,
  tooManyDeaths: wire.RequestState_End.TOO_MANY_DEATHS,
  tooManyRetries: wire.RequestState_End.TOO_MANY_RETRIES,
  inputsMissing: wire.RequestState_End.INPUTS_MISSING,
  actionInvalid: wire.RequestState_End.ACTION_INVALID,
  queueFull: wire.RequestState_End.QUEUE_FULL,
} as const satisfies Record<EndReason, number>;
const setbacks = {
  executorFault: wire.Setback_Reason.EXECUTOR_FAULT,
  inputsMissing: wire.Setback_Reason.INPUTS_MISSING,
  actionInvalid: wire.Setback_Reason.ACTION_INVALID,
  lost: wire.Setback_Reason.LOST,
  givenBack: wire.Setback_Reason.GIVEN_BACK,
} as const satisfies Record<Setback['reason'], number>;

type Init = MessageInitShape<typeof wire.RequestStateSchema>;

export function requestStateOf(state: RequestState): Init {
  const of = { shard: state.shard, request: state.request };
  switch (state.kind) {
    case 'ready':
      return { ...of, ...setbackOf(state.after), state: { case: 'ready', value: { leaseMs: state.leaseMs } } };
    case 'claimed': {
      const { executor, token, running, ageMs } = state;
      return { ...of, state: { case: 'claimed', value: { executor, token: tokenOf(token), running, ageMs } } };
    }
    case 'succeeded':
    case 'finished': {
      const { result, executor, token } = state;
      return {
        ...of,
        state: { case: state.kind, value: { result, executor, ...(token && { token: tokenOf(token) }) } },
      };
    }
    case 'ended':
      return { ...of, ...setbackOf(state.after), state: { case: 'ended', value: ends[state.reason] } };
    case 'unknown':
      return { ...of, state: { case: 'unknown', value: {} } };
    default:
      return state satisfies never;
  }
}

export function requestStateIn(wireState: wire.RequestState): RequestState {
  const { state } = wireState;
  const of = { shard: shardIn(wireState.shard), request: name(wireState.request) };
  switch (state.case) {
    case 'ready':
      return { kind: 'ready', ...of, leaseMs: duration(state.value.leaseMs), after: setbackIn(wireState.after) };
    case 'claimed': {
      const { executor, token, running, ageMs } = state.value;
      return {
        kind: 'claimed',
        ...of,
        executor: name(executor),
        token: tokenIn(token),
        running,
        ageMs: duration(ageMs),
      };
    }
    case 'succeeded': {
      const { result, executor, token } = state.value;
      return {
        kind: 'succeeded',
        ...of,
        result: name(result),
        executor: name(executor),
        token: optionalTokenIn(token),
      };
    }
    case 'finished': {
      const { result, executor, token } = state.value;
      return { kind: 'finished', ...of, result: name(result), executor: name(executor), token: tokenIn(token) };
    }
    case 'ended':
      return { kind: 'ended', ...of, reason: keyOf(ends, state.value), after: setbackIn(wireState.after) };
    case 'unknown':
      return { kind: 'unknown', ...of };
    case undefined:
      throw new BrokenRule('a state that is none');
    default:
      return state satisfies never;
  }
}

function setbackOf(after: Setback | undefined): Pick<Init, 'after'> {
  return after ? { after: { executor: after.executor, reason: setbacks[after.reason] } } : {};
}

function setbackIn(after: wire.Setback | undefined): Setback | undefined {
  return after && { executor: name(after.executor), reason: keyOf(setbacks, after.reason) };
}

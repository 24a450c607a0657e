/** Between submitters, executors and the leaders of shards. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import * as wire from '../../../../protos/gen/potluck/mesh/v1/actions_pb.ts';
import type {
  ClaimMessage,
  ClaimRef,
  CommitOutcome,
  FailureReason,
  GrantedClaim,
  LeaseHint,
  RevokeReason,
  RunningClaim,
  SubmitItem,
} from '../../../core/claims/messages.ts';
import { claimLimits } from '../../../core/limits.ts';
import * as limits from '../limits.ts';
import {
  bounded,
  BrokenRule,
  count,
  duration,
  type Ends,
  keyIn,
  keyOf,
  name,
  set,
  shardIn,
  texts,
  tokenIn,
  tokenOf,
} from './checks.ts';
import { type ProofOf, promiseOf, promisesIn } from './registers.ts';
import { requestStateIn, requestStateOf } from './request-states.ts';

/** Everything between submitters, executors and leaders, and what is gossiped of it. */
export type ClaimTraffic = ClaimMessage | { readonly kind: 'hints'; readonly hints: readonly LeaseHint[] };

const failures = {
  executorFault: wire.Fail_Reason.EXECUTOR_FAULT,
  inputsMissing: wire.Fail_Reason.INPUTS_MISSING,
  actionInvalid: wire.Fail_Reason.ACTION_INVALID,
} as const satisfies Record<FailureReason, number>;
const revocations = {
  cancelled: wire.RevokedClaim_Reason.CANCELLED,
  expired: wire.RevokedClaim_Reason.EXPIRED,
  stolen: wire.RevokedClaim_Reason.STOLEN,
  superseded: wire.RevokedClaim_Reason.SUPERSEDED,
  unknown: wire.RevokedClaim_Reason.UNKNOWN,
  done: wire.RevokedClaim_Reason.DONE,
} as const satisfies Record<RevokeReason, number>;
const outcomes = {
  accepted: wire.Committed_Outcome.ACCEPTED,
  stale: wire.Committed_Outcome.STALE,
  notPromised: wire.Committed_Outcome.NOT_PROMISED,
  lost: wire.Committed_Outcome.LOST,
} as const satisfies Record<CommitOutcome, number>;
const hintStates = {
  ready: wire.Hint_State.READY,
  claimed: wire.Hint_State.CLAIMED,
  done: wire.Hint_State.DONE,
} as const satisfies Record<LeaseHint['state'], number>;

type Init = NonNullable<MessageInitShape<typeof wire.ClaimsSchema>['message']>;

export function claimsOf(message: ClaimTraffic, proofOf: ProofOf): MessageInitShape<typeof wire.ClaimsSchema> {
  return { message: bodyOf(message, proofOf) };
}

function bodyOf(message: ClaimTraffic, proofOf: ProofOf): Init {
  switch (message.kind) {
    case 'submit':
      return { case: 'submit', value: { items: message.items.map(itemOf) } };
    case 'renewRequests':
    case 'cancelRequests':
      return { case: message.kind, value: { requests: message.requests.map((one) => ({ ...one })) } };
    case 'requestState':
      return { case: 'requestStates', value: { states: message.states.map(requestStateOf) } };
    case 'pull': {
      const { id, slots, reservations, ownOnly, capabilities, freeBytes, holds } = message;
      const room = { slots, reservations, ownOnly, freeBytes: BigInt(Math.max(0, Math.floor(freeBytes))) };
      return {
        case: 'pull',
        value: { id: BigInt(id), ...room, capabilities: [...capabilities], holds: [...holds] },
      };
    }
    case 'start':
      return { case: 'start', value: refOf(message.claim) };
    case 'renewClaims':
    case 'giveBack':
      return { case: message.kind, value: { claims: message.claims.map(refOf) } };
    case 'fail':
      return { case: 'fail', value: { claim: refOf(message.claim), reason: failures[message.reason] } };
    case 'commit': {
      const { claim, result, cacheable } = message;
      const promises = message.promises.map((one) => promiseOf(one, proofOf(one)));
      return { case: 'commit', value: { claim: refOf(claim), result, cacheable, promises } };
    }
    case 'register':
      return { case: 'register', value: { claims: message.claims.map(runningOf) } };
    case 'granted':
      return { case: 'granted', value: { pull: BigInt(message.pull), claims: message.claims.map(grantedOf) } };
    case 'started':
      return { case: 'started', value: { claim: refOf(message.claim), expiresInMs: message.expiresInMs } };
    case 'renewed':
      return { case: 'renewed', value: { claims: message.claims.map(refOf), expiresInMs: message.expiresInMs } };
    case 'revoked': {
      const claims = message.claims.map((claim) => ({ claim: refOf(claim), reason: revocations[claim.reason] }));
      return { case: 'revoked', value: { claims } };
    }
    case 'adopted': {
      const { old, claim, expiresInMs } = message;
      return { case: 'adopted', value: { old: tokenOf(old), claim: refOf(claim), expiresInMs } };
    }
    case 'committed':
      return { case: 'committed', value: { claim: refOf(message.claim), outcome: outcomes[message.outcome] } };
    case 'hints':
      return { case: 'hints', value: { hints: message.hints.map(hintOf) } };
    default:
      return message satisfies never;
  }
}

/** `far`: the member that sent it. */
export function claimsIn({ message }: wire.Claims, { far }: Pick<Ends, 'far'>): ClaimTraffic {
  switch (message.case) {
    case 'submit':
      return { kind: 'submit', items: bounded(message.value.items, limits.claimsMax).map(itemIn) };
    case 'renewRequests':
    case 'cancelRequests': {
      const requests = bounded(message.value.requests, limits.claimsMax);
      return {
        kind: message.case,
        requests: requests.map(({ shard, request }) => ({ shard: shardIn(shard), request: name(request) })),
      };
    }
    case 'requestStates':
      return { kind: 'requestState', states: bounded(message.value.states, limits.claimsMax).map(requestStateIn) };
    case 'pull': {
      const { id, slots, reservations, ownOnly, capabilities, freeBytes, holds } = message.value;
      return {
        kind: 'pull',
        id: count(id),
        slots,
        reservations,
        ownOnly,
        capabilities: texts(capabilities, limits.capabilitiesMax),
        freeBytes: count(freeBytes),
        holds: bounded(holds, limits.sketchMax),
      };
    }
    case 'start':
      return { kind: 'start', claim: refIn(message.value) };
    case 'renewClaims':
    case 'giveBack':
      return { kind: message.case, claims: refsIn(message.value.claims) };
    case 'fail': {
      const { claim, reason } = message.value;
      return { kind: 'fail', claim: refIn(claim), reason: keyOf(failures, reason) };
    }
    case 'commit': {
      const { claim, result, cacheable, promises } = message.value;
      return {
        kind: 'commit',
        claim: refIn(claim),
        result: name(result),
        cacheable,
        promises: promisesIn(promises),
      };
    }
    case 'register':
      return { kind: 'register', claims: bounded(message.value.claims, limits.claimsMax).map(runningIn) };
    case 'granted': {
      const { pull, claims } = message.value;
      return { kind: 'granted', pull: count(pull), claims: bounded(claims, limits.claimsMax).map(grantedIn) };
    }
    case 'started': {
      const { claim, expiresInMs } = message.value;
      return { kind: 'started', claim: refIn(claim), expiresInMs: duration(expiresInMs) };
    }
    case 'renewed': {
      const { claims, expiresInMs } = message.value;
      return { kind: 'renewed', claims: refsIn(claims), expiresInMs: duration(expiresInMs) };
    }
    case 'revoked': {
      const claims = bounded(message.value.claims, limits.claimsMax);
      return {
        kind: 'revoked',
        claims: claims.map(({ claim, reason }) => ({ ...refIn(claim), reason: keyOf(revocations, reason) })),
      };
    }
    case 'adopted': {
      const { old, claim, expiresInMs } = message.value;
      return { kind: 'adopted', old: tokenIn(old), claim: refIn(claim), expiresInMs: duration(expiresInMs) };
    }
    case 'committed': {
      const { claim, outcome } = message.value;
      return { kind: 'committed', claim: refIn(claim), outcome: keyOf(outcomes, outcome) };
    }
    case 'hints':
      // Leaders tell of their own work. Work at others who have none would keep a node from asking those who do.
      return {
        kind: 'hints',
        hints: bounded(message.value.hints, limits.hintsMax)
          .map(hintIn)
          .filter(({ leader }) => leader === far),
      };
    case undefined:
      throw new BrokenRule('a message about claims that is none');
    default:
      return message satisfies never;
  }
}

function refOf({ shard, key, token }: ClaimRef) {
  return { shard, key, token: tokenOf(token) };
}

function refIn(ref: wire.ClaimRef | undefined): ClaimRef {
  const { shard, key, token } = set(ref);
  return { shard: shardIn(shard), key: keyIn(key), token: tokenIn(token) };
}

function refsIn(refs: readonly wire.ClaimRef[]): readonly ClaimRef[] {
  return bounded(refs, limits.claimsMax).map(refIn);
}

function itemOf(item: SubmitItem): MessageInitShape<typeof wire.SubmitItemSchema> {
  const { request, shard, key, invocation, priority, doNotCache, skipCacheLookup, expectedMs, reoffer, stay } = item;
  return {
    request,
    shard,
    key,
    invocation,
    priority,
    requires: [...item.requires],
    spaceBytes: BigInt(item.spaceBytes),
    inputs: [...item.inputs],
    doNotCache,
    skipCacheLookup,
    expectedMs,
    reoffer,
    stay,
    avoid: [...item.avoid],
    deaths: item.deaths,
  };
}

function itemIn(item: wire.SubmitItem): SubmitItem {
  const { priority, doNotCache, skipCacheLookup, reoffer, stay } = item;
  return {
    request: name(item.request),
    shard: shardIn(item.shard),
    key: keyIn(item.key),
    invocation: name(item.invocation),
    priority,
    requires: texts(item.requires, limits.capabilitiesMax),
    spaceBytes: count(item.spaceBytes),
    inputs: bounded(item.inputs, limits.sketchMax),
    doNotCache,
    skipCacheLookup,
    expectedMs: duration(item.expectedMs),
    reoffer,
    stay,
    avoid: texts(item.avoid, limits.avoidMax),
    deaths: deathsIn(item.deaths),
  };
}

function deathsIn(value: number): number {
  if (value > claimLimits.deathsMax)
    throw new BrokenRule(`${value} deaths, where ${claimLimits.deathsMax} end an action`);
  return value;
}

function runningOf(claim: RunningClaim): MessageInitShape<typeof wire.RunningClaimSchema> {
  const { request, submitter, doNotCache, requires, spaceBytes } = claim;
  return {
    claim: refOf(claim),
    request,
    submitter,
    doNotCache,
    requires: [...requires],
    spaceBytes: BigInt(spaceBytes),
  };
}

function runningIn({ claim, request, submitter, doNotCache, requires, spaceBytes }: wire.RunningClaim): RunningClaim {
  return {
    ...refIn(claim),
    request: name(request),
    submitter: name(submitter),
    doNotCache,
    requires: texts(requires, limits.capabilitiesMax),
    spaceBytes: count(spaceBytes),
  };
}

function grantedOf(claim: GrantedClaim): MessageInitShape<typeof wire.GrantedClaimSchema> {
  const { submitter, request, doNotCache, spaceBytes, reserved, stay, expiresInMs } = claim;
  return {
    claim: refOf(claim),
    submitter,
    request,
    doNotCache,
    spaceBytes: BigInt(spaceBytes),
    reserved,
    stay,
    expiresInMs,
  };
}

function grantedIn(granted: wire.GrantedClaim): GrantedClaim {
  const { claim, submitter, request, doNotCache, spaceBytes, reserved, stay, expiresInMs } = granted;
  return {
    ...refIn(claim),
    submitter: name(submitter),
    request: name(request),
    doNotCache,
    spaceBytes: count(spaceBytes),
    reserved,
    stay,
    expiresInMs: duration(expiresInMs),
  };
}

function hintOf({ shard, key, state, leader, requires }: LeaseHint): MessageInitShape<typeof wire.HintSchema> {
  return { shard, key, state: hintStates[state], leader, requires: [...requires] };
}

function hintIn({ shard, key, state, leader, requires }: wire.Hint): LeaseHint {
  return {
    shard: shardIn(shard),
    key: keyIn(key),
    state: keyOf(hintStates, state),
    leader: name(leader),
    requires: texts(requires, limits.capabilitiesMax),
  };
}

/**
 * One node's share in everything that the mesh decides: membership, coordination, promises, submitter and executor as one
 * machine. It routes messages and answers between them, numbers persists, and batches gossip; it decides nothing itself.
 */
import assert from 'node:assert';
import { createExecutor, type Executor, type ExecutorEffect, type ExecutorEvent } from './agents/executor.ts';
import type { AgentMessage, Outcome } from './agents/messages.ts';
import {
  type Answer,
  createSubmitter,
  type Submitter,
  type SubmitterEffect,
  type SubmitterEvent,
} from './agents/submitter.ts';
import type { FailureReason, LeaseHint, SubmitItem } from './claims/messages.ts';
import type { ActionKey, BlobKey, InvocationId, NodeId, RequestId, Token } from './ids.ts';
import type { Machine } from './machine.ts';
import { peerLimits as limits } from './limits.ts';
import {
  createMembership,
  type Member,
  type Membership,
  type MembershipEvent,
  type MembershipRecord,
} from './membership/membership.ts';
import type { MembershipMessage } from './membership/messages.ts';
import type { Attributes, MemberStatus, RecordSigner } from './membership/records.ts';
import type { CoordinationMessage, CoordinationRecord } from './messages.ts';
import { createPromises, type PinRecord, type PromiseEvent, type Promises, type Purpose } from './promises/promises.ts';
import type { Rng } from './rng.ts';
import { type Coordination, createCoordination, recoverCoordination } from './shards/coordination.ts';
import type { CoordinationEvent, CoordinationNote, MemberView } from './shards/types.ts';

export type PeerMessage = MembershipMessage | CoordinationMessage | AgentMessage;

/** What a peer writes; each machine is restored from its own. */
export type PeerRecord =
  | { readonly of: 'membership'; readonly record: MembershipRecord }
  | { readonly of: 'promises'; readonly record: PinRecord }
  | { readonly of: 'coordination'; readonly record: CoordinationRecord };

export type PeerEvent =
  | { readonly kind: 'start'; readonly contacts: readonly NodeId[] }
  /** `from` is authenticated. */
  | { readonly kind: 'message'; readonly from: NodeId; readonly message: PeerMessage }
  | { readonly kind: 'wake' }
  /** The machine is awake again; 0 when it announced a suspend that did not come about. */
  | { readonly kind: 'gap'; readonly gapMs: number }
  | { readonly kind: 'persisted'; readonly id: number }
  | { readonly kind: 'attributes'; readonly attributes: Attributes }
  | { readonly kind: 'goodbye'; readonly presence: 'suspended' | 'left' }
  /** From this node's own clients. */
  | { readonly kind: 'execute'; readonly item: Omit<SubmitItem, 'reoffer'> }
  | { readonly kind: 'cancel'; readonly request: RequestId }
  | { readonly kind: 'invocationEnded'; readonly invocation: InvocationId }
  /** About this machine. */
  | {
      readonly kind: 'slots';
      readonly slots: number;
      readonly guests: boolean;
      readonly capabilities: readonly string[];
    }
  | { readonly kind: 'owner'; readonly present: boolean }
  | { readonly kind: 'gone'; readonly blob: BlobKey }
  /** Answers to effects. What `ran` and `fetched` bring is durable in the store. */
  | { readonly kind: 'inputsFetched'; readonly run: number; readonly ok: boolean }
  | { readonly kind: 'ran'; readonly run: number; readonly outcome: Outcome }
  | { readonly kind: 'runFailed'; readonly run: number; readonly reason: FailureReason }
  | { readonly kind: 'outputsFetched'; readonly fetch: number; readonly outcome: Outcome | undefined };

export type PeerNote =
  | CoordinationNote
  /** A message of one machine to another of the same node. */
  | { readonly kind: 'mail'; readonly message: PeerMessage }
  | { readonly kind: 'member'; readonly member: Member; readonly before: MemberStatus | undefined }
  | { readonly kind: 'pinRefused'; readonly blob: BlobKey; readonly reason: 'absent' | 'budget' }
  | { readonly kind: 'pinned'; readonly blob: BlobKey; readonly purpose: Purpose; readonly untilMs: number };

export type PeerEffect =
  | { readonly kind: 'persist'; readonly id: number; readonly record: PeerRecord }
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: PeerMessage; readonly after?: number }
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  | {
      readonly kind: 'fetchInputs';
      readonly run: number;
      readonly from: NodeId;
      readonly key: ActionKey;
      readonly request: RequestId;
    }
  | {
      readonly kind: 'run';
      readonly run: number;
      readonly key: ActionKey;
      readonly request: RequestId;
      readonly guest: boolean;
      readonly token: Token | undefined;
    }
  | { readonly kind: 'freeze'; readonly run: number }
  | { readonly kind: 'thaw'; readonly run: number }
  | { readonly kind: 'kill'; readonly run: number }
  | { readonly kind: 'fetchOutputs'; readonly fetch: number; readonly from: NodeId; readonly result: BlobKey }
  | { readonly kind: 'stopFetch'; readonly fetch: number }
  | { readonly kind: 'evict'; readonly blob: BlobKey }
  | { readonly kind: 'answer'; readonly request: RequestId; readonly answer: Answer }
  | { readonly kind: 'note'; readonly note: PeerNote };

export interface PeerConfig {
  readonly self: NodeId;
  readonly attributes: Attributes;
  readonly signer: RecordSigner;
  readonly rng: Rng;
  readonly shards: number;
  /** This node made the mesh: on an empty disk it is the first voter of every shard. */
  readonly founder: boolean;
  readonly capacityBytes: number;
  /** What the blob store holds, least recently used first. */
  readonly held: readonly (readonly [BlobKey, number])[];
}

export interface Peer extends Machine<PeerEvent, PeerEffect> {
  readonly membership: Membership;
  readonly coordination: Coordination;
  readonly promises: Promises;
  readonly submitter: Submitter;
  readonly executor: Executor;
  /** Records from which an equal peer can be restored, fewer than were ever written. */
  checkpoint(nowMs: number): PeerRecord[];
}

/** Something for one of the machines. Each machine's effects are dealt with before any machine takes its next event. */
type Errand =
  | { readonly to: 'membership'; readonly event: MembershipEvent }
  | { readonly to: 'coordination'; readonly event: CoordinationEvent }
  | { readonly to: 'promises'; readonly event: PromiseEvent }
  | { readonly to: 'submitter'; readonly event: SubmitterEvent }
  | { readonly to: 'executor'; readonly event: ExecutorEvent };

type Part = 'membership' | 'coordination' | 'submitter' | 'executor';
const parts: readonly Part[] = ['membership', 'coordination', 'submitter', 'executor'];

type PinFor =
  | { readonly kind: 'run'; readonly run: number }
  | { readonly kind: 'fetch'; readonly fetch: number }
  | { readonly kind: 'client'; readonly invocation: InvocationId };

/** Creates a peer from its own records, oldest first. It is silent until its `start` event. */
export function createPeer(config: PeerConfig, restored: readonly PeerRecord[], nowMs: number): Peer {
  const { self, rng } = config;
  let persistId = 0;
  const nextPersistId = (): number => ++persistId;
  const recordsOf = <P extends PeerRecord['of']>(of: P) =>
    restored.filter((entry) => entry.of === of).map((entry) => entry.record) as Extract<
      PeerRecord,
      { of: P }
    >['record'][];

  const pinRecords = recordsOf('promises');
  const membership = createMembership(
    { self, attributes: config.attributes, signer: config.signer, rng: rng.fork('membership'), nextPersistId },
    recordsOf('membership'),
  );
  const promises = createPromises(
    { capacityBytes: config.capacityBytes, nextPersistId },
    nowMs,
    config.held,
    pinRecords,
  );
  const disk = config.attributes.storeGeneration;
  const coordination = createCoordination(
    {
      self,
      disk,
      shards: config.shards,
      founder: config.founder && restored.length === 0,
      rng: rng.fork('coordination'),
      nextPersistId,
    },
    recoverCoordination(recordsOf('coordination')),
    nowMs,
  );
  const executor = createExecutor({
    self,
    storeGeneration: disk,
    holds: () => [],
    freeBytes: () => promises.freeBytes(),
  });
  const submitter = createSubmitter({
    self,
    storeGeneration: disk,
    leaderOf: (shard) => coordination.leaderOf(shard),
    holds: (blob) => promises.holds(blob),
  });

  const wakes: { [P in Part]: number } = {
    membership: Number.POSITIVE_INFINITY,
    coordination: Number.POSITIVE_INFINITY,
    submitter: Number.POSITIVE_INFINITY,
    executor: Number.POSITIVE_INFINITY,
  };
  const leaders: (NodeId | undefined)[] = new Array<NodeId | undefined>(config.shards).fill(undefined);
  const lastAliveAtMs = new Map<NodeId, number>();
  const aliveSinceMs = new Map<NodeId, number>();
  const invocations = new Map<RequestId, InvocationId>();
  const clientPins = new Map<InvocationId, number[]>();
  const pinsFor = new Map<number, PinFor>();
  // Messages to this node itself, in order; one that waits for the disk holds back none of the others.
  const errands: Errand[] = [];
  const ownMail: { readonly message: PeerMessage; readonly after: number | undefined }[] = [];
  let durableTo = 0;
  let nextPin = pinRecords.reduce((highest, record) => Math.max(highest, record.id), 0);
  let hints = new Map<ActionKey, LeaseHint>();
  let hintsDueMs = Number.POSITIVE_INFINITY;
  let membersChanged = false;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let nowInStepMs = nowMs;
  let effects: PeerEffect[] = [];

  function toMembership(event: MembershipEvent): void {
    errands.push({ to: 'membership', event });
  }

  function toCoordination(event: CoordinationEvent): void {
    errands.push({ to: 'coordination', event });
  }

  function toPromises(event: PromiseEvent): void {
    errands.push({ to: 'promises', event });
  }

  function toSubmitter(event: SubmitterEvent): void {
    errands.push({ to: 'submitter', event });
  }

  function toExecutor(event: ExecutorEvent): void {
    errands.push({ to: 'executor', event });
  }

  function stepMembership(event: MembershipEvent): void {
    for (const effect of membership.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'send':
          post(effect.to, effect.message, effect.after);
          break;
        case 'persist':
          effects.push({ kind: 'persist', id: effect.id, record: { of: 'membership', record: effect.record } });
          break;
        case 'wakeAt':
          wakes.membership = effect.atMs;
          break;
        case 'memberChanged':
          onMember(effect.member, effect.before);
          break;
        default:
          effect satisfies never;
      }
    }
  }

  function onMember(member: Member, before: MemberStatus | undefined): void {
    const { id } = member.record;
    membersChanged = true;
    if (before === 'alive' || before === 'suspect') lastAliveAtMs.set(id, nowInStepMs);
    if (member.status === 'alive' && before !== 'alive') aliveSinceMs.set(id, nowInStepMs);
    effects.push({ kind: 'note', note: { kind: 'member', member, before } });
    if (member.status === 'alive' || member.status === 'suspect' || id === self) return;
    toSubmitter({ kind: 'absent', node: id });
    toExecutor({ kind: 'absent', node: id });
  }

  function memberViews(): MemberView[] {
    const views: MemberView[] = [];
    for (const { record, status } of membership.members()) {
      if (status === 'left') continue;
      const { attributes } = record;
      views.push({
        node: record.id,
        disk: attributes.storeGeneration,
        status,
        lastAliveAtMs: status === 'alive' ? nowInStepMs : (lastAliveAtMs.get(record.id) ?? 0),
        aliveSinceMs: aliveSinceMs.get(record.id) ?? nowInStepMs,
        stability: {
          alwaysOn: attributes.coordinator === 'always-on',
          mainsPower: attributes.power === 'mains',
          wired: attributes.wired,
          optedOut: attributes.coordinator === 'never',
        },
      });
    }
    return views.sort((a, b) => (a.node < b.node ? -1 : 1));
  }

  function stepCoordination(event: CoordinationEvent): void {
    for (const effect of coordination.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'send':
          post(effect.to, effect.message, effect.after);
          break;
        case 'persist':
          effects.push({ kind: 'persist', id: effect.id, record: { of: 'coordination', record: effect.record } });
          break;
        case 'wakeAt':
          wakes.coordination = effect.atMs;
          break;
        case 'hint':
          if (hints.size < limits.hintsWaiting) hints.set(effect.hint.key, effect.hint);
          hintsDueMs = Math.min(hintsDueMs, nowInStepMs + limits.hintDelayMs);
          break;
        case 'note':
          effects.push({ kind: 'note', note: effect.note });
          break;
        default:
          effect satisfies never;
      }
    }
    for (let shard = 0; shard < config.shards; shard++) {
      const leader = coordination.leaderOf(shard);
      if (leader === leaders[shard]) continue;
      leaders[shard] = leader;
      toSubmitter({ kind: 'leader', shard, leader });
      toExecutor({ kind: 'leader', shard, leader });
    }
  }

  function stepSubmitter(event: SubmitterEvent): void {
    for (const effect of submitter.step(event, nowInStepMs)) onSubmitterEffect(effect);
  }

  function onSubmitterEffect(effect: SubmitterEffect): void {
    switch (effect.kind) {
      case 'send':
        // Free slots here compete for this node's own actions like everybody else's.
        if (effect.message.kind === 'submit') toExecutor({ kind: 'workAt', leader: effect.to });
        return post(effect.to, effect.message, undefined);
      case 'wakeAt':
        wakes.submitter = effect.atMs;
        return;
      case 'pinHandedOver': {
        const { result, forMs } = effect;
        return pin(result, 'handOver', forMs, { kind: 'fetch', fetch: effect.fetch });
      }
      case 'runOwn':
        return toExecutor(effect);
      case 'stopOwn':
        return toExecutor(effect);
      case 'answer': {
        const invocation = invocations.get(effect.request) as InvocationId;
        invocations.delete(effect.request);
        if (effect.answer.kind === 'result') {
          pin(effect.answer.outcome.result, 'ownClient', limits.clientPinMs, { kind: 'client', invocation });
        }
        effects.push(effect);
        return;
      }
      case 'fetchOutputs':
      case 'stopFetch':
        effects.push(effect);
        return;
      default:
        effect satisfies never;
    }
  }

  function stepExecutor(event: ExecutorEvent): void {
    for (const effect of executor.step(event, nowInStepMs)) onExecutorEffect(effect);
  }

  function onExecutorEffect(effect: ExecutorEffect): void {
    switch (effect.kind) {
      case 'send':
        return post(effect.to, effect.message, undefined);
      case 'wakeAt':
        wakes.executor = effect.atMs;
        return;
      case 'reserve':
        return toPromises({ kind: 'reserve', id: effect.run, sizeBytes: effect.spaceBytes });
      case 'release':
        return toPromises({ kind: 'release', id: effect.run });
      case 'pinOutputs':
        return pin(effect.outcome.result, 'replica', limits.replicaPinMs, { kind: 'run', run: effect.run });
      case 'ownEnded':
        return toSubmitter({ kind: 'ownEnded', request: effect.request, outcome: effect.outcome });
      case 'fetchInputs':
      case 'run':
      case 'freeze':
      case 'thaw':
      case 'kill':
        effects.push(effect);
        return;
      default:
        effect satisfies never;
    }
  }

  function pin(blob: BlobKey, purpose: 'ownClient' | 'handOver' | 'replica', forMs: number, pinFor: PinFor): void {
    nextPin += 1;
    pinsFor.set(nextPin, pinFor);
    toPromises({ kind: 'pin', id: nextPin, blob, purpose, forMs });
  }

  function stepPromises(event: PromiseEvent): void {
    for (const effect of promises.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'persist':
          effects.push({ kind: 'persist', id: effect.id, record: { of: 'promises', record: effect.record } });
          break;
        case 'pinned':
        case 'pinRefused':
          onPin(effect.id, effect.kind === 'pinned' ? effect.untilMs - nowInStepMs : undefined);
          effects.push({
            kind: 'note',
            note:
              effect.kind === 'pinned'
                ? { kind: 'pinned', blob: effect.blob, purpose: effect.purpose, untilMs: effect.untilMs }
                : { kind: 'pinRefused', blob: effect.blob, reason: effect.reason },
          });
          break;
        case 'reserved':
          toExecutor({ kind: 'reserved', run: effect.id });
          break;
        case 'reserveRefused':
          toExecutor({ kind: 'reserveRefused', run: effect.id });
          break;
        case 'evict':
          effects.push(effect);
          break;
        default:
          effect satisfies never;
      }
    }
  }

  function onPin(id: number, forMs: number | undefined): void {
    const pinFor = pinsFor.get(id);
    pinsFor.delete(id);
    switch (pinFor?.kind) {
      case undefined:
        return;
      case 'run':
        return toExecutor(
          forMs === undefined ? { kind: 'pinRefused', run: pinFor.run } : { kind: 'pinned', run: pinFor.run, forMs },
        );
      case 'fetch':
        return toSubmitter(
          forMs === undefined
            ? { kind: 'pinRefused', fetch: pinFor.fetch }
            : { kind: 'pinned', fetch: pinFor.fetch, forMs },
        );
      case 'client': {
        if (forMs === undefined) return;
        const pinned = clientPins.get(pinFor.invocation);
        if (pinned) pinned.push(id);
        else clientPins.set(pinFor.invocation, [id]);
        return;
      }
      default:
        pinFor satisfies never;
    }
  }

  function post(to: NodeId, message: PeerMessage, after: number | undefined): void {
    if (to === self) ownMail.push({ message, after });
    else effects.push(after === undefined ? { kind: 'send', to, message } : { kind: 'send', to, message, after });
  }

  function onMessage(from: NodeId, message: PeerMessage): void {
    switch (message.kind) {
      case 'ping':
      case 'ack':
      case 'pingRequest':
      case 'nack':
      case 'syncOffer':
      case 'sync':
        return toMembership({ kind: 'message', from, message });
      case 'hints':
        for (const hint of message.hints) {
          if (hint.state === 'ready') toExecutor({ kind: 'workAt', leader: hint.leader });
        }
        return;
      case 'granted':
      case 'started':
      case 'renewed':
      case 'revoked':
      case 'adopted':
      case 'committed':
      case 'handedOver':
      case 'handOverRefused':
        return toExecutor({ kind: 'message', from, message });
      case 'requestState':
      case 'handOver':
        return toSubmitter({ kind: 'message', from, message });
      case 'lookedUp':
      case 'written':
        toSubmitter({ kind: 'message', from, message });
        return toCoordination({ kind: 'message', from, message });
      default:
        return toCoordination({ kind: 'message', from, message });
    }
  }

  function onPersisted(id: number): void {
    durableTo = id;
    toCoordination({ kind: 'persisted', id });
    toPromises({ kind: 'persisted', id });
  }

  function apply(event: PeerEvent): void {
    switch (event.kind) {
      case 'start':
        return toMembership(event);
      case 'message':
        return onMessage(event.from, event.message);
      case 'wake':
        return;
      case 'gap':
        toMembership(event);
        toCoordination({ kind: 'gap' });
        toExecutor({ kind: 'gap' });
        return toSubmitter({ kind: 'gap' });
      case 'persisted':
        return onPersisted(event.id);
      case 'attributes':
        return toMembership(event);
      case 'goodbye':
        toExecutor({ kind: 'goodbye' });
        toCoordination({ kind: 'goodbye' });
        return toMembership(event);
      case 'execute':
        invocations.set(event.item.request, event.item.invocation);
        return toSubmitter(event);
      case 'cancel':
        return toSubmitter(event);
      case 'invocationEnded':
        for (const id of clientPins.get(event.invocation) ?? []) toPromises({ kind: 'unpin', id });
        clientPins.delete(event.invocation);
        return;
      case 'slots':
      case 'owner':
        return toExecutor(event);
      case 'gone':
        return toPromises(event);
      case 'inputsFetched':
        return toExecutor({ kind: 'fetched', run: event.run, ok: event.ok });
      case 'ran': {
        const { result, sizeBytes } = event.outcome;
        toPromises({ kind: 'stored', blob: result, sizeBytes, reservation: event.run });
        return toExecutor(event);
      }
      case 'runFailed':
        return toExecutor(event);
      case 'outputsFetched':
        if (event.outcome) {
          toPromises({ kind: 'stored', blob: event.outcome.result, sizeBytes: event.outcome.sizeBytes });
        }
        return toSubmitter({ kind: 'fetched', fetch: event.fetch, outcome: event.outcome });
      default:
        event satisfies never;
    }
  }

  function run(errand: Errand): void {
    switch (errand.to) {
      case 'membership':
        return stepMembership(errand.event);
      case 'coordination':
        return stepCoordination(errand.event);
      case 'promises':
        return stepPromises(errand.event);
      case 'submitter':
        return stepSubmitter(errand.event);
      case 'executor':
        return stepExecutor(errand.event);
      default:
        errand satisfies never;
    }
  }

  function wakePart(part: Part): void {
    wakes[part] = Number.POSITIVE_INFINITY;
    switch (part) {
      case 'membership':
        return toMembership({ kind: 'wake' });
      case 'coordination':
        return toCoordination({ kind: 'wake' });
      case 'submitter':
        return toSubmitter({ kind: 'wake' });
      case 'executor':
        return toExecutor({ kind: 'wake' });
      default:
        part satisfies never;
    }
  }

  function gossipHints(): void {
    hintsDueMs = Number.POSITIVE_INFINITY;
    const batch = [...hints.values()];
    hints = new Map();
    const message: PeerMessage = { kind: 'hints', hints: batch };
    post(self, message, undefined);
    const others: NodeId[] = [];
    for (const { record, status } of membership.members()) {
      if (status === 'alive' && record.id !== self) others.push(record.id);
    }
    while (others.length > limits.hintFanout) others.splice(rng.below(others.length), 1);
    for (const to of others) post(to, message, undefined);
  }

  /** Delivers mail to this node itself and wakes whatever is due, until nothing is left to do at this moment. */
  function settle(): void {
    for (let turns = 0; ; turns++) {
      assert(turns < limits.turnsMax, 'the machines of a node keep each other busy without time passing');
      for (let i = 0; i < errands.length; i++) run(errands[i] as Errand);
      errands.length = 0;
      const at = ownMail.findIndex((mail) => mail.after === undefined || mail.after <= durableTo);
      if (at >= 0) {
        const [mail] = ownMail.splice(at, 1) as [(typeof ownMail)[number]];
        effects.push({ kind: 'note', note: { kind: 'mail', message: mail.message } });
        onMessage(self, mail.message);
        continue;
      }
      if (membersChanged) {
        membersChanged = false;
        toCoordination({ kind: 'members', members: memberViews() });
        continue;
      }
      const due = parts.find((part) => wakes[part] <= nowInStepMs);
      if (due) wakePart(due);
      else if (hintsDueMs <= nowInStepMs) gossipHints();
      else return;
    }
  }

  return {
    membership,
    coordination,
    promises,
    submitter,
    executor,
    step(event, now) {
      effects = [];
      nowInStepMs = now;
      apply(event);
      settle();
      const next = Math.min(wakes.membership, wakes.coordination, wakes.submitter, wakes.executor, hintsDueMs);
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
    checkpoint: (now) => [
      ...membership.checkpoint().map((record) => ({ of: 'membership' as const, record })),
      ...promises.checkpoint(now).map((record) => ({ of: 'promises' as const, record })),
      ...coordination.checkpoint().map((record) => ({ of: 'coordination' as const, record })),
    ],
  };
}

/**
 * One whole node of the mesh as one machine: the sharing machine (membership, promises, provider index, fetch planner,
 * uploads), coordination, submitter and executor. It routes messages and answers between them and batches gossip; it
 * decides nothing itself.
 */
import { createExecutor } from './agents/executor.ts';
import type { Executor, ExecutorEffect, ExecutorEvent } from './agents/executor/types.ts';
import { createSubmitter } from './agents/submitter.ts';
import type { Submitter, SubmitterEffect, SubmitterEvent } from './agents/submitter/types.ts';
import { createErrands } from './errands.ts';
import type { BlobKey, InvocationId, NodeId, RequestId } from './ids.ts';
import { createHints } from './hints.ts';
import { deskLimits, peerLimits as limits } from './limits.ts';
import type { Machine } from './machine.ts';
import type { Member } from './membership/membership.ts';
import type { Attributes, MachineAttributes, MemberStatus } from './membership/records.ts';
import type { PeerConfig, PeerEffect, PeerEvent, PeerMessage, PeerRecord } from './peer-types.ts';
import { createOwnPins, isOwn, numberOf, outside, own } from './own-pins.ts';
import { createDesk, type DeskEvent } from './registers/desk.ts';
import { createPersistIds, createSharing, type Sharing } from './sharing.ts';
import type { SharingEffect, SharingEvent } from './sharing-types.ts';
import { type Coordination, createCoordination, recoverCoordination } from './shards/coordination.ts';
import { shardOf } from './shards/placement.ts';
import type { CoordinationEvent } from './shards/types.ts';
import { createViews } from './views.ts';

export type * from './peer-types.ts';

export interface Peer extends Omit<Sharing, 'step' | 'checkpoint'>, Machine<PeerEvent, PeerEffect> {
  readonly coordination: Coordination;
  readonly submitter: Submitter;
  readonly executor: Executor;
  /** Records from which an equal peer can be restored, fewer than were ever written. */
  checkpoint(nowMs: number): PeerRecord[];
}

/** What each part takes. */
interface Parts {
  sharing: SharingEvent;
  coordination: CoordinationEvent;
  submitter: SubmitterEvent;
  executor: ExecutorEvent;
  desk: DeskEvent;
  gossip: { readonly kind: 'wake' };
  throughput: { readonly kind: 'wake' };
}

/** Creates a peer from its own records, oldest first. It is silent until its `start` event. */
export function createPeer(config: PeerConfig, restored: readonly PeerRecord[], nowMs: number): Peer {
  const { self, rng } = config;
  const nextPersistId = createPersistIds();
  let machine: MachineAttributes = config.attributes;
  let lent: Pick<Attributes, 'guestSlots' | 'capabilities'> = { guestSlots: 0, capabilities: [] };
  const sharing = createSharing(
    { ...config, attributes: { ...machine, ...lent } },
    restored.filter((entry) => entry.of !== 'coordination'),
    nowMs,
    nextPersistId,
  );
  const { membership, promises, planner } = sharing;
  const views = createViews(self, membership, planner.bytesPerMs);
  const hints = createHints(rng);
  const disk = config.attributes.storeGeneration;
  const records = restored.flatMap((entry) => (entry.of === 'coordination' ? [entry.record] : []));
  const coordination = createCoordination(
    {
      self,
      disk,
      shards: config.shards,
      founder: config.founder && records.length === 0,
      rng: rng.fork('coordination'),
      nextPersistId,
    },
    recoverCoordination(records),
    nowMs,
  );
  const executor = createExecutor({
    self,
    storeGeneration: disk,
    holds: config.holds,
    freeBytes: () => promises.freeBytes(),
  });
  const submitter = createSubmitter({
    self,
    storeGeneration: disk,
    leaderOf: (shard) => coordination.leaderOf(shard),
    holds: (blob) => promises.holds(blob),
    rng: rng.fork('submitter'),
  });
  const desk = createDesk({
    self,
    storeGeneration: disk,
    leaderOf: (shard) => coordination.leaderOf(shard),
    shardOf: (key) => shardOf(key, config.shards),
    firstId: deskLimits.firstId + rng.fork('desk').next() * deskLimits.idsPerLife,
  });

  const errands = createErrands<Parts>({
    sharing: stepSharing,
    coordination: stepCoordination,
    submitter: stepSubmitter,
    executor: stepExecutor,
    desk: stepDesk,
    gossip: gossipHints,
    throughput: tellMesh,
  });
  const leaders: (NodeId | undefined)[] = new Array<NodeId | undefined>(config.shards).fill(undefined);
  const invocations = new Map<RequestId, InvocationId>();
  const pins = createOwnPins((event) => errands.add('sharing', event));
  // Messages to this node itself, in order; one that waits for the disk holds back none of the others.
  const ownMail: { readonly message: PeerMessage; readonly after: number | undefined }[] = [];
  let durableTo = 0;
  let slots: Pick<Extract<PeerEvent, { kind: 'slots' }>, 'guests' | 'guestSlots' | 'slots' | 'capabilities'> = {
    slots: 0,
    guests: false,
    guestSlots: 0,
    capabilities: [],
  };
  let ownerPresent = false;
  let membersChanged = false;
  let toldMeshAtMs = Number.NEGATIVE_INFINITY;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let nowInStepMs = nowMs;
  let effects: PeerEffect[] = [];

  function stepSharing(event: SharingEvent): void {
    for (const effect of sharing.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'wakeAt':
          errands.wakeAt('sharing', effect.atMs);
          break;
        case 'pinned':
        case 'pinRefused':
          if (isOwn(effect.pin)) onPin(effect);
          else effects.push({ ...effect, pin: numberOf(effect.pin) });
          break;
        case 'reserved':
        case 'reserveRefused': {
          const { kind, reservation } = effect;
          if (isOwn(reservation)) errands.add('executor', { kind, run: numberOf(reservation) });
          else effects.push({ kind, reservation: numberOf(reservation) });
          break;
        }
        case 'note':
          effects.push(effect);
          if (effect.note.kind === 'member') onMember(effect.note.member, effect.note.before);
          break;
        default:
          effects.push(effect);
      }
    }
  }

  function onMember(member: Member, before: MemberStatus | undefined): void {
    const { id } = member.record;
    membersChanged = true;
    views.changed(member, before, nowInStepMs);
    if (member.status === 'alive' || member.status === 'suspect' || id === self) return;
    errands.add('submitter', { kind: 'absent', node: id });
    errands.add('executor', { kind: 'absent', node: id });
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
          errands.wakeAt('coordination', effect.atMs);
          break;
        case 'hint':
          errands.wakeAt('gossip', hints.add(effect.hint, nowInStepMs));
          break;
        case 'note':
          effects.push(effect);
          break;
        default:
          effect satisfies never;
      }
    }
    for (let shard = 0; shard < config.shards; shard++) {
      const leader = coordination.leaderOf(shard);
      if (leader === leaders[shard]) continue;
      leaders[shard] = leader;
      errands.add('submitter', { kind: 'leader', shard, leader });
      errands.add('executor', { kind: 'leader', shard, leader });
    }
  }

  function stepSubmitter(event: SubmitterEvent): void {
    for (const effect of submitter.step(event, nowInStepMs)) onSubmitterEffect(effect);
  }

  function onSubmitterEffect(effect: SubmitterEffect): void {
    switch (effect.kind) {
      case 'send':
        // Free slots here compete for this node's own actions like everybody else's; what stays has one already.
        if (effect.message.kind === 'submit' && effect.message.items.some(({ stay }) => !stay))
          errands.add('executor', { kind: 'workAt', leader: effect.to });
        return post(effect.to, effect.message, undefined);
      case 'wakeAt':
        return errands.wakeAt('submitter', effect.atMs);
      case 'pinHandedOver':
        return pins.pin(effect.result, effect.forMs, { kind: 'fetch', fetch: effect.fetch });
      case 'runOwn':
      case 'stopOwn':
      case 'ownWaiting':
        return errands.add('executor', effect);
      case 'answer': {
        const invocation = invocations.get(effect.request) as InvocationId;
        invocations.delete(effect.request);
        if (effect.answer.kind === 'result') {
          pins.pin(effect.answer.outcome.result, limits.clientPinMs, { kind: 'client', invocation });
        }
        effects.push(effect);
        return;
      }
      case 'fetchOutputs':
      case 'stopFetch':
      case 'progress':
        effects.push(effect);
        return;
      case 'decided':
      case 'drained':
        effects.push({ kind: 'note', note: effect });
        return;
      default:
        effect satisfies never;
    }
  }

  function stepDesk(event: DeskEvent): void {
    for (const effect of desk.step(event, nowInStepMs)) {
      switch (effect.kind) {
        case 'send':
          post(effect.to, effect.message, undefined);
          break;
        case 'wakeAt':
          errands.wakeAt('desk', effect.atMs);
          break;
        case 'pin':
          pins.pin(effect.result, limits.replicaPinMs, { kind: 'upload', write: effect.write });
          break;
        case 'lookedUp':
          effects.push(effect);
          break;
        default:
          effect satisfies never;
      }
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
        return errands.wakeAt('executor', effect.atMs);
      case 'reserve':
        return errands.add('sharing', {
          kind: 'reserve',
          reservation: own(effect.run),
          sizeBytes: effect.spaceBytes,
        });
      case 'release':
        return errands.add('sharing', { kind: 'release', reservation: own(effect.run) });
      case 'pinOutputs':
        return pins.pin(effect.outcome.result, limits.replicaPinMs, { kind: 'run', run: effect.run });
      case 'slots':
      case 'ownEnded':
      case 'ownClaimed':
      case 'ownUnclaimed':
        return errands.add('submitter', effect);
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

  function onPin(effect: Extract<SharingEffect, { readonly kind: 'pinned' | 'pinRefused' }>): void {
    const { pinFor, forMs, note } = pins.answered(effect, nowInStepMs);
    switch (pinFor.kind) {
      case 'run': {
        const { run } = pinFor;
        errands.add('executor', forMs === undefined ? { kind: 'pinRefused', run } : { kind: 'pinned', run, forMs });
        break;
      }
      case 'fetch': {
        const { fetch } = pinFor;
        errands.add(
          'submitter',
          forMs === undefined ? { kind: 'pinRefused', fetch } : { kind: 'pinned', fetch, forMs },
        );
        break;
      }
      case 'upload':
        errands.add('desk', { kind: 'pinned', write: pinFor.write, forMs });
        break;
      case 'client':
        break;
      default:
        pinFor satisfies never;
    }
    effects.push({ kind: 'note', note });
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
      case 'announce':
      case 'announced':
      case 'regionsAsked':
      case 'regions':
      case 'whoHas':
      case 'holders':
      case 'keep':
      case 'kept':
        return errands.add('sharing', { kind: 'message', from, message });
      case 'hints':
        for (const hint of message.hints) {
          if (hint.state === 'ready') errands.add('executor', { kind: 'workAt', leader: hint.leader });
        }
        return;
      case 'granted':
      case 'started':
      case 'renewed':
      case 'revoked':
      case 'adopted':
      case 'handedOver':
      case 'handOverRefused':
        return errands.add('executor', { kind: 'message', from, message });
      case 'committed': {
        const { claim, outcome } = message;
        effects.push({ kind: 'note', note: { kind: 'committed', key: claim.key, token: claim.token, outcome } });
        return errands.add('executor', { kind: 'message', from, message });
      }
      case 'requestState':
      case 'handOver':
      case 'stage':
        return errands.add('submitter', { kind: 'message', from, message });
      // Each knows the numbers of its own questions; no two count from the same one.
      case 'lookedUp':
      case 'written':
      case 'redirect':
        errands.add('desk', { kind: 'message', message });
        errands.add('submitter', { kind: 'message', from, message });
        return errands.add('coordination', { kind: 'message', from, message });
      default:
        return errands.add('coordination', { kind: 'message', from, message });
    }
  }

  /** A store may have reported the result already, with its own size; a pin of it keeps all that it names. */
  function onOutcome(blob: BlobKey, closureBytes: number, reservation?: number): void {
    const stored = { kind: 'stored', blob, sizeBytes: closureBytes, closureBytes } as const;
    errands.add('sharing', reservation === undefined ? stored : { ...stored, reservation });
  }

  /** Hints did not come here while guests were not welcome. */
  function askForWork(): void {
    for (const leader of new Set(leaders))
      if (leader !== undefined) errands.add('executor', { kind: 'workAt', leader });
  }

  /** The members learn what this machine lends now. */
  function announceLent(): void {
    const guestSlots = slots.guests && !ownerPresent ? Math.min(slots.slots, slots.guestSlots) : 0;
    // They stay while merely the owner is there: what only this machine can run waits until it lends slots again.
    const capabilities = (slots.guests ? slots.capabilities : [])
      .filter((text) => text.length <= limits.capabilityLengthMax)
      .slice(0, limits.capabilitiesMax);
    const same = capabilities.join() === lent.capabilities.join();
    if (guestSlots === lent.guestSlots && same) return;
    if (guestSlots > 0 && lent.guestSlots === 0) askForWork();
    lent = { guestSlots, capabilities };
    errands.add('sharing', { kind: 'attributes', attributes: { ...machine, ...lent } });
  }

  function apply(event: PeerEvent): void {
    switch (event.kind) {
      case 'start':
        // What coordination wrote while it was made comes first: records leave in the order of their numbers.
        errands.add('coordination', { kind: 'wake' });
        return errands.add('sharing', event);
      case 'message':
        return onMessage(event.from, event.message);
      case 'wake':
        return;
      case 'gap':
        errands.add('sharing', event);
        errands.add('coordination', { kind: 'gap' });
        errands.add('executor', { kind: 'gap' });
        return errands.add('submitter', { kind: 'gap' });
      case 'persisted':
        durableTo = event.id;
        errands.add('coordination', event);
        return errands.add('sharing', event);
      case 'attributes':
        machine = event.attributes;
        return errands.add('sharing', { kind: 'attributes', attributes: { ...machine, ...lent } });
      case 'goodbye':
        errands.add('executor', { kind: 'goodbye' });
        errands.add('coordination', { kind: 'goodbye' });
        return errands.add('sharing', event);
      case 'execute':
        invocations.set(event.item.request, event.item.invocation);
        return errands.add('submitter', event);
      case 'cancel':
        return errands.add('submitter', event);
      case 'invocationEnded':
        return pins.ended(event.invocation);
      case 'slots':
        slots = event;
        errands.add('executor', event);
        return announceLent();
      case 'owner':
        ownerPresent = event.present;
        errands.add('executor', event);
        return announceLent();
      case 'drain':
      case 'mismatched':
        return errands.add('submitter', event);
      case 'lookup':
      case 'publish':
      case 'invalidate':
        return errands.add('desk', event);
      case 'inputsFetched':
        return errands.add('executor', { kind: 'fetched', run: event.run, ok: event.ok });
      case 'ran':
        onOutcome(event.outcome.result, event.outcome.sizeBytes, own(event.run));
        return errands.add('executor', event);
      case 'runFailed':
        return errands.add('executor', event);
      case 'outputsFetched':
        if (event.outcome) onOutcome(event.outcome.result, event.outcome.sizeBytes);
        return errands.add('submitter', { ...event, kind: 'fetched' });
      case 'ended':
        // A transfer tells how fast its holder is, which counts when the next action is offered.
        errands.wakeAt('throughput', Math.max(nowInStepMs, toldMeshAtMs + limits.throughputMs));
        return errands.add('sharing', event);
      case 'pin':
      case 'unpin':
        return errands.add('sharing', { ...event, pin: outside(event.pin) });
      case 'reserve':
      case 'release':
        return errands.add('sharing', { ...event, reservation: outside(event.reservation) });
      case 'stored': {
        const { reservation } = event;
        return errands.add(
          'sharing',
          reservation === undefined ? event : { ...event, reservation: outside(reservation) },
        );
      }
      default:
        return errands.add('sharing', event);
    }
  }

  function gossipHints(): void {
    const batch = hints.take(views.forOffloading(), nowInStepMs);
    if (!batch) return;
    const message: PeerMessage = { kind: 'hints', hints: batch.hints };
    for (const to of [self, ...batch.to]) post(to, message, undefined);
  }

  function tellMesh(): void {
    toldMeshAtMs = nowInStepMs;
    errands.add('submitter', { kind: 'mesh', members: views.forOffloading() });
  }

  /** Delivers mail to this node itself, then what changed among the members. */
  function deliverOwn(): boolean {
    const at = ownMail.findIndex((mail) => mail.after === undefined || mail.after <= durableTo);
    if (at >= 0) {
      const [mail] = ownMail.splice(at, 1) as [(typeof ownMail)[number]];
      effects.push({ kind: 'note', note: { kind: 'mail', message: mail.message } });
      onMessage(self, mail.message);
      return true;
    }
    if (!membersChanged) return false;
    membersChanged = false;
    errands.add('coordination', { kind: 'members', members: views.forCoordination(nowInStepMs) });
    tellMesh();
    return true;
  }

  return {
    ...sharing,
    coordination,
    submitter,
    executor,
    step(event, now) {
      effects = [];
      nowInStepMs = now;
      apply(event);
      errands.settle(now, deliverOwn);
      const next = errands.nextMs();
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
    checkpoint: (now) => [
      ...sharing.checkpoint(now),
      ...coordination.checkpoint().map((record) => ({ of: 'coordination' as const, record })),
    ],
  };
}

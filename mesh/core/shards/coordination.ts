/**
 * Everything that one node coordinates: its replicas of shard groups, the claims of the shards that it leads, where those
 * groups are steered, and what happens when histories split and meet. It routes between these and holds them together;
 * what each decides is in its own file.
 *
 * @see docs/protocol.md
 */
import { createClaims } from '../claims/claims.ts';
import type { ClaimMessage } from '../claims/messages.ts';
import type { ClaimsEffect, ClaimsEvent } from '../claims/types.ts';
import { type NodeId, replicaId, type ShardId } from '../ids.ts';
import { registerLimits, shardLimits } from '../limits.ts';
import type { Machine } from '../machine.ts';
import type { CoordinationMessage, CoordinationRecord } from '../messages.ts';
import { createHeartbeats } from '../raft/heartbeats.ts';
import type { RegisterMessage } from '../registers/messages.ts';
import type { RegisterCommand } from '../registers/types.ts';
import type { Rng } from '../rng.ts';
import { createDirectory } from './directory.ts';
import { createForming } from './forming.ts';
import type { Group } from './group.ts';
import { createHearsay } from './hearsay.ts';
import { createHelm } from './helm.ts';
import { createMerging } from './merging.ts';
import type { ShardMessage, ShardStatus } from './messages.ts';
import { type CoordinationDisk, coordinationRecordsOf } from './recovery.ts';
import { createReplicas } from './replicas.ts';
import type { CoordinationEffect, CoordinationEvent, CoordinationNote, MemberView } from './types.ts';

export { recoverCoordination } from './recovery.ts';

const offerIdMin = 2 ** 40;
const offerIdsPerLife = 256;

export interface CoordinationInit {
  readonly self: NodeId;
  /** Number of this disk's life; another one after the disk was lost. */
  readonly disk: number;
  /** How many shards the mesh has. */
  readonly shards: number;
  /** Makes the mesh: the only voter of every shard's first generation. */
  readonly founder: boolean;
  readonly rng: Rng;
  /** Ascending over everything that this node persists. */
  readonly nextPersistId: () => number;
}

export interface Coordination extends Machine<CoordinationEvent, CoordinationEffect> {
  /** Whom to ask about a shard, as far as is known here. */
  leaderOf(shard: ShardId): NodeId | undefined;
  /** This node's replica of the shard's present history, if it has one. */
  groupOf(shard: ShardId): Group | undefined;
  /** What is known of every shard. */
  statuses(): readonly ShardStatus[];
  readonly claims: ReturnType<typeof createClaims>;
  /** The fewest records that recover to the present state. */
  checkpoint(): CoordinationRecord[];
}

/** Creates the machine from what its own records amount to. */
export function createCoordination(init: CoordinationInit, disk: CoordinationDisk, startMs: number): Coordination {
  const { self, shards, rng, nextPersistId } = init;
  const replica = replicaId(self, init.disk);
  const directory = createDirectory();
  const heartbeats = createHeartbeats();
  // Claims work between the steps of groups, so their effects are carried out at once.
  const claims = createClaims(
    {
      self,
      register: (shard, key) => groups.get(shard)?.registers.get(key),
      isAlive: (node) => memberOf.get(node)?.status === 'alive',
    },
    rng.fork('claims'),
  );
  let members: readonly MemberView[] = [];
  let memberOf: ReadonlyMap<NodeId, MemberView> = new Map();
  let leaving = false;
  let effects: CoordinationEffect[] = [];
  let stepMs = startMs;
  // Apart from the submitter's, which counts from 1, and from those of a life before a reboot.
  let nextRequest = offerIdMin + rng.fork('requests').next() * offerIdsPerLife;
  const helm = createHelm(replica, startMs);
  let formCheckAtMs = startMs + shardLimits.formCheckMs;

  const note = (what: CoordinationNote): void => void effects.push({ kind: 'note', note: what });
  const send = (to: NodeId, message: CoordinationMessage, after?: number): void =>
    void effects.push(after === undefined ? { kind: 'send', to, message } : { kind: 'send', to, message, after });
  const persist = (record: CoordinationRecord): number => {
    const id = nextPersistId();
    effects.push({ kind: 'persist', id, record });
    return id;
  };

  const forming = createForming(
    self,
    directory,
    {
      members: () => members,
      statusOf,
      send: (to, message, record) =>
        send(to, message, record === undefined ? undefined : persist({ kind: 'shard', record })),
      hasLeader: (shard) => groups.get(shard)?.leader !== undefined,
      forced: (shard, generation) => note({ kind: 'generationForced', shard, generation }),
    },
    disk.consents,
  );

  const everyShard = Array.from({ length: shards }, (_, shard) => shard);
  const hearsay = createHearsay(
    everyShard,
    {
      others: () => members.filter(({ node, status }) => status === 'alive' && node !== self).map(({ node }) => node),
      statusOf,
      leaderOf,
      send,
    },
    rng.fork('hearsay'),
    startMs,
  );

  const merging = createMerging(
    {
      leaderOf,
      survivorKnown: (shard, superseded) =>
        (directory.get(shard)?.generation.number ?? superseded.number) > superseded.number,
      send,
      done({ shard, generation, registers }, accepted) {
        replicas.giveUp(shard, generation);
        note({ kind: 'merged', shard, generation, offered: registers.length, accepted });
      },
    },
    () => ++nextRequest,
  );

  const replicas = createReplicas(replica, shards, directory, rng.fork('replicas'), {
    nextPersistId,
    persistNext: (record) => void persist(record),
    persist: (id, record) => void effects.push({ kind: 'persist', id, record }),
    send(envelope, after) {
      const outgoing = heartbeats.add(envelope, after);
      if (outgoing) send(outgoing.to, outgoing.message, outgoing.after);
    },
    reply: send,
    note,
    leading: onLeading,
    configured: onConfigured,
    committed: (proposal, outcome) => stepClaims({ kind: 'applied', proposal, outcome }),
    leaderOf,
    tell: (to, shard) => hearsay.tell(to, [shard]),
    consentedTo: (shard, generation) => forming.consentedTo(shard, generation),
    bequeath(heirloom) {
      merging.add(heirloom, stepMs);
      merging.advance(stepMs);
    },
  });
  const { groups } = replicas;

  // ---- Groups ----

  function onLeading(shard: ShardId, term: number | undefined): void {
    const group = groups.get(shard);
    if (!group) return;
    const generation = group.generation.number;
    if (term === undefined) stepClaims({ kind: 'unlead', shard });
    else stepClaims({ kind: 'lead', shard, generation, term });
    if (term === undefined) return;
    hearsay.announce(shard);
    helm.unsettled(stepMs);
  }

  function onConfigured(shard: ShardId): void {
    if (!groups.get(shard)?.ready) return;
    hearsay.announce(shard);
    helm.hurry(stepMs);
  }

  function learn(status: ShardStatus): void {
    replicas.learn(status, stepMs);
    // A leader that was waited for may be known now.
    if (status.leader !== undefined) merging.advance(stepMs);
  }

  // ---- What others should know ----

  function statusOf(shard: ShardId): ShardStatus | undefined {
    const group = groups.get(shard);
    if (!group) return directory.get(shard);
    const { term, configuration, configurationIndex } = group.status;
    const known = directory.get(shard);
    // A replica that lags, or was brought in again and has its log yet to get, knows less than was heard of the shard.
    const later =
      known && (known.term > term || (known.term === term && known.configurationIndex > configurationIndex));
    const ahead = later && known.generation.number >= group.generation.number;
    if (ahead || configuration.voters.length === 0) return known;
    const { generation, leader } = group;
    return { shard, generation, term, leader, configuration, configurationIndex };
  }

  function leaderOf(shard: ShardId): NodeId | undefined {
    const leader = groups.get(shard)?.leader ?? directory.get(shard)?.leader;
    if (leader === undefined || leader === self) return leader;
    const status = memberOf.get(leader)?.status;
    return status === 'dead' || status === 'suspended' ? undefined : leader;
  }

  // ---- Members ----

  function steer(): void {
    const candidates = leaving
      ? members.map((member) => (member.node === self ? { ...member, status: 'suspended' as const } : member))
      : members;
    helm.steer(groups.values(), candidates, leaving, stepMs);
  }

  function onMembers(view: readonly MemberView[]): void {
    const before = memberOf;
    const now = new Map(view.map((member) => [member.node, member]));
    members = view;
    memberOf = now;
    for (const { node, disk: diskBefore, status: was } of before.values()) {
      const member = now.get(node);
      const away = !member || member.status === 'dead' || member.status === 'suspended' || member.disk !== diskBefore;
      const wasAway = was === 'dead' || was === 'suspended';
      if (node === self || !away || wasAway) continue;
      directory.forgetLeader(node);
      stepClaims({ kind: 'memberGone', node, dead: member?.status !== 'suspended' });
      for (const group of groups.values()) {
        group.step({ kind: 'unreachable', replica: replicaId(node, diskBefore) }, stepMs);
      }
    }
    for (const { node, status } of view) {
      const was = before.get(node)?.status;
      // Whoever comes back may bring another history, or need this one.
      const back = node !== self && status === 'alive' && was !== 'alive' && was !== 'suspect';
      if (back && rng.below(view.length) < shardLimits.statusFanout) hearsay.tellAll(node);
    }
    helm.unsettled(stepMs);
  }

  // ---- Requests ----

  function stepClaims(event: ClaimsEvent): void {
    for (const effect of claims.step(event, stepMs)) onClaimsEffect(effect);
  }

  function onClaimsEffect(effect: ClaimsEffect): void {
    switch (effect.kind) {
      case 'send':
        return send(effect.to, effect.message);
      case 'hint':
        return void effects.push(effect);
      case 'propose': {
        const group = groups.get(effect.shard);
        if (group) group.commit(effect.proposal, effect.commit);
        else stepClaims({ kind: 'applied', proposal: effect.proposal, outcome: 'lost' });
        return;
      }
      case 'notLeader':
        return redirect(effect.to, 0, effect.shard);
      case 'granted':
      case 'revoked':
      case 'staleRefused':
        return note(effect);
      default:
        effect satisfies never;
    }
  }

  function redirect(to: NodeId, id: number, shard: ShardId): void {
    send(to, { kind: 'redirect', id, shard, leader: leaderOf(shard), reason: 'notLeader' });
  }

  function onRegisterMessage(from: NodeId, message: RegisterMessage): void {
    if (message.kind === 'written') return void merging.onWritten(message.id, message.shard, message.outcomes, stepMs);
    // Answers to this node's own lookups and uploads; the peer takes them to who asked.
    if (message.kind === 'lookedUp' || message.kind === 'redirect') return;
    const group = groups.get(message.shard);
    if (!group) return redirect(from, message.id, message.shard);
    if (message.kind === 'lookup') return group.lookup(from, message, stepMs);
    // One member's word that a result is wrong drops nothing; this node's own word is what it verified itself.
    if (message.kind === 'invalidate' && message.reason !== 'lost' && from !== self) return;
    group.write(from, message.id, commandsOf(message));
  }

  function onShardMessage(from: NodeId, message: ShardMessage): void {
    switch (message.kind) {
      case 'shardStatus':
        for (const status of message.statuses) learn(status);
        return;
      case 'askShards':
        return hearsay.tell(from, message.shards);
      case 'formRequest':
        return forming.onRequest(from, message, stepMs);
      case 'formReply':
        if (message.known) learn(message.known);
        return forming.onReply(from, message, stepMs);
      case 'formed':
        return replicas.formed(message.shard, message.generation, message.voters, stepMs);
      default:
        message satisfies never;
    }
  }

  function onClaimMessage(from: NodeId, message: ClaimMessage): void {
    if (message.kind === 'submit') {
      for (const shard of new Set(message.items.map((item) => item.shard))) {
        groups.get(shard)?.step({ kind: 'touch' }, stepMs);
      }
    }
    stepClaims({ kind: 'message', from, message });
  }

  function onMessage(from: NodeId, message: CoordinationMessage): void {
    switch (message.kind) {
      case 'raft':
        return replicas.receive(from, message, stepMs);
      case 'heartbeats':
        for (const beat of message.beats) replicas.receive(from, beat, stepMs);
        return;
      case 'lookup':
      case 'lookedUp':
      case 'publish':
      case 'invalidate':
      case 'offerRegisters':
      case 'written':
      case 'redirect':
        return onRegisterMessage(from, message);
      case 'shardStatus':
      case 'askShards':
      case 'formRequest':
      case 'formReply':
      case 'formed':
        return onShardMessage(from, message);
      case 'submit':
      case 'renewRequests':
      case 'cancelRequests':
      case 'pull':
      case 'start':
      case 'renewClaims':
      case 'giveBack':
      case 'fail':
      case 'commit':
      case 'register':
        return onClaimMessage(from, message);
      // To this node's submitter and executor; the peer takes them there.
      case 'hints':
      case 'requestState':
      case 'granted':
      case 'started':
      case 'renewed':
      case 'revoked':
      case 'adopted':
      case 'committed':
        return;
      default:
        message satisfies never;
    }
  }

  function onWake(): void {
    for (const group of [...groups.values()]) if (group.dueAtMs <= stepMs) group.step({ kind: 'wake' }, stepMs);
    if (claims.dueAtMs <= stepMs) stepClaims({ kind: 'wake' });
    if (merging.dueAtMs <= stepMs) merging.advance(stepMs);
    if (helm.dueAtMs <= stepMs) steer();
    if (hearsay.dueAtMs <= stepMs) hearsay.wake(stepMs);
    if (formCheckAtMs <= stepMs) {
      formCheckAtMs = stepMs + shardLimits.formCheckMs;
      forming.check(shards, stepMs);
    }
  }

  function onEvent(event: CoordinationEvent): void {
    switch (event.kind) {
      case 'message':
        return onMessage(event.from, event.message);
      case 'persisted':
        return replicas.persisted(event.id, stepMs);
      case 'wake':
        return onWake();
      case 'gap':
        leaving = false;
        forming.gap();
        for (const group of groups.values()) group.step({ kind: 'gap' }, stepMs);
        return helm.unsettled(stepMs);
      case 'members':
        return onMembers(event.members);
      case 'goodbye':
        leaving = true;
        return steer();
      default:
        event satisfies never;
    }
  }

  replicas.recover(disk, startMs);
  if (init.founder) replicas.found(everyShard, startMs);
  // What was decided while it was made leaves with the first step.
  let opening = effects;

  return {
    step(event, nowMs) {
      effects = opening;
      opening = [];
      stepMs = nowMs;
      onEvent(event);
      for (const group of groups.values()) group.flush(nowMs);
      for (const status of hearsay.flush()) directory.learn(status);
      if (heartbeats.waiting) for (const { to, message, after } of heartbeats.flush()) send(to, message, after);
      let dueAtMs = Math.min(helm.dueAtMs, hearsay.dueAtMs, formCheckAtMs, claims.dueAtMs, merging.dueAtMs);
      for (const group of groups.values()) dueAtMs = Math.min(dueAtMs, group.dueAtMs);
      effects.push({ kind: 'wakeAt', atMs: dueAtMs });
      return effects;
    },
    leaderOf,
    groupOf: (shard) => groups.get(shard),
    statuses: () => everyShard.flatMap((shard) => statusOf(shard) ?? []),
    claims,
    checkpoint: () => coordinationRecordsOf({ groups: replicas.onDisk(), consents: forming.consents }),
  };
}

function commandsOf(
  message: Extract<RegisterMessage, { kind: 'publish' | 'invalidate' | 'offerRegisters' }>,
): readonly RegisterCommand[] {
  switch (message.kind) {
    case 'publish': {
      const { key, result, executor, promises } = message;
      return [{ kind: 'publish', key, result, executor, promises }];
    }
    case 'invalidate':
      return [{ kind: 'invalidate', key: message.key, result: message.result, reason: message.reason }];
    case 'offerRegisters':
      return message.registers
        .slice(0, registerLimits.registersPerOffer)
        .map(({ key, register }) => ({ kind: 'offer', key, register }));
  }
}

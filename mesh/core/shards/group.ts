/**
 * One replica of a shard's group on this node: Raft, the registers that it replicates, and who waits for what. Commands of
 * one step travel in one log entry.
 */
import type { CommitProposal } from '../claims/types.ts';
import { hashText } from '../hash.ts';
import { type ActionKey, type Generation, type NodeId, nodeOf, type ReplicaId, type ShardId } from '../ids.ts';
import { raftLimits, registerLimits, shardLimits } from '../limits.ts';
import type { CoordinationRecord, GroupEnvelope, GroupMessage } from '../messages.ts';
import { createRaft, type RaftStatus } from '../raft/raft.ts';
import type { Configuration, Entry, RaftDisk, RaftEffect, RaftEvent } from '../raft/types.ts';
import { batchSizeBytes, commandText } from '../registers/encoding.ts';
import { pinsLeftMs } from '../registers/holders.ts';
import type { RegisterMessage } from '../registers/messages.ts';
import { createRegisters, type Registers } from '../registers/registers.ts';
import type { ApplyOutcome, RegisterBatch, RegisterCommand, RegistersState } from '../registers/types.ts';
import type { Rng } from '../rng.ts';
import type { CoordinationNote } from './types.ts';

export type GroupDisk = RaftDisk<RegisterBatch, RegistersState>;
type Effect = RaftEffect<RegisterBatch, RegistersState>;

/** What a group needs done around it. */
export interface GroupPort {
  send(envelope: GroupEnvelope, after: number | undefined): void;
  persist(id: number, record: CoordinationRecord): void;
  reply(to: NodeId, message: RegisterMessage): void;
  note(note: CoordinationNote): void;
  /** This replica leads and has applied everything from before its term; or it does not any more. */
  leading(shard: ShardId, term: number | undefined): void;
  /** A configuration was committed. */
  configured(shard: ShardId): void;
  /** What became of a claim's commit. */
  committed(proposal: number, outcome: ApplyOutcome | 'lost'): void;
  /** A committed configuration is without this replica. */
  removed(shard: ShardId): void;
  leaderOf(shard: ShardId): NodeId | undefined;
}

export interface GroupInit {
  readonly shard: ShardId;
  readonly generation: Generation;
  readonly self: ReplicaId;
  readonly disk: GroupDisk;
  readonly rng: Rng;
  readonly nextPersistId: () => number;
  readonly port: GroupPort;
}

export interface Group {
  readonly shard: ShardId;
  readonly generation: Generation;
  readonly registers: Registers;
  readonly dueAtMs: number;
  readonly status: RaftStatus;
  /** The node that leads as far as this replica knows. */
  readonly leader: NodeId | undefined;
  /** Leads, and has applied everything from before its term. */
  readonly ready: boolean;
  step(event: RaftEvent<RegisterBatch, RegistersState>, nowMs: number): void;
  receive(from: ReplicaId, message: GroupMessage, nowMs: number): void;
  lookup(from: NodeId, request: Extract<RegisterMessage, { kind: 'lookup' }>, nowMs: number): void;
  /** Queues commands of one request; `written` or `redirect` goes to `from` when all are decided. */
  write(from: NodeId, id: number, commands: readonly RegisterCommand[]): void;
  commit(proposal: number, commit: CommitProposal): void;
  change(configuration: Configuration, nowMs: number): void;
  /** Proposes what was queued since the last call. */
  flush(nowMs: number): void;
  /** A snapshot of everything applied, so that nothing applied is lost when the replica stops here. */
  compact(nowMs: number): void;
  /** Takes no further part; whoever waits for an answer is sent on. */
  stop(): void;
  shardNowMs(nowMs: number): number;
  disk(): GroupDisk;
}

/** Whom to tell what became of a command. */
type Origin =
  | { readonly kind: 'claim'; readonly proposal: number }
  | { readonly kind: 'request'; readonly request: WriteRequest; readonly position: number };

interface WriteRequest {
  readonly from: NodeId;
  readonly id: number;
  readonly outcomes: (ApplyOutcome | undefined)[];
  undecided: number;
  failed: boolean;
}

interface Queued {
  readonly command: RegisterCommand;
  readonly origin: Origin;
}

export function createGroup(init: GroupInit, nowMs: number): Group {
  const { shard, generation, self, port } = init;
  const raft = createRaft<RegisterBatch, RegistersState>({
    self,
    disk: init.disk,
    rng: init.rng,
    nextPersistId: init.nextPersistId,
    nowMs,
  });
  let registers = createRegisters(init.disk.snapshot?.state);
  let queued: Queued[] = [];
  let nextId = 0;
  // By the id of a proposal until the log has given it an index, then by index.
  const proposed = new Map<number, readonly Queued[]>();
  const inLog = new Map<number, { readonly term: number; readonly batch: readonly Queued[] }>();
  const reads = new Map<number, { readonly from: NodeId; readonly id: number; readonly keys: readonly ActionKey[] }>();
  let ready = false;
  let applied = false;
  let { dueAtMs } = raft;
  // Shard time goes on from what was applied last, at the pace of this leader's clock.
  let stamp = { shardMs: registers.shardMs, atMs: nowMs };

  function perform(effects: readonly Effect[], atMs: number): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case 'send':
          port.send({ shard, generation, from: self, to: effect.to, message: effect.message }, effect.after);
          break;
        case 'persist':
          port.persist(effect.id, { kind: 'group', shard, generation, record: effect.record });
          break;
        case 'apply':
          for (const entry of effect.entries) applyEntry(entry, atMs);
          break;
        case 'restore':
          registers = createRegisters(effect.snapshot.state);
          break;
        case 'proposed': {
          const batch = proposed.get(effect.id);
          proposed.delete(effect.id);
          if (batch) inLog.set(effect.index, { term: effect.term, batch });
          break;
        }
        case 'refused':
          refuse(effect.id, effect.reason === 'busy' ? 'busy' : 'notLeader');
          break;
        case 'readable':
          answerRead(effect.id, atMs);
          break;
        case 'role':
          onRole(effect.role === 'leader');
          port.note({ kind: 'role', shard, generation, role: effect.role, term: effect.term });
          break;
        case 'removed':
          port.removed(shard);
          break;
        default:
          effect satisfies never;
      }
    }
  }

  function onRole(leads: boolean): void {
    if (leads) return;
    for (const [index, { batch }] of inLog) {
      inLog.delete(index);
      for (const { origin } of batch) fail(origin, 'notLeader');
    }
    if (!ready) return;
    ready = false;
    port.leading(shard, undefined);
  }

  function applyEntry(entry: Entry<RegisterBatch>, atMs: number): void {
    const { index, term, data } = entry;
    applied = true;
    let text: string = data.kind;
    if (data.kind === 'command') {
      const { commands } = data.command;
      const outcomes = registers.apply(data.command, { generation: generation.number, term });
      text = `${data.command.shardMs} ${commands.map(commandText).join('\n')}`;
      for (const [i, command] of commands.entries()) noteWritten(index, command, outcomes[i] as ApplyOutcome);
      const waiting = inLog.get(index);
      inLog.delete(index);
      for (const [i, { origin }] of (waiting?.batch ?? []).entries()) {
        if (waiting?.term === term) decide(origin, outcomes[i] as ApplyOutcome);
        else fail(origin, 'notLeader');
      }
    } else if (data.kind === 'configuration') {
      port.note({ kind: 'configured', shard, generation, configuration: data.configuration });
      port.configured(shard);
    } else if (raft.status.role === 'leader' && raft.status.term === term) {
      ready = true;
      stamp = { shardMs: registers.shardMs, atMs };
      port.leading(shard, term);
    }
    port.note({ kind: 'applied', shard, generation, index, term, entryHash: hashText(text) });
  }

  function noteWritten(index: number, command: RegisterCommand, outcome: ApplyOutcome): void {
    const token = command.kind === 'commit' ? command.token : registers.get(command.key)?.token;
    const { key, kind } = command;
    port.note({ kind: 'registerWritten', shard, generation, index, key, command: kind, token, outcome });
  }

  function decide(origin: Origin, outcome: ApplyOutcome): void {
    if (origin.kind === 'claim') return port.committed(origin.proposal, outcome);
    const { request, position } = origin;
    request.outcomes[position] = outcome;
    request.undecided -= 1;
    if (request.undecided > 0 || request.failed) return;
    const outcomes = request.outcomes as ApplyOutcome[];
    port.reply(request.from, { kind: 'written', id: request.id, shard, outcomes });
  }

  function fail(origin: Origin, reason: 'notLeader' | 'busy'): void {
    if (origin.kind === 'claim') return port.committed(origin.proposal, 'lost');
    const { request } = origin;
    if (request.failed) return;
    request.failed = true;
    redirect(request.from, request.id, reason);
  }

  function redirect(to: NodeId, id: number, reason: 'notLeader' | 'busy'): void {
    port.reply(to, { kind: 'redirect', id, shard, leader: port.leaderOf(shard), reason });
  }

  function refuse(id: number, reason: 'notLeader' | 'busy'): void {
    const batch = proposed.get(id);
    proposed.delete(id);
    for (const { origin } of batch ?? []) fail(origin, reason);
    const read = reads.get(id);
    reads.delete(id);
    if (read) redirect(read.from, read.id, reason);
  }

  function answerRead(id: number, atMs: number): void {
    const read = reads.get(id);
    reads.delete(id);
    if (read) answer(read.from, read.id, read.keys, atMs);
  }

  function answer(to: NodeId, id: number, keys: readonly ActionKey[], atMs: number): void {
    const found = keys.flatMap((key) => {
      const register = registers.get(key);
      return register ? [{ key, register, pinnedForMs: pinsLeftMs(register, shardNowMs(atMs)) }] : [];
    });
    port.reply(to, { kind: 'lookedUp', id, shard, found });
  }

  function shardNowMs(atMs: number): number {
    return Math.max(registers.shardMs, stamp.shardMs + Math.max(0, atMs - stamp.atMs));
  }

  const step = (event: RaftEvent<RegisterBatch, RegistersState>, atMs: number): void => {
    perform(raft.step(event, atMs), atMs);
    ({ dueAtMs } = raft);
  };

  return {
    shard,
    generation,
    get registers() {
      return registers;
    },
    get dueAtMs() {
      return dueAtMs;
    },
    get leader() {
      return raft.leader === undefined ? undefined : nodeOf(raft.leader);
    },
    get status() {
      return raft.status;
    },
    get ready() {
      return ready;
    },
    step,
    receive(from, message, atMs) {
      step({ kind: 'message', from, message }, atMs);
    },
    lookup(from, request, atMs) {
      if (!ready) return redirect(from, request.id, 'notLeader');
      if (reads.size >= shardLimits.requestsPending) return redirect(from, request.id, 'busy');
      const keys = request.keys.slice(0, registerLimits.keysPerLookup);
      step({ kind: 'touch' }, atMs);
      if (!request.fresh && raft.holdsLease(atMs)) return answer(from, request.id, keys, atMs);
      const id = ++nextId;
      reads.set(id, { from, id: request.id, keys });
      step({ kind: 'read', id }, atMs);
    },
    write(from, id, commands) {
      if (!ready) return redirect(from, id, 'notLeader');
      if (queued.length + inLog.size >= shardLimits.requestsPending) return redirect(from, id, 'busy');
      const request = { from, id, outcomes: commands.map(() => undefined), undecided: commands.length, failed: false };
      for (const [position, command] of commands.entries()) {
        queued.push({ command, origin: { kind: 'request', request, position } });
      }
    },
    commit(proposal, commit) {
      queued.push({ command: { kind: 'commit', ...commit }, origin: { kind: 'claim', proposal } });
    },
    change(configuration, atMs) {
      step({ kind: 'changeConfiguration', id: ++nextId, configuration }, atMs);
    },
    flush(atMs) {
      while (queued.length > 0) {
        const batch = queued.slice(0, registerLimits.commandsPerBatch);
        queued = queued.slice(batch.length);
        const command = { shardMs: shardNowMs(atMs), commands: batch.map((one) => one.command) };
        const id = ++nextId;
        proposed.set(id, batch);
        step({ kind: 'propose', id, command, sizeBytes: batchSizeBytes(command) }, atMs);
      }
      if (!applied) return;
      applied = false;
      if (raft.status.uncompacted > raftLimits.compactAfterEntries) compact(atMs);
    },
    compact,
    stop() {
      for (const batch of [...proposed.values(), queued]) for (const { origin } of batch) fail(origin, 'notLeader');
      for (const read of reads.values()) redirect(read.from, read.id, 'notLeader');
      proposed.clear();
      reads.clear();
      queued = [];
      onRole(false);
    },
    shardNowMs,
    disk: () => raft.disk(),
  };

  function compact(atMs: number): void {
    const { sizeBytes } = registers;
    step({ kind: 'compact', index: raft.status.commit, state: registers.snapshot(), sizeBytes }, atMs);
  }
}

/**
 * The messages of the shards' groups. A replica is named by the node at its end of the link and the number of its disk, so
 * nobody can speak for a replica of another node; heartbeats, which are most of what groups say, share what they can.
 */
import assert from 'node:assert';
import type { MessageInitShape } from '@bufbuild/protobuf';
import * as wire from '../../../../protos/gen/potluck/mesh/v1/coordination_pb.ts';
import { nodeOf, replicaId } from '../../../core/ids.ts';
import type { GroupEnvelope, GroupMessage, RaftTraffic } from '../../../core/messages.ts';
import type { Entry } from '../../../core/raft/types.ts';
import type { RegisterBatch } from '../../../core/registers/types.ts';
import * as limits from '../limits.ts';
import { bounded, BrokenRule, count, type Ends, generationIn, generationOf, shardIn, time } from './checks.ts';
import { commandIn, commandOf } from './registers.ts';
import { configurationIn, configurationOf, diskOf } from './replicas.ts';
import { snapshotPartsOf } from './snapshots.ts';

type BeatMessage = Extract<GroupMessage, { readonly kind: 'heartbeat' | 'heartbeatAck' }>;
type SnapshotMessage = Extract<GroupMessage, { readonly kind: 'snapshot' }>;
type OtherMessage = Exclude<GroupMessage, BeatMessage | SnapshotMessage>;

type RaftBody =
  | { case: 'raft'; value: MessageInitShape<typeof wire.RaftSchema> }
  | { case: 'heartbeats'; value: MessageInitShape<typeof wire.HeartbeatsSchema> }
  | { case: 'snapshotPart'; value: MessageInitShape<typeof wire.SnapshotPartSchema> };

/** One body, or as many as a snapshot has parts. */
export function raftOf(traffic: RaftTraffic, ends: Ends): RaftBody[] {
  if (traffic.kind === 'heartbeats') return [{ case: 'heartbeats', value: { runs: runsOf(traffic.beats, ends) } }];
  const { shard, generation, message } = traffic;
  if (isBeat(message)) return [{ case: 'heartbeats', value: { runs: runsOf([traffic], ends) } }];
  const { from: fromDisk, to: toDisk } = disksOf(traffic, ends);
  const of = { shard, generation: generationOf(generation), fromDisk, toDisk, term: BigInt(message.term) };
  if (message.kind !== 'snapshot') return [{ case: 'raft', value: { ...of, message: otherOf(message) } }];
  return snapshotPartsOf(message.snapshot).map((part) => ({ case: 'snapshotPart', value: { ...of, ...part } }));
}

export function raftIn(raft: wire.Raft, { self, far }: Ends): RaftTraffic {
  return {
    kind: 'raft',
    shard: shardIn(raft.shard),
    generation: generationIn(raft.generation),
    from: replicaId(far, count(raft.fromDisk)),
    to: replicaId(self, count(raft.toDisk)),
    message: otherIn(raft),
  };
}

function disksOf({ from, to }: GroupEnvelope, { self, far }: Ends): { from: bigint; to: bigint } {
  assert(nodeOf(from) === self && nodeOf(to) === far, 'a message of a group between other nodes than these');
  return { from: diskOf(from), to: diskOf(to) };
}

function isBeat(message: GroupMessage): message is BeatMessage {
  return message.kind === 'heartbeat' || message.kind === 'heartbeatAck';
}

/** Neighbours with the same disks and the same time share a run; the groups of one step nearly always do. */
function runsOf(beats: readonly GroupEnvelope[], ends: Ends): MessageInitShape<typeof wire.HeartbeatRunSchema>[] {
  const runs: { fromDisk: bigint; toDisk: bigint; sentAtMs: number; beats: ReturnType<typeof beatOf>[] }[] = [];
  for (const envelope of beats) {
    const { message } = envelope;
    assert(isBeat(message), 'heartbeats are sent together, and nothing else');
    const { from: fromDisk, to: toDisk } = disksOf(envelope, ends);
    const { sentAtMs } = message;
    let run = runs.at(-1);
    if (!run || run.fromDisk !== fromDisk || run.toDisk !== toDisk || run.sentAtMs !== sentAtMs) {
      run = { fromDisk, toDisk, sentAtMs, beats: [] };
      runs.push(run);
    }
    run.beats.push(beatOf(envelope, message));
  }
  return runs;
}

function beatOf({ shard, generation }: GroupEnvelope, message: BeatMessage) {
  const answer = message.kind === 'heartbeatAck';
  return {
    shard,
    generation: BigInt(generation.number),
    generationHash: generation.hash,
    forced: generation.forced,
    term: BigInt(message.term),
    commit: answer ? 0n : BigInt(message.commit),
    readRound: BigInt(message.readRound),
    sleep: answer ? message.asleep : message.sleep,
    answer,
  };
}

export function heartbeatsIn({ runs }: wire.Heartbeats, { self, far }: Ends): RaftTraffic {
  const beats: GroupEnvelope[] = [];
  for (const run of runs) {
    bounded(run.beats, limits.heartbeatsMax - beats.length);
    const from = replicaId(far, count(run.fromDisk));
    const to = replicaId(self, count(run.toDisk));
    const sentAtMs = time(run.sentAtMs);
    for (const beat of run.beats) {
      const generation = { number: count(beat.generation), hash: beat.generationHash, forced: beat.forced };
      beats.push({ shard: shardIn(beat.shard), generation, from, to, message: beatIn(beat, sentAtMs) });
    }
  }
  return { kind: 'heartbeats', beats };
}

function beatIn(beat: wire.Beat, sentAtMs: number): BeatMessage {
  const [term, readRound] = [count(beat.term), count(beat.readRound)];
  if (beat.answer) return { kind: 'heartbeatAck', term, sentAtMs, readRound, asleep: beat.sleep };
  return { kind: 'heartbeat', term, commit: count(beat.commit), sentAtMs, readRound, sleep: beat.sleep };
}

function otherOf(message: OtherMessage): NonNullable<MessageInitShape<typeof wire.RaftSchema>['message']> {
  switch (message.kind) {
    case 'vote': {
      const { pre, transfer, lastIndex, lastTerm } = message;
      return { case: 'vote', value: { pre, transfer, lastIndex: BigInt(lastIndex), lastTerm: BigInt(lastTerm) } };
    }
    case 'voted':
      return { case: 'voted', value: { pre: message.pre, granted: message.granted } };
    case 'append': {
      const { prevIndex, prevTerm, entries, commit } = message;
      const value = { prevIndex: BigInt(prevIndex), prevTerm: BigInt(prevTerm), commit: BigInt(commit) };
      return { case: 'append', value: { ...value, entries: entries.map(entryOf) } };
    }
    case 'appended': {
      const { accepted, index, refusedIndex } = message;
      return { case: 'appended', value: { accepted, index: BigInt(index), refusedIndex: BigInt(refusedIndex) } };
    }
    case 'timeoutNow':
      return { case: 'timeoutNow', value: {} };
    case 'removed':
      return { case: 'removed', value: { index: BigInt(message.index) } };
    default:
      return message satisfies never;
  }
}

function otherIn({ term: wireTerm, message }: wire.Raft): OtherMessage {
  const term = count(wireTerm);
  switch (message.case) {
    case 'vote': {
      const { pre, transfer, lastIndex, lastTerm } = message.value;
      return { kind: 'vote', term, pre, transfer, lastIndex: count(lastIndex), lastTerm: count(lastTerm) };
    }
    case 'voted':
      return { kind: 'voted', term, pre: message.value.pre, granted: message.value.granted };
    case 'append': {
      const { prevIndex, prevTerm, entries, commit } = message.value;
      return {
        kind: 'append',
        term,
        prevIndex: count(prevIndex),
        prevTerm: count(prevTerm),
        entries: bounded(entries, limits.entriesMax).map(entryIn),
        commit: count(commit),
      };
    }
    case 'appended': {
      const { accepted, index, refusedIndex } = message.value;
      return { kind: 'appended', term, accepted, index: count(index), refusedIndex: count(refusedIndex) };
    }
    case 'timeoutNow':
      return { kind: 'timeoutNow', term };
    case 'removed':
      return { kind: 'removed', term, index: count(message.value.index) };
    case undefined:
      throw new BrokenRule('a message of a group that is none');
    default:
      return message satisfies never;
  }
}

function entryOf({ index, term, data }: Entry<RegisterBatch>): MessageInitShape<typeof wire.EntrySchema> {
  const place = { index: BigInt(index), term: BigInt(term) };
  switch (data.kind) {
    case 'noop':
      return { ...place, data: { case: 'noop', value: {} } };
    case 'command': {
      const { shardMs, commands } = data.command;
      const value = { sizeBytes: BigInt(data.sizeBytes), shardMs, commands: commands.map(commandOf) };
      return { ...place, data: { case: 'batch', value } };
    }
    case 'configuration':
      return { ...place, data: { case: 'configuration', value: configurationOf(data.configuration) } };
    default:
      return data satisfies never;
  }
}

function entryIn({ index: wireIndex, term: wireTerm, data }: wire.Entry): Entry<RegisterBatch> {
  const [index, term] = [count(wireIndex), count(wireTerm)];
  switch (data.case) {
    case 'noop':
      return { index, term, data: { kind: 'noop' } };
    case 'batch': {
      const { sizeBytes, shardMs, commands } = data.value;
      const command = { shardMs: time(shardMs), commands: bounded(commands, limits.registersMax).map(commandIn) };
      return { index, term, data: { kind: 'command', command, sizeBytes: count(sizeBytes) } };
    }
    case 'configuration':
      return { index, term, data: { kind: 'configuration', configuration: configurationIn(data.value) } };
    case undefined:
      throw new BrokenRule('an entry that is none');
    default:
      return data satisfies never;
  }
}

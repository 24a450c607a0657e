/**
 * Many small groups on one pair of nodes would send as many heartbeats; here those of one step travel as one message.
 * The groups fire on the same grid of time (see `sendHeartbeats`), so a step of the node usually has them all.
 */
import { type NodeId, nodeOf } from '../ids.ts';
import { raftLimits } from '../limits.ts';
import type { GroupEnvelope, RaftTraffic } from '../messages.ts';

export interface Outgoing {
  readonly to: NodeId;
  readonly message: RaftTraffic;
  readonly after?: number;
}

export interface Heartbeats {
  /** Takes one message of a group; what is no heartbeat comes back to be sent at once. */
  add(envelope: GroupEnvelope, after?: number): Outgoing | undefined;
  /** Something was added since the last flush. */
  readonly waiting: boolean;
  /** The messages that carry what was added since the last call, nodes in the order of their first heartbeat. */
  flush(): readonly Outgoing[];
}

export function createHeartbeats(): Heartbeats {
  let byNode = new Map<NodeId, { beats: GroupEnvelope[]; after: number | undefined }[]>();
  return {
    add(envelope, after) {
      const to = nodeOf(envelope.to);
      const { kind } = envelope.message;
      if (kind !== 'heartbeat' && kind !== 'heartbeatAck') {
        return outgoing(to, { kind: 'raft', ...envelope }, after);
      }
      const batches = byNode.get(to) ?? [];
      byNode.set(to, batches);
      let batch = batches.at(-1);
      if (!batch || batch.beats.length >= raftLimits.heartbeatsPerMessage) {
        batch = { beats: [], after: undefined };
        batches.push(batch);
      }
      batch.beats.push(envelope);
      // Persists are durable in order, so waiting for the latest is waiting for all.
      if (after !== undefined) batch.after = Math.max(batch.after ?? after, after);
      return undefined;
    },
    get waiting() {
      return byNode.size > 0;
    },
    flush() {
      const messages: Outgoing[] = [];
      for (const [to, batches] of byNode) {
        for (const { beats, after } of batches) messages.push(outgoing(to, { kind: 'heartbeats', beats }, after));
      }
      byNode = new Map();
      return messages;
    },
  };
}

function outgoing(to: NodeId, message: RaftTraffic, after: number | undefined): Outgoing {
  return after === undefined ? { to, message } : { to, message, after };
}

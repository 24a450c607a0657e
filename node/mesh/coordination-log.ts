/** What an operator should know of the shards' histories, in few lines however many shards there are; and what is counted. */
import type { NodeId } from '../../mesh/core/ids.ts';
import type { PeerNote } from '../../mesh/core/peer.ts';
import type { Coordination } from '../../mesh/core/shards/coordination.ts';
import * as limits from './limits.ts';

export interface CommitCounts {
  /** Results that this node, leading their shard, stored. */
  readonly accepted: number;
  /** Results that it refused, because their executor had lost its claim. */
  readonly stale: number;
}

export interface CoordinationLog extends Disposable {
  onNote(note: PeerNote, coordination: Coordination): void;
  commits(): CommitCounts;
}

export function createCoordinationLog(
  self: NodeId,
  onLog: (level: 'info' | 'warning', message: string) => void,
): CoordinationLog {
  const formed = new Set<number>();
  const merged = { shards: new Set<number>(), offered: 0, accepted: 0 };
  let accepted = 0;
  let stale = 0;
  let timer: NodeJS.Timeout | undefined;

  function gather(): void {
    timer ??= setTimeout(tell, limits.coordinationLogMs).unref();
  }

  function tell(): void {
    timer = undefined;
    if (formed.size > 0) {
      onLog(
        'warning',
        `formed ${shardsText(formed.size)} anew with the members that are left, since most of those that kept them are gone`,
      );
      formed.clear();
    }
    if (merged.shards.size > 0) {
      const { shards, offered } = merged;
      onLog(
        'info',
        `${shardsText(shards.size)} had gone two ways: of ${offered} results known on this side, ${merged.accepted} were taken into the other`,
      );
      shards.clear();
      merged.offered = 0;
      merged.accepted = 0;
    }
  }

  return {
    onNote(note, coordination) {
      switch (note.kind) {
        case 'generationForced':
          formed.add(note.shard);
          return gather();
        case 'merged':
          merged.shards.add(note.shard);
          merged.offered += note.offered;
          merged.accepted += note.accepted;
          return gather();
        case 'staleRefused':
          stale += 1;
          return;
        case 'registerWritten':
          if (note.command !== 'commit' || coordination.leaderOf(note.shard) !== self) return;
          if (note.outcome === 'accepted') accepted += 1;
          else if (note.outcome === 'stale') stale += 1;
          return;
        default:
      }
    },
    commits: () => ({ accepted, stale }),
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}

function shardsText(count: number): string {
  return count === 1 ? 'one shard' : `${count} shards`;
}

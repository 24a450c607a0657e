/** One frame of `potluck top`: what goes on at this moment. */
import type { PeerLine } from '../mesh/status.ts';
import type { Tally } from '../peers/tally.ts';
import type { Builds } from './builds.ts';
import type { OffloadCounting, OffloadTally, RunningGuest } from './offload-tally.ts';
import type { BuildSummary, MovedBytes, RunningAction } from './records.ts';
import { nothingMoved } from './summary.ts';

/** The object of `/api/top`. Fields are only ever added. */
export interface TopFrame {
  /** ISO 8601. */
  readonly time: string;
  readonly name: string;
  /** `null` while it is in no mesh. */
  readonly peerId: string | null;
  readonly state: 'serving' | 'draining';
  readonly slots: number;
  /** Of this node's clients, wherever they run. */
  readonly executing: number;
  /** Of those, on other members. */
  readonly executingElsewhere: number;
  readonly queued: number;
  /** Live members first. */
  readonly peers: readonly PeerLine[];
  /** Of this node's clients. */
  readonly actions: readonly RunningAction[];
  /** Actions of members that run here. */
  readonly guests: readonly RunningGuest[];
  readonly builds: readonly BuildSummary[];
  readonly counts: OffloadTally;
  /** Since the node started, by how far away members are; two frames tell a rate. */
  readonly moved: MovedBytes;
}

export interface TopSources extends Pick<TopFrame, 'name' | 'peerId' | 'state' | 'peers'> {
  readonly builds: Pick<Builds, 'running' | 'active'>;
  readonly counts: OffloadCounting;
  readonly execution: Pick<TopFrame, 'slots' | 'executing' | 'executingElsewhere' | 'queued'> | null;
  readonly sharing: Pick<Tally, 'links'> | null;
  readonly nowMs: number;
}

export function topFrame({ builds, counts, execution, sharing, nowMs, peers, ...node }: TopSources): TopFrame {
  return {
    time: new Date(nowMs).toISOString(),
    ...node,
    slots: execution?.slots ?? 0,
    executing: execution?.executing ?? 0,
    executingElsewhere: execution?.executingElsewhere ?? 0,
    queued: execution?.queued ?? 0,
    peers: [...peers].sort((a, b) => Number(b.status === 'alive') - Number(a.status === 'alive')),
    actions: builds.running(),
    guests: counts.guests(nowMs),
    builds: builds.active(),
    counts: counts.now(),
    moved: sharing?.links ?? nothingMoved,
  };
}

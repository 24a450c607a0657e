/** What a node says of itself, to `potluck status`, pages and programs. */
import type { LocalSandbox } from '../sandbox/create-sandbox.ts';
import type { OffloadTally } from './builds/offload-tally.ts';
import type { NodeConfig } from './config/config.ts';
import type { Executor } from './execution/executor.ts';
import type { PlatformOffer } from './execution/platform.ts';
import type { MeshStatus } from './mesh/status.ts';
import type { LoggedEvent } from './metrics/recent-events.ts';
import type { OwnerStatus } from './owner/requests.ts';
import type { Tally } from './peers/tally.ts';
import type { StoreStats } from './storage/open-store.ts';

/** The object of `/api/status`. Fields are only ever added. */
export interface NodeStatus {
  readonly version: string;
  readonly pid: number;
  readonly state: 'serving' | 'draining';
  readonly uptimeSeconds: number;
  readonly grpc: readonly string[];
  readonly http: string | null;
  readonly dataDir: string;
  readonly durability: NodeConfig['durability'];
  /** `null`: any. */
  readonly instances: readonly string[] | null;
  readonly store: StoreStats;
  /** `null`: this node is a cache only. */
  readonly execution: ExecutionStatus | null;
  /** `null`: this node takes part in no mesh. */
  readonly mesh: MeshStatus | null;
  /** What came from members of the mesh and went to them. */
  readonly sharing: Tally | null;
  /** What is lent to members' actions; `null`: this node takes part in no mesh. */
  readonly owner: OwnerStatus | null;
  /** How actions were answered, and what was done for others. */
  readonly offload: OffloadTally;
  /** The newest warnings and errors, oldest first. */
  readonly recentProblems: readonly LoggedEvent[];
}

export interface ExecutionStatus {
  readonly slots: number;
  /** Of this node's clients, wherever they run. */
  readonly executing: number;
  /** Of those, on other members. */
  readonly executingElsewhere: number;
  readonly queued: number;
  readonly isolation: 'bubblewrap' | 'none';
  readonly isolationReason: string;
  readonly limitsInForce: readonly string[];
  /** What holds for actions of other members; empty where none can run. */
  readonly guestLimitsInForce: readonly string[];
  readonly platform: readonly string[];
  readonly defaultTimeoutSeconds: number;
  readonly maxTimeoutSeconds: number;
}

export function executionStatus(
  config: NodeConfig,
  sandbox: LocalSandbox,
  executor: Executor,
  platform: PlatformOffer,
  executingElsewhere: number,
): ExecutionStatus {
  const load = [...executor.load().values()];
  return {
    slots: config.slots,
    executing: load.reduce((sum, one) => sum + one.executing, 0),
    executingElsewhere,
    queued: load.reduce((sum, one) => sum + one.queued, 0),
    ...sandbox.describe(),
    platform: platform.properties.map(({ name, value }) => `${name}=${value}`),
    defaultTimeoutSeconds: config.defaultActionTimeoutMs / 1000,
    maxTimeoutSeconds: config.maxActionTimeoutMs / 1000,
  };
}

/**
 * Running actions through the mesh. It exists as long as the node, and is open while the mesh is awake: runs are offered to
 * it then, and it performs what the mesh's machine orders. While the node is alone nothing of the mesh is loaded.
 */
import type { InputTrees } from '../../sandbox/input-tree.ts';
import { StatusError } from '../../protos/status.ts';
import type { RecordedEvent } from '../builds/events.ts';
import type { RunOffering } from '../execution/offering.ts';
import type { PlatformOffer } from '../execution/platform.ts';
import type { Preparer } from '../execution/prepare.ts';
import type { RunPorts } from '../execution/run-action.ts';
import type { OpenOffloading } from '../mesh/offloading.ts';
import type { OwnerWatch } from '../owner/owner-watch.ts';
import type { PeerTier } from '../peers/peer-tier.ts';
import type { Trust } from '../peers/vouching.ts';
import type { LocalBlobStore } from '../storage/blob-store.ts';
import { failedReport } from './answers.ts';
import type { OpenOffload } from './open-offload.ts';

export interface OffloadOptions {
  /** What actions run in. A node without a sandbox offers its clients no execution, and takes no guests. */
  readonly ports: Omit<RunPorts, 'actions'>;
  readonly preparer: Preparer;
  readonly trees: InputTrees;
  readonly platform: PlatformOffer;
  /** This disk alone. */
  readonly local: LocalBlobStore;
  readonly peers: Pick<PeerTier, 'bring' | 'keep'>;
  readonly trust: Trust;
  /** Whether members may fetch from this node at all. */
  readonly servesBlobs: boolean;
  readonly owner: Pick<OwnerWatch, 'attach'>;
  readonly record: (event: RecordedEvent) => void;
  readonly onLog: (level: 'info' | 'warning', message: string) => void;
}

export interface Offload extends RunOffering {
  /** For the mesh, each time it wakes. */
  readonly open: OpenOffloading;
  current(): OpenOffload | undefined;
}

export function createOffload(options: OffloadOptions): Offload {
  const listeners: (() => void)[] = [];
  let opened: OpenOffload | undefined;

  function change(next: OpenOffload | undefined): void {
    opened = next;
    for (const listener of listeners) listener();
  }

  return {
    isAwake: () => opened !== undefined,
    watch: (listener) => void listeners.push(listener),
    async run(offered) {
      return opened
        ? await opened.run(offered)
        : failedReport(new StatusError('UNAVAILABLE', 'this node left its mesh'), true);
    },
    current: () => opened,
    async open(ports) {
      const { openOffload } = await import('./open-offload.ts');
      const made = openOffload(options, ports);
      change(made);
      return {
        ...made,
        async close() {
          // First, so that what is given back is run here and not offered again.
          if (opened === made) change(undefined);
          await made.close();
        },
      };
    },
  };
}

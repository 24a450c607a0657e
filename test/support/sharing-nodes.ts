/** Stores of several members of one mesh, connected by real sockets in this process. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PeerAddress } from '../../mesh/net/data/dial.ts';
import type { ServedReport } from '../../mesh/net/data/server.ts';
import { createPlanning } from './planning.ts';
import { type BlobSharing, shareBlobs } from '../../node/peers/sharing.ts';
import type { Store } from '../../node/storage/open-store.ts';
import { openStore } from '../../node/storage/open-store.ts';
import { digestKey } from '../../protos/digest.ts';
import { createTestMesh, type TestMember } from './test-mesh.ts';

export interface SharingNode extends AsyncDisposable {
  readonly member: TestMember;
  readonly store: Store;
  readonly sharing: BlobSharing;
  /** Keys of blobs that came from others, with who sent them. */
  readonly received: (readonly [peer: string, key: string])[];
  readonly served: ServedReport[];
  /** The process is gone: connections break, and the others learn of it. */
  die(): Promise<void>;
}

export function createSharingMesh() {
  const mesh = createTestMesh('sharing');
  const addresses = new Map<string, PeerAddress>();
  const nodes = new Map<string, { setMember(peer: string, isAlive: boolean): void }>();

  return {
    mesh,
    /** Tells everybody of a member that this file did not make. */
    introduce(peer: string, address: PeerAddress): void {
      addresses.set(peer, address);
      for (const node of nodes.values()) node.setMember(peer, true);
    },
    async open(sizeLimitBytes = 1024 ** 3): Promise<SharingNode> {
      const member = mesh.join();
      const dataDir = await mkdtemp(join(tmpdir(), 'potluck-sharing-'));
      const store = await openStore({ dataDir, sizeLimitBytes, durability: 'fast' });
      const received: SharingNode['received'] = [];
      const served: ServedReport[] = [];
      const planning = createPlanning(member.peer, (effect) => {
        if (effect.kind !== 'serve' && effect.kind !== 'refuse') sharing.perform(effect);
      });
      const sharing = await shareBlobs({
        local: store.blobs,
        credentials: member.credentials,
        listen: { host: '127.0.0.1', port: 0 },
        seedBytesPerWindow: 100_000_000,
        addressesOf: (peer) => [addresses.get(peer)].filter((address) => address !== undefined),
        report: planning.deliver,
        onReceived: (peer, digest) => received.push([peer, digestKey(digest)]),
        onServed: (report) => served.push(report),
      });
      addresses.set(member.peer, { host: '127.0.0.1', port: sharing.server.port });
      for (const [peer, other] of nodes) {
        other.setMember(member.peer, true);
        planning.setMember(peer, true, 'subnet');
      }
      nodes.set(member.peer, { setMember: (peer, isAlive) => planning.setMember(peer, isAlive, 'subnet') });
      let isDead = false;
      const die = async (): Promise<void> => {
        if (isDead) return;
        isDead = true;
        nodes.delete(member.peer);
        await sharing.close();
        planning.close();
        for (const other of nodes.values()) other.setMember(member.peer, false);
      };
      return {
        member,
        store,
        sharing,
        received,
        served,
        die,
        async [Symbol.asyncDispose]() {
          await die();
          await store.close();
          await rm(dataDir, { recursive: true });
        },
      };
    },
  };
}

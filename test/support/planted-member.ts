/**
 * A member planted among real ones, in this process: the production mesh of a node, whose actions the test runs or does
 * not. What it says and hears can be cut out, so that it believes what is not so any more.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NodeId } from '../../mesh/core/ids.ts';
import type { PeerMessage } from '../../mesh/core/peer.ts';
import { join as joinMesh } from '../../mesh/net/admission/joining.ts';
import { openIdentity } from '../../mesh/net/identity/identity.ts';
import { parseToken } from '../../mesh/net/identity/invitation.ts';
import { startActiveMesh } from '../../node/mesh/active-mesh.ts';
import type { OffloadingPorts, OffloadWork } from '../../node/mesh/offloading.ts';
import type { Machine } from './machine.ts';

type Run = Extract<OffloadWork, { readonly kind: 'run' }>;

export interface PlantedMember extends AsyncDisposable {
  readonly peerId: NodeId;
  /** What it was ordered to run so far. */
  readonly runs: readonly Run[];
  /** What reached it so far, of what it listens to. */
  readonly heard: readonly PeerMessage[];
  send(to: NodeId, message: PeerMessage): void;
}

export interface PlantedOptions {
  readonly slots: number;
  readonly capabilities: readonly string[];
  /** Whether a message of its machine goes out; default: every one. */
  readonly says?: (message: PeerMessage) => boolean;
  /** Whether a message is kept in `heard`, and its machine never gets it; default: none. */
  readonly intercepts?: (message: PeerMessage) => boolean;
}

const roomBytes = 10_000_000_000;

/** Joins the mesh of a machine whose node runs on loopback, and takes as many actions as it has slots. */
export async function plantMember(issuer: Machine, options: PlantedOptions): Promise<PlantedMember> {
  const { slots, capabilities, says = () => true, intercepts = () => false } = options;
  await using parts = new AsyncDisposableStack();
  const dataDir = await mkdtemp(join(tmpdir(), 'potluck-planted-'));
  parts.defer(() => rm(dataDir, { recursive: true, force: true }));
  const { token } = JSON.parse(await issuer.potluck('invite', '--json')) as { token: string };
  const { address } = await joinMesh(parseToken(token), { dataDir, name: 'planted' });
  const identity = openIdentity({ dataDir });
  if (!identity) throw new Error('no identity');

  const runs: Run[] = [];
  const heard: PeerMessage[] = [];
  let ports: OffloadingPorts | undefined;
  const mesh = await startActiveMesh({
    identity,
    dataDir,
    config: {
      listen: '127.0.0.1:0',
      dataListen: '127.0.0.1:0',
      bootstrap: [address],
      site: '',
      discovery: false,
      trust: 'members',
      uploadBytesPerSecond: undefined,
      replicas: 1,
    },
    // Claims need room for outputs.
    openTier: async () => ({
      dataAddress: '127.0.0.1:9',
      capacityBytes: roomBytes,
      held: [],
      perform() {},
      close: async () => {},
    }),
    async openOffloading(given) {
      ports = given;
      return {
        holds: () => [],
        perform(work) {
          if (work.kind === 'fetchInputs') given.deliver({ kind: 'inputsFetched', run: work.run, ok: true });
          else if (work.kind === 'run') runs.push(work);
        },
        close: async () => {},
      };
    },
    onLog: () => {},
  });
  parts.defer(() => mesh.close('left'));
  const { network, driver } = mesh;
  const send = network.send.bind(network);
  const deliver = driver.deliver.bind(driver);
  Object.assign(network, {
    send(to: NodeId, message: PeerMessage) {
      if (says(message)) send(to, message);
    },
  });
  Object.assign(driver, {
    deliver(event: Parameters<typeof deliver>[0]) {
      if (event.kind === 'message' && intercepts(event.message)) heard.push(event.message);
      else deliver(event);
    },
  });
  ports?.deliver({ kind: 'slots', slots, guests: true, guestSlots: slots, capabilities });
  ports?.deliver({ kind: 'owner', present: false });
  const open = parts.move();
  return {
    peerId: identity.peerId,
    runs,
    heard,
    send,
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}

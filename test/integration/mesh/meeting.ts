/** Members on loopback with real keys, sockets and libp2p, each in a directory of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { join } from '../../../mesh/net/admission/joining.ts';
import { type Identity, openIdentity } from '../../../mesh/net/identity/identity.ts';
import { type Token } from '../../../mesh/net/identity/invitation.ts';
import { foundMesh, invite } from '../../../mesh/net/identity/issuer.ts';
import { createRoster, type Roster } from '../../../mesh/net/identity/roster.ts';
import { createNetwork, type Network } from '../../../mesh/net/network.ts';
import type { PeerMessage } from '../../../mesh/core/peer.ts';

export interface Meeting extends AsyncDisposable {
  /** A node alone in a mesh of its own, not listening yet. */
  newDir(): string;
  found(name?: string): Promise<Attendee>;
  /** Starts, or starts again, the node of a directory. */
  start(dataDir: string, options?: StartOptions): Promise<Attendee>;
  /** A new node that joins through `host`. */
  joinThrough(host: Attendee, name?: string): Promise<Attendee>;
}

export interface StartOptions {
  readonly bootstrap?: readonly string[];
  /** Looks for others by multicast on this port, which no other test uses. */
  readonly mdnsPort?: number;
  /** Of the node's wall clock, ahead of this machine's. */
  readonly offsetMs?: number;
}

export interface Attendee {
  readonly dataDir: string;
  readonly identity: Identity;
  readonly roster: Roster;
  readonly network: Network;
  readonly peer: string;
  readonly address: string;
  readonly messages: { readonly from: string; readonly message: PeerMessage }[];
  readonly log: string[];
  readonly clock: { offsetMs: number };
  token(options?: { readonly ttlMs?: number }): Token;
  stop(): Promise<void>;
}

export function createMeeting(): Meeting {
  const dirs: string[] = [];
  const running = new Set<Attendee>();

  async function start(
    dataDir: string,
    { bootstrap = [], mdnsPort, offsetMs = 0 }: StartOptions = {},
  ): Promise<Attendee> {
    const clock = { offsetMs };
    const identity = openIdentity({ dataDir, nowMs: () => Date.now() + clock.offsetMs });
    if (!identity) throw new Error(`${dataDir} holds no identity`);
    const messages: Attendee['messages'][number][] = [];
    const log: string[] = [];
    const roster = createRoster(identity);
    const network = await createNetwork({
      identity,
      roster,
      dataDir,
      listen: { host: '127.0.0.1', port: 0 },
      bootstrap,
      mdns: mdnsPort !== undefined,
      ...(mdnsPort !== undefined && { mdnsPort }),
      nowMs: () => performance.now(),
      onMessage: (from, message) => void messages.push({ from, message }),
      onConnected: () => {},
      onDisconnected: () => {},
      onRoundTrip: () => {},
      onEnded: () => {},
      onLog: (level, text) => void log.push(`${level}: ${text}`),
    });
    const address = network.addresses()[0] ?? '';
    const attendee: Attendee = {
      dataDir,
      identity,
      roster,
      network,
      peer: identity.peerId,
      address,
      messages,
      log,
      clock,
      token({ ttlMs = 60_000 } = {}) {
        const { secret, notAfterMs } = invite(identity, { ttlMs, roles: ['executor'] });
        return { secret, notAfterMs, addresses: [address], meshId: identity.mesh.id, issuer: identity.peerId };
      },
      async stop() {
        if (running.delete(attendee)) await network.close();
      },
    };
    running.add(attendee);
    return attendee;
  }

  function newDir(): string {
    const dir = mkdtempSync(joinPath(tmpdir(), 'potluck-meeting-'));
    dirs.push(dir);
    return dir;
  }

  return {
    newDir,
    start,
    found(name = 'founder') {
      const dataDir = newDir();
      foundMesh({ dataDir, name, nowMs: Date.now() });
      return start(dataDir);
    },
    async joinThrough(host, name = 'guest') {
      const dataDir = newDir();
      await join(host.token(), { dataDir, name });
      return start(dataDir, { bootstrap: [host.address] });
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([...running].map((one) => one.stop()));
      for (const dir of dirs) rmSync(dir, { recursive: true, force: true });
    },
  };
}

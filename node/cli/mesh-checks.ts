/** What `potluck doctor` looks at of the mesh: ports, multicast, the clock against the membership. */
import { createSocket } from 'node:dgram';
import { existsSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { skewMs } from '../../mesh/net/identity/limits.ts';
import type { MeshConfig, NodeConfig } from '../config/config.ts';
import type { MeshStatus } from '../mesh/status.ts';
import { parseListenAddress } from '../reapi/listen-address.ts';
import { type Finding, tryListening } from './checks.ts';
import { count, formatDuration } from './format.ts';

const multicastGroup = '224.0.0.251';
const multicastMs = 1_000;

/** Findings about a mesh that is off, asleep, stopped or running. */
export async function checkMesh(config: NodeConfig): Promise<Finding[]> {
  const { mesh, dataDir } = config;
  if (!mesh) return [{ check: 'mesh', verdict: 'ok', found: 'turned off' }];
  const { askStatus } = await import('./node-status.ts');
  const running = (await askStatus(config).catch(() => undefined))?.mesh ?? undefined;
  return [
    await checkIdentity(dataDir),
    ...(await checkPorts(mesh, running)),
    ...(running?.state === 'connected' ? [checkMembers(running)] : []),
    ...(mesh.discovery ? [await checkMulticast()] : []),
  ];
}

async function checkIdentity(dataDir: string): Promise<Finding> {
  const check = 'mesh identity';
  if (!existsSync(join(dataDir, 'mesh', 'membership'))) {
    return { check, verdict: 'ok', found: 'in no mesh yet; "potluck invite" makes one, "potluck join" enters one' };
  }
  const { openIdentity } = await import('../../mesh/net/identity/identity.ts');
  const identity = openIdentity({ dataDir });
  if (!identity) return { check, verdict: 'ok', found: 'in no mesh yet' };
  const { notBeforeMs, notAfterMs } = identity.membership();
  const nowMs = Date.now();
  const found = `member of ${identity.mesh.id} as ${identity.peerId}`;
  if (identity.isRevoked(identity.peerId)) {
    const fix = 'Leave ("potluck leave"), move mesh/node.key in the data directory away, and ask for a new invitation.';
    return { check, verdict: 'problem', found: `${found}, but revoked`, fix };
  }
  if (nowMs + skewMs < notBeforeMs) {
    const fix = 'Set the clock of this machine.';
    return { check, verdict: 'problem', found: `${found}, from a time that is still to come by this clock`, fix };
  }
  if (nowMs - skewMs > notAfterMs) {
    const fix = 'If the clock of this machine is right, leave ("potluck leave") and ask for a new invitation.';
    return { check, verdict: 'problem', found: `${found}, but it ended ${new Date(notAfterMs).toISOString()}`, fix };
  }
  return { check, verdict: 'ok', found: `${found}, for another ${formatDuration(notAfterMs - nowMs)}` };
}

async function checkPorts(mesh: MeshConfig, running: MeshStatus | undefined): Promise<Finding[]> {
  if (running?.state === 'connected') {
    const found = `members reach this node at ${running.addresses.join(', ') || 'no address'}`;
    return [{ check: 'mesh address', verdict: running.addresses.length > 0 ? 'ok' : 'problem', found }];
  }
  const findings: Finding[] = [];
  for (const text of new Set([mesh.listen, mesh.dataListen])) {
    const check = 'mesh address';
    const { host, port, local } = parseListenAddress(text);
    const code = port === 0 ? undefined : await tryListening(host, port);
    if (code !== undefined) {
      const fix = 'Choose another with --mesh-listen and --mesh-data-listen.';
      findings.push({ check, verdict: 'problem', found: `${text} cannot be listened on (${code})`, fix });
    } else if (local) {
      const fix = 'Give --mesh-listen an address of a network, such as 0.0.0.0:8982.';
      findings.push({ check, verdict: 'warning', found: `${text} is reached from this machine only`, fix });
    } else {
      const found = `${text} is free; a firewall must let TCP to it through`;
      findings.push({ check, verdict: 'ok', found });
    }
  }
  return findings;
}

function checkMembers({ members, connections, discovered }: MeshStatus): Finding {
  const check = 'mesh members';
  const found = `${count(members.alive, 'other member')} alive, ${count(connections, 'connection')}, ${discovered} heard of by multicast`;
  if (connections > 0 || members.alive + members.suspect + members.dead === 0) return { check, verdict: 'ok', found };
  const fix =
    'Is a member running? Let TCP to its --mesh-listen through the firewalls, or name one with --mesh-peer HOST:PORT.';
  return { check, verdict: 'warning', found: `${found}: cut off from the mesh`, fix };
}

/** Sends one datagram to the group of multicast DNS and listens whether it comes back. */
async function checkMulticast(): Promise<Finding> {
  const check = 'multicast';
  const networks = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
  if (!networks.some(({ internal }) => !internal)) {
    return { check, verdict: 'warning', found: 'this machine has no network', fix: 'Name a member with --mesh-peer.' };
  }
  const socket = createSocket({ type: 'udp4', reuseAddr: true });
  const word = Buffer.from(`potluck-doctor-${process.pid}`);
  try {
    const heard = new Promise<boolean>((resolve, reject) => {
      socket.once('error', reject);
      socket.on('message', (message) => void (message.equals(word) && resolve(true)));
      setTimeout(() => resolve(false), multicastMs);
    });
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      // A port of our own: what listens on that of multicast DNS need not understand this.
      socket.bind(0, () => {
        socket.addMembership(multicastGroup);
        socket.setMulticastTTL(1);
        socket.send(word, socket.address().port, multicastGroup, (error) => (error ? reject(error) : resolve()));
      });
    });
    if (await heard) return { check, verdict: 'ok', found: 'works on this machine; members nearby find each other' };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return { check, verdict: 'warning', found: `refused (${code ?? message})`, fix: 'Name a member with --mesh-peer.' };
  } finally {
    socket.close();
  }
  const fix = 'A firewall may drop UDP to 224.0.0.251; members are found with --mesh-peer HOST:PORT as well.';
  return { check, verdict: 'warning', found: 'does not come back', fix };
}

/** Does what the owner asks of the mesh, in a running node or, when none runs, on its data directory. */
import { rmSync } from 'node:fs';
import { hostname } from 'node:os';
import { join as joinPath } from 'node:path';
import type { NodeId } from '../../mesh/core/ids.ts';
import { byReach, parseHostPort, reachable } from '../../mesh/net/host/addresses.ts';
import { openAddressBook } from '../../mesh/net/host/address-book.ts';
import { type Identity, openIdentity } from '../../mesh/net/identity/identity.ts';
import { longForm, parseToken, shortForm } from '../../mesh/net/identity/invitation.ts';
import { addIssuer, foundMesh, invite, removeIssuer, revoke } from '../../mesh/net/identity/issuer.ts';
import { addressesMax } from '../../mesh/net/identity/limits.ts';
import { identityPaths, removeState } from '../../mesh/net/identity/state.ts';
import { publicKeyOf } from '../../mesh/net/identity/peer-id.ts';
import { StatusError } from '../../protos/status.ts';
import type { MeshConfig } from '../config/config.ts';
import { handleOffline } from '../owner/requests.ts';
import type { OwnerWatch } from '../owner/owner-watch.ts';
import type { SeedReport, SeedRequest } from '../peers/seed-jobs.ts';
import type { ActiveMesh } from './active-mesh.ts';
import type { AdminRequest, Answers } from './admin-requests.ts';
import { peersOf } from './status.ts';

export interface AdminContext {
  readonly dataDir: string;
  readonly config: MeshConfig;
  readonly active: () => ActiveMesh | undefined;
  /** Only a running node can wake up and go to sleep. */
  readonly wake?: () => Promise<ActiveMesh>;
  readonly sleep?: (presence: 'suspended' | 'left') => Promise<void>;
  readonly seed?: (request: SeedRequest) => Promise<SeedReport>;
  readonly owner?: Pick<OwnerWatch, 'handle'>;
}

/** Throws StatusError with what a person should do. */
export async function administer(request: AdminRequest, context: AdminContext): Promise<Answers[AdminRequest['do']]> {
  switch (request.do) {
    case 'invite':
      return onInvite(request, context);
    case 'join':
      return onJoin(request, context);
    case 'peers':
      return onPeers(context);
    case 'issuer add': {
      const { identity, active } = await open(context);
      const peerId = resolvePeer(request.peer, context);
      addIssuer(identity, peerId);
      active?.network.deliverDelegations();
      return { peerId };
    }
    case 'issuer remove': {
      const { identity } = await open(context);
      const peerId = resolvePeer(request.peer, context);
      removeIssuer(identity, peerId, membersKnown(context, peerId));
      return { peerId };
    }
    case 'revoke':
      return onRevoke(request.peer, context);
    case 'leave':
      return onLeave(request.force, context);
    case 'drain': {
      const active = context.active();
      if (!active) throw new StatusError('FAILED_PRECONDITION', 'draining needs a running node that is in a mesh');
      const peerId = resolvePeer(request.peer, context);
      if (peerId === active.identity.peerId) {
        throw new StatusError('INVALID_ARGUMENT', 'that is this node; "potluck pause" keeps guests away from it');
      }
      active.driver.deliver({ kind: 'drain', node: peerId, drained: request.drained });
      return { peerId, drained: request.drained };
    }
    case 'seed':
      if (context.seed) return context.seed(request.request);
      throw new StatusError('FAILED_PRECONDITION', 'seeding needs a running node: potluck up');
    case 'pause':
    case 'resume':
    case 'lend':
    case 'owner':
      if (context.owner) return context.owner.handle(request);
      return handleOffline(request, context.dataDir, context.config.lend ?? { when: 'idle', slots: undefined });
    default:
      throw new StatusError('INVALID_ARGUMENT', `unknown request ${JSON.stringify(request satisfies never)}`);
  }
}

async function onInvite(
  { ttlMs, roles }: AdminRequest & { do: 'invite' },
  context: AdminContext,
): Promise<Answers['invite']> {
  const { dataDir } = context;
  // A wrong role should not wake the node; an invitation that is in force does, at the next start too.
  if (!context.active() && !openIdentity({ dataDir })) foundMesh({ dataDir, name: hostname(), nowMs: Date.now() });
  const { identity } = await open(context);
  const invitation = invite(identity, { ttlMs, roles });
  const active = await context.wake?.();
  const addresses = byReach(active ? active.network.addresses() : configuredAddresses(context.config)).slice(
    0,
    addressesMax,
  );
  const [first] = addresses;
  if (first === undefined)
    throw new StatusError('FAILED_PRECONDITION', 'this machine has no address that others could reach');
  const { secret, notAfterMs } = invitation;
  const token = { secret, notAfterMs, addresses, meshId: identity.mesh.id, issuer: identity.peerId };
  return { token: longForm(token), short: shortForm(secret, first), notAfterMs, addresses };
}

async function onJoin({ token, name }: AdminRequest & { do: 'join' }, context: AdminContext): Promise<Answers['join']> {
  const { dataDir } = context;
  const parsed = parseToken(token);
  const { join } = await import('../../mesh/net/admission/joining.ts');
  const joined = await join(parsed, { dataDir, name });
  const book = openAddressBook(dataDir);
  for (const { peerId, addresses } of joined.contacts) {
    if (publicKeyOf(peerId)) book.remember(peerId, addresses, 0);
  }
  book.remember(joined.issuer, [joined.address], Date.now());
  book.save();
  await context.sleep?.('left');
  await context.wake?.();
  return { meshId: joined.meshId, issuer: joined.issuer, roles: joined.member.roles };
}

function onPeers(context: AdminContext): Answers['peers'] {
  const active = context.active();
  if (active) return { meshId: active.identity.mesh.id, peerId: active.identity.peerId, peers: peersOf(active) };
  const identity = openIdentity({ dataDir: context.dataDir });
  const remembered = [...openAddressBook(context.dataDir).peers()];
  return {
    meshId: identity?.mesh.id ?? null,
    peerId: identity?.peerId ?? null,
    peers: remembered.map(([peerId, { addresses, seenMs }]) => ({
      peerId,
      name: '',
      status: 'unknown',
      site: '',
      roles: [],
      connected: false,
      roundTripMs: null,
      guestSlots: 0,
      drained: null,
      addresses,
      lastSeen: seenMs > 0 ? new Date(seenMs).toISOString() : null,
    })),
  };
}

async function onRevoke(peer: string, context: AdminContext): Promise<Answers['revoke']> {
  const { identity } = await open(context);
  const peerId = resolvePeer(peer, context);
  if (identity.administrator) {
    // A member that is an issuer could go on admitting others.
    try {
      removeIssuer(identity, peerId, membersKnown(context, peerId));
    } catch (error) {
      if (!(error instanceof StatusError && error.code === 'NOT_FOUND')) throw error;
    }
  } else if (hasAdmitted(peerId, context)) {
    throw new StatusError(
      'FAILED_PRECONDITION',
      `${peerId} is an issuer: revoked here, whom it admitted would be out as well. Revoke it on the administrator's node, which keeps them`,
    );
  }
  revoke(identity, peerId);
  return { peerId };
}

async function onLeave(force: boolean, context: AdminContext): Promise<Answers['leave']> {
  const { identity, active } = await open(context);
  const others = active
    ? active.members().some(({ status }) => status !== 'left')
    : membersKnown(context, '').length > 0;
  if (identity.administrator && others && !force) {
    throw new StatusError(
      'FAILED_PRECONDITION',
      "this node has the administrator's key: without it no issuer can be made or removed any more. --force leaves all the same; the key stays in the data directory",
    );
  }
  await context.sleep?.('left');
  const { dir } = identityPaths(context.dataDir);
  removeState(context.dataDir);
  for (const name of ['peers.json', 'peer.log']) rmSync(joinPath(dir, name), { force: true });
  return { meshId: identity.mesh.id };
}

/** The identity, of the running mesh where there is one. Throws FAILED_PRECONDITION for a node that is in no mesh. */
async function open(context: AdminContext): Promise<{ identity: Identity; active?: ActiveMesh }> {
  const active = context.active();
  if (active) return { identity: active.identity, active };
  const identity = openIdentity({ dataDir: context.dataDir });
  if (identity) return { identity };
  throw new StatusError(
    'FAILED_PRECONDITION',
    'this node is in no mesh yet; "potluck invite" here and "potluck join" there make one',
  );
}

/** A peer id, the beginning of one that is known, or the name of a member. */
function resolvePeer(text: string, context: AdminContext): NodeId {
  if (publicKeyOf(text)) return text;
  const { peers } = onPeers(context);
  const matching = peers.filter(({ peerId, name }) => name === text || (text.length >= 6 && peerId.includes(text)));
  if (matching.length === 1 && matching[0]) return matching[0].peerId;
  const problem =
    matching.length > 1 ? `is more than one: ${matching.map(({ peerId }) => peerId).join(', ')}` : 'is not known here';
  throw new StatusError('NOT_FOUND', `"${text}" ${problem}; see potluck peers`);
}

/** Whether a member that is known holds a certificate of this issuer. */
function hasAdmitted(issuer: NodeId, context: AdminContext): boolean {
  const roster = context.active()?.roster;
  return membersKnown(context, issuer).some((peer) => roster?.get(peer)?.issuer === issuer);
}

function membersKnown(context: AdminContext, except: NodeId): NodeId[] {
  return onPeers(context)
    .peers.filter(({ status }) => status !== 'left')
    .map(({ peerId }) => peerId)
    .filter((peerId) => peerId !== except);
}

/** Where a node with this configuration will be reached. */
function configuredAddresses({ listen }: MeshConfig): string[] {
  const address = parseHostPort(listen);
  if (address && address.port !== 0) return reachable(address);
  throw new StatusError(
    'FAILED_PRECONDITION',
    'the port of the mesh is not known before the node runs; start it first',
  );
}

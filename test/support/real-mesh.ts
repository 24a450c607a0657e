/** Members with real identities and certificates, and whole tiers of them over real sockets, in this process. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FetchEvent } from '../../mesh/core/fetch/types.ts';
import type { Member } from '../../mesh/core/membership/membership.ts';
import { type Identity, openIdentity } from '../../mesh/net/identity/identity.ts';
import { invitationId, prove } from '../../mesh/net/identity/invitation.ts';
import { admit, foundMesh, invite } from '../../mesh/net/identity/issuer.ts';
import { openKey } from '../../mesh/net/identity/keys.ts';
import { identityPaths, writeState } from '../../mesh/net/identity/state.ts';
import type { Tier } from '../../node/mesh/tier.ts';
import { createPeerTier, type PeerTier, type PeerTierOptions } from '../../node/peers/peer-tier.ts';
import { createPlanning } from './planning.ts';
import { digestKey } from '../../protos/digest.ts';
import { openStore, type Store } from '../../node/storage/open-store.ts';

/** As membership shows it. */
function asMember(id: string): Member {
  return { record: { id, attributes: { subnet: '', site: '' } }, status: 'alive' } as unknown as Member;
}

export interface TierNode extends AsyncDisposable {
  readonly identity: Identity;
  readonly store: Store;
  readonly peers: PeerTier;
  readonly log: string[];
  /** The tier is closed: to others the node is gone. */
  die(): Promise<void>;
}

/** @param clock - wall clock of every member */
export function createRealMesh(clock: { nowMs: number } = { nowMs: Date.now() }) {
  const nowMs = (): number => clock.nowMs;
  const dirs: string[] = [];
  const addresses = new Map<string, string>();
  const planners = new Map<string, (peer: string, isAlive: boolean) => void>();
  /** What an index would tell. */
  const holders = new Map<string, Set<string>>();
  let founder: Identity | undefined;

  async function newDir(): Promise<string> {
    const dir = await mkdtemp(join(tmpdir(), 'potluck-member-'));
    dirs.push(dir);
    return dir;
  }

  /** The first is the administrator; the others are invited by it. */
  async function join1(roles: readonly string[] = []): Promise<{ identity: Identity; dataDir: string }> {
    const dataDir = await newDir();
    if (founder) {
      const { peerId } = openKey(identityPaths(dataDir).key);
      const { secret } = invite(founder, { ttlMs: 60_000, roles });
      const joining = { issuer: founder.peerId, joiner: peerId, nonce: randomBytes(16) };
      const proof = prove(secret, 'join', joining);
      const admission = admit(founder, { ...joining, invitationId: invitationId(secret), proof, name: 'member' });
      if (!('certificate' in admission)) throw new Error(admission.refused);
      writeState(dataDir, { mesh: founder.mesh.bytes, certificate: admission.certificate });
    } else {
      foundMesh({ dataDir, name: 'founder', nowMs: nowMs() });
    }
    const identity = openIdentity({ dataDir, nowMs });
    if (!identity) throw new Error('no identity');
    founder ??= identity;
    return { identity, dataDir };
  }

  return {
    join: join1,
    clock,
    async open(options: Partial<PeerTierOptions> & { readonly roles?: readonly string[] } = {}): Promise<TierNode> {
      const { identity, dataDir } = await join1(options.roles);
      const store = await openStore({
        dataDir: join(dataDir, 'store'),
        sizeLimitBytes: 1024 ** 3,
        durability: 'fast',
      });
      store.watch((digest, isHeld) => {
        const of = holders.get(digestKey(digest)) ?? new Set();
        holders.set(digestKey(digest), of);
        if (isHeld) of.add(identity.peerId);
        else of.delete(identity.peerId);
      });
      const log: string[] = [];
      const others = (): string[] => [...addresses.keys()].filter((peer) => peer !== identity.peerId);
      const peers = createPeerTier({
        store,
        capacityBytes: 1024 ** 3,
        listen: '127.0.0.1:0',
        members: () => others().map(asMember),
        trust: 'members',
        onLog: (_, message) => log.push(message),
        ...options,
      });
      let tier: Tier | undefined;
      const planning = createPlanning(identity.peerId, (effect) => tier?.perform(effect as never), {
        holdersOf: (blob) => [...(holders.get(blob) ?? [])].filter((peer) => peer !== identity.peerId),
        ...(options.uploadBytesPerSecond !== undefined && { uploadBytesPerSecond: options.uploadBytesPerSecond }),
      });
      tier = await peers.open({
        identity,
        deliver(event) {
          planning.deliver(event as FetchEvent);
        },
        dataAddressesOf: (peer) => [addresses.get(peer)].filter((address) => address !== undefined),
      });
      for (const [peer, setMember] of planners) {
        setMember(identity.peerId, true);
        planning.setMember(peer, true, 'subnet');
      }
      addresses.set(identity.peerId, tier.dataAddress);
      planners.set(identity.peerId, (peer, isAlive) => planning.setMember(peer, isAlive, 'subnet'));
      let isDead = false;
      const die = async (): Promise<void> => {
        if (isDead) return;
        isDead = true;
        planners.delete(identity.peerId);
        addresses.delete(identity.peerId);
        await tier.close();
        planning.close();
        for (const setMember of planners.values()) setMember(identity.peerId, false);
      };
      return {
        identity,
        store,
        peers,
        log,
        die,
        async [Symbol.asyncDispose]() {
          await die();
          await store.close();
        },
      };
    },
    async close(): Promise<void> {
      for (const dir of dirs.splice(0)) await rm(dir, { recursive: true, force: true });
    },
  };
}

/** A node that is awake in its mesh: the machine, its driver, its log and the network, put together. */
import { randomBytes } from 'node:crypto';
import { type NodeId, nodeOf } from '../../mesh/core/ids.ts';
import type { Member } from '../../mesh/core/membership/membership.ts';
import { createRing } from '../../mesh/core/providers/ring.ts';
import { createPeer, type Peer, type PeerNote } from '../../mesh/core/peer.ts';
import { createRng } from '../../mesh/core/rng.ts';
import type { SharingEvent } from '../../mesh/core/sharing-types.ts';
import { hostPortText, parseHostPort, reachable } from '../../mesh/net/host/addresses.ts';
import type { Identity } from '../../mesh/net/identity/identity.ts';
import { ownDelegation } from '../../mesh/net/identity/issuer.ts';
import { recordSigner } from '../../mesh/net/identity/records.ts';
import { createRoster, type Roster } from '../../mesh/net/identity/roster.ts';
import { identityPaths } from '../../mesh/net/identity/state.ts';
import { createNetwork, type Network } from '../../mesh/net/network.ts';
import { StatusError } from '../../protos/status.ts';
import type { MeshConfig } from '../config/config.ts';
import { createAlarm, createMeshClock } from './clock.ts';
import { type CoordinationLog, createCoordinationLog } from './coordination-log.ts';
import { type Driver, startDriver, type WorkOf } from './driver.ts';
import * as limits from './limits.ts';
import { createDiskFiles, readLogText, truncateLog } from './log-files.ts';
import { attributesOf, type Facts, storeGenerationOf } from './machine-facts.ts';
import { isOffloadWork, type Offloading, type OpenOffloading } from './offloading.ts';
import type { Clock } from './ports.ts';
import type { OpenTier } from './tier.ts';

const logName = 'peer.log';

export interface ActiveMeshOptions {
  readonly identity: Identity;
  readonly dataDir: string;
  readonly config: MeshConfig;
  readonly openTier?: OpenTier;
  readonly openOffloading?: OpenOffloading;
  readonly clock?: Clock;
  readonly onLog: (level: 'info' | 'warning', message: string) => void;
  readonly onNote?: (note: PeerNote) => void;
}

export interface ActiveMesh {
  readonly identity: Identity;
  readonly roster: Roster;
  readonly network: Network;
  readonly machine: Peer;
  readonly driver: Driver;
  readonly coordinationLog: CoordinationLog;
  /** Executors that this node's actions avoid, and why. */
  readonly drained: ReadonlyMap<NodeId, string>;
  /** Everybody known but this node. */
  members(): Member[];
  /** Whether this node can invite others now. */
  isIssuer(): boolean;
  /** Says goodbye and stops. `left`: for good. */
  close(presence: 'suspended' | 'left'): Promise<void>;
}

/** Throws FAILED_PRECONDITION when an address cannot be listened on; nothing is left open then. */
export async function startActiveMesh(options: ActiveMeshOptions): Promise<ActiveMesh> {
  const { identity, dataDir, config, onLog } = options;
  const clock = options.clock ?? createMeshClock();
  const listen = parseHostPort(config.listen);
  if (!listen) throw new StatusError('INVALID_ARGUMENT', `"${config.listen}" is no address for the mesh`);
  const { dir } = identityPaths(dataDir);
  const text = readLogText(dir, logName);
  const storeGeneration = storeGenerationOf(dataDir, { logIsGone: text === '' });
  const roster = createRoster(identity);
  const drained = new Map<NodeId, string>();
  let offloading: Offloading | undefined;

  await using parts = new AsyncDisposableStack();
  // What the tier reports before the machine runs waits for it.
  let early: SharingEvent[] | undefined = [];
  const tier = await options.openTier?.({
    identity,
    deliver: (event) => (early ? void early.push(event) : driver.deliver(event)),
    dataAddressesOf,
  });
  if (tier) parts.defer(() => tier.close());
  const files = createDiskFiles(dir);
  parts.defer(() => files.close());
  const alarm = createAlarm(clock, () => driver.wake());
  parts.use(alarm);

  const coordinationLog = createCoordinationLog(identity.peerId, onLog);
  parts.use(coordinationLog);
  const { peer: machine, driver } = startDriver(
    { clock, alarm, files, send: (to, message) => network.send(to, message), work },
    { text, truncate: (length) => truncateLog(dir, logName, text, length) },
    (restored, nowMs) =>
      createPeer(
        {
          self: identity.peerId,
          attributes: attributesOf(facts()),
          signer: recordSigner(identity, roster),
          rng: createRng(randomBytes(4).readUInt32LE()),
          ringOf: (nodes) => createRing(nodes, Buffer.from(identity.mesh.salt).readUInt32LE()),
          capacityBytes: tier?.capacityBytes ?? 0,
          held: tier?.held ?? [],
          uploadBytesPerSecond: config.uploadBytesPerSecond || limits.uploadBytesPerSecond,
          uploadsMax: limits.uploadsMax,
          shards: identity.mesh.shards,
          // Whose log is gone while others are in the mesh has nothing left to found.
          founder: identity.mesh.founder === identity.peerId && (text !== '' || !hasAdmitted(identity)),
          holds: () => offloading?.holds() ?? [],
        },
        restored,
        nowMs,
      ),
  );
  const network = await createNetwork({
    identity,
    roster,
    dataDir,
    listen,
    bootstrap: config.bootstrap,
    mdns: config.discovery,
    nowMs: () => clock.nowMs(),
    onMessage: (from, message) => driver.deliver({ kind: 'message', from, message }),
    onConnected: introduce,
    onDisconnected: () => {},
    onRoundTrip: (node, roundTripMs) => driver.deliver({ kind: 'roundTrip', node, roundTripMs }),
    onEnded: expelEnded,
    onLog,
  });
  parts.defer(() => network.close());
  offloading = await options.openOffloading?.({
    identity,
    machine,
    deliver: (event) => driver.deliver(event),
    sendParcel: (to, channel, body) => network.sendParcel(to, channel, body),
    onParcel: (channel, handler) => network.onParcel(channel, handler),
  });
  const opened = offloading;
  if (opened) parts.defer(() => opened.close());
  driver.deliver({ kind: 'start', contacts: [...network.contacts()].map(([peer]) => peer) });
  const reported = early;
  early = undefined;
  for (const event of reported) driver.deliver(event);
  for (const peer of network.connected()) introduce(peer);

  parts.defer(identity.onRevocations(expelEnded));
  let suspendedMs = clock.suspendedMs();
  let reachedAt = network.addresses().join(' ');
  const tendTimer = setInterval(tend, limits.factsMs).unref();
  parts.defer(() => clearInterval(tendTimer));

  function facts(): Facts {
    const listening = tier && parseHostPort(tier.dataAddress);
    const [dataAddress = ''] = listening ? reachable(listening) : [];
    return { site: config.site, dataAddress, storeGeneration };
  }

  /** Two who meet compare what they know, whatever either knew when it started. */
  function introduce(peer: NodeId): void {
    if (machine.membership.status(peer) === 'alive') return;
    const record = machine.membership.self();
    const rumours = [{ record, verdict: 'here', by: identity.peerId }] as const;
    network.send(peer, { kind: 'syncOffer', summary: machine.membership.summary(), rumours });
  }

  /** Looks at what may have changed around this node without an event: power, addresses, a sleep. */
  function tend(): void {
    if (clock.suspendedMs() > suspendedMs) {
      suspendedMs = clock.suspendedMs();
      network.hurry();
    }
    expelEnded();
    const before = machine.membership.self().attributes;
    const attributes = attributesOf(facts());
    const changed = (Object.keys(attributes) as (keyof typeof attributes)[]).some(
      (key) => attributes[key] !== before[key],
    );
    if (changed) driver.deliver({ kind: 'attributes', attributes });
    const addresses = network.addresses().join(' ');
    if (addresses !== reachedAt) network.hurry();
    reachedAt = addresses;
  }

  function work(effect: WorkOf<Peer>): void {
    if (effect.kind === 'note') {
      onNote(effect.note);
      options.onNote?.(effect.note);
    }
    if (isOffloadWork(effect)) offloading?.perform(effect);
    else tier?.perform(effect);
  }

  /** Whose membership ended is gone at once: nobody waits for probes, which it may still answer to others. */
  function expelEnded(): void {
    const ended = [...machine.membership.members()].filter(
      ({ record, status }) => (status === 'alive' || status === 'suspect') && !roster.get(record.id),
    );
    for (const { record } of ended) {
      const dead = { record, verdict: 'dead', by: identity.peerId } as const;
      // As though it said so itself; once to be suspected, and once to be believed.
      const message = { kind: 'sync', reply: false, rumours: [dead, dead] } as const;
      driver.deliver({ kind: 'message', from: record.id, message });
    }
  }

  function onNote(note: PeerNote): void {
    coordinationLog.onNote(note, machine.coordination);
    if (note.kind === 'drained') onDrained(note);
    if (note.kind !== 'member' || note.member.record.id === identity.peerId) return;
    const { record, status } = note.member;
    if (status === note.before || status === 'suspect') return;
    // A connection that is open all the same leads nowhere: its far end has moved, or answers nobody. That of a former member
    // ends by itself, after it has heard why.
    if (status === 'dead' && roster.get(record.id)) network.reset(record.id);
    const name = roster.get(record.id)?.name;
    const who = name ? `${name} (${record.id})` : record.id;
    if (status === 'alive' && note.before !== 'suspect') onLog('info', `${who} is in the mesh`);
    else if (status !== 'alive')
      onLog('info', `${who} is ${{ dead: 'gone', suspended: 'away', left: 'no longer in the mesh' }[status]}`);
  }

  function onDrained({ node, drained: isDrained, reason }: Extract<PeerNote, { readonly kind: 'drained' }>): void {
    const who = roster.get(node)?.name || node;
    if (isDrained) drained.set(node, drainReasons[reason]);
    else drained.delete(node);
    if (isDrained) onLog('warning', `actions of this node avoid ${who}: ${drainReasons[reason]}`);
    else onLog('info', `actions of this node may run on ${who} again`);
  }

  /** Where a member serves blobs: the hosts at which it is connected, which are proven, then what it says of itself. */
  function dataAddressesOf(peer: NodeId): string[] {
    const said = machine.membership.get(peer)?.record.attributes.dataAddress;
    const address = said === undefined ? undefined : parseHostPort(said);
    if (!address) return [];
    const hosts = network.remoteAddresses(peer).flatMap((text) => parseHostPort(text)?.host ?? []);
    return [...new Set([...hosts, address.host].map((host) => hostPortText({ host, port: address.port })))];
  }

  /**
   * What this node leads goes to others, who would have to elect somebody first otherwise. A shard of two that loses one
   * before it is a shard of one decides nothing until that one is back.
   */
  async function handOver(): Promise<void> {
    const { coordination, membership } = machine;
    const self = identity.peerId;
    const isNeeded = (): boolean =>
      coordination.statuses().some(({ shard }) => {
        const group = coordination.groupOf(shard);
        const voters = group?.status.configuration.voters ?? [];
        return group?.leader === self || (voters.length <= 2 && voters.some((voter) => nodeOf(voter) === self));
      });
    const isAlone = (): boolean => ![...membership.members()].some(({ status }) => status === 'alive');
    const endMs = clock.nowMs() + limits.handOverMs;
    while (isNeeded() && !isAlone() && clock.nowMs() < endMs) {
      await new Promise((resolve) => setTimeout(resolve, limits.handOverPollMs));
    }
  }

  const open = parts.move();
  return {
    identity,
    roster,
    network,
    machine,
    driver,
    coordinationLog,
    drained,
    isIssuer: () => ownDelegation(identity) !== undefined,
    members: () => [...machine.membership.members()].filter(({ record }) => record.id !== identity.peerId),
    async close(presence) {
      driver.deliver({ kind: 'goodbye', presence });
      await handOver();
      // The machine tells a few whom it holds alive; here it reaches everybody connected, suspects too.
      const rumours = [{ record: machine.membership.self(), verdict: 'here', by: identity.peerId }] as const;
      for (const peer of network.connected()) network.send(peer, { kind: 'sync', reply: false, rumours });
      // Closing a connection of libp2p drops what its encryption still holds, so the others are asked whether they heard.
      await network.settle(limits.farewellMs);
      await open.disposeAsync();
    },
  };
}

/** Why actions avoid an executor, in words. */
const drainReasons = {
  faults: 'its actions fail far more often than those of others',
  mismatch: 'its results differed from those of others',
  byHand: 'by hand',
  probed: 'it is being probed',
} as const;

/** Whether anybody else was let into the mesh by this node. */
function hasAdmitted({ file }: Identity): boolean {
  return file.state.issuedTo.length > 0;
}

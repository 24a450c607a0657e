/**
 * The control plane of one member: host, door, links, and what keeps a mesh together by itself: revocations spread,
 * certificates are renewed, addresses are passed on, members that were lost are dialled again.
 */
import { Buffer } from 'node:buffer';
import type { Contact } from '../../protos/gen/potluck/mesh/v1/admission_pb.ts';
import type { Control } from '../../protos/gen/potluck/mesh/v1/control_pb.ts';
import type { Certificate, RevocationNotice, Signed } from '../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import type { NodeId } from '../core/ids.ts';
import type { PeerMessage } from '../core/peer.ts';
import { createDoor } from './admission/door.ts';
import {
  bodiesOf,
  BrokenRule,
  type ControlBody,
  createSnapshotParts,
  decodeControl,
  encodeControl,
  messageIn,
  type SnapshotParts,
} from './control/codec.ts';
import { controlProtocol, createLinks } from './control/links.ts';
import { createPromiseProofs } from './control/promise-proofs.ts';
import * as controlLimits from './control/limits.ts';
import { openAddressBook } from './host/address-book.ts';
import type { HostPort } from './host/addresses.ts';
import { createHost, type Gossip, type HostOptions } from './host/host.ts';
import { gossipBytesMax, rememberedMax } from './host/limits.ts';
import { createReconnect, type Reconnect } from './host/reconnect.ts';
import { certificateBytes, openDelegation } from './identity/certificate.ts';
import type { Identity } from './identity/identity.ts';
import {
  acceptCertificate,
  acceptDelegation,
  addIssuer,
  delegationsGiven,
  isRenewalDue,
  ownDelegation,
  renew,
} from './identity/issuer.ts';
import { skewMs } from './identity/limits.ts';
import { noticeBytes } from './identity/revocations.ts';
import type { Roster } from './identity/roster.ts';
import * as limits from './limits.ts';
import { tellRefusals } from './refusals.ts';

export interface NetworkOptions extends Pick<HostOptions, 'mdns' | 'mdnsPort'> {
  readonly identity: Identity;
  readonly roster: Roster;
  readonly dataDir: string;
  readonly listen: HostPort;
  /** host:port of members to begin with. */
  readonly bootstrap: readonly string[];
  /** Milliseconds of a clock that never goes back. */
  readonly nowMs: () => number;
  readonly onMessage: (from: NodeId, message: PeerMessage) => void;
  readonly onConnected: (peer: NodeId) => void;
  readonly onDisconnected: (peer: NodeId) => void;
  readonly onRoundTrip: (peer: NodeId, ms: number) => void;
  /** A membership ended: no connection of its peer is left. */
  readonly onEnded: (peer: NodeId, reason: 'revoked' | 'over') => void;
  readonly onLog: (level: 'info' | 'warning', message: string) => void;
}

export interface Network {
  readonly links: { roundTripMs(peer: NodeId): number | undefined; dropped(): number; open(): number };
  /** Where this node listens, host:port; the first is the most useful one. */
  addresses(): string[];
  connected(): NodeId[];
  remoteAddresses(peer: NodeId): string[];
  /** Remembered, connected or not. */
  contacts(): IterableIterator<[NodeId, { readonly addresses: readonly string[]; readonly seenMs: number }]>;
  /** Members heard of by multicast since the start. */
  discovered(): number;
  /** Hands a machine's message to a member; lost when the member cannot be reached. */
  send(to: NodeId, message: PeerMessage): void;
  /** A message of a part of the node that speaks for itself. Lost like any other. */
  sendParcel(to: NodeId, channel: string, body: Uint8Array): void;
  /** Takes the parcels of one channel. */
  onParcel(channel: string, handler: (from: NodeId, body: Uint8Array) => void): void;
  /** A member was made an issuer here, and should know. */
  deliverDelegations(): void;
  /** Looks after memberships now: cuts those that ended, renews what is due. Happens by itself every `tendMs`. */
  tend(): void;
  /** Gives up the connection with a member that seems dead; it is dialled again like any other that is not connected. */
  reset(peer: NodeId): void;
  /** Dials everybody anew: the network may be another one now. */
  hurry(): void;
  /** Resolves when everything said has arrived, at the latest after so long. */
  settle(timeoutMs: number): Promise<void>;
  close(): Promise<void>;
}

/** Throws FAILED_PRECONDITION when the address cannot be listened on. */
export async function createNetwork(options: NetworkOptions): Promise<Network> {
  const { identity, roster, nowMs, onLog } = options;
  const book = openAddressBook(options.dataDir);
  const parcels = new Map<string, (from: NodeId, body: Uint8Array) => void>();
  const discovered = new Set<NodeId>();
  const toldAllMs = new Map<NodeId, number>();
  const proofs = createPromiseProofs(identity, roster);
  const snapshots = new Map<NodeId, SnapshotParts>();
  /** Connections that end when their last words have arrived. */
  const ending = new Map<NodeId, NodeJS.Timeout>();
  let toldRevoked = false;
  /** One message may go to many: it is encoded once. */
  let encoded: { readonly message: PeerMessage; readonly frames: readonly Uint8Array[] } | undefined;
  const renewals = new Map<NodeId, { readonly certificate: Certificate; readonly atMs: number }>();
  let reconnect: Reconnect | undefined;

  const door = createDoor({
    identity,
    onMember: (member, certificate) => takeCertificate(certificate, member.peerId),
    onJoined: (peer, name) => onLog('info', `${name || 'a node'} (${peer}) joined the mesh with an invitation`),
    onRefused: tellRefusals(nowMs, (far, reason) => onLog('warning', `refused a connection with ${far}: ${reason}`)),
    contacts: () => contactsFor(undefined),
  });
  const host = await createHost({
    identity,
    door,
    listen: options.listen,
    mdns: options.mdns,
    ...(options.mdnsPort !== undefined && { mdnsPort: options.mdnsPort }),
    onConnected(peer) {
      // Who the others are comes first, or nothing that is said of them would be believed.
      for (const certificates of inFrames(roster.certificates(), (one) => one.byteLength)) {
        links.send(peer, { case: 'certificates', value: { certificates } });
      }
      options.onConnected(peer);
      links.send(peer, { case: 'revocationSummary', value: { summary: identity.revocations.summary() } });
      links.connected(peer);
    },
    onDisconnected(peer) {
      snapshots.delete(peer);
      options.onDisconnected(peer);
    },
    onDiscovered(peer, addresses) {
      if (peer === identity.peerId) return;
      if (discovered.size < rememberedMax) discovered.add(peer);
      reconnect?.heardOf(peer, addresses);
    },
    onGossip: takeGossip,
  });
  const links = createLinks({
    host,
    nowMs,
    onFrame,
    onRoundTrip: options.onRoundTrip,
    onOpen: greet,
    onNonsense: (peer, reason) => onLog('warning', `${peer} broke the protocol and was cut: ${reason}`),
  });
  await host.handle(controlProtocol, (stream, from) => links.accept(stream, from));
  await host.start();
  reconnect = createReconnect({
    host,
    book,
    self: identity.peerId,
    bootstrap: options.bootstrap,
    isRevoked: (peer) => identity.isRevoked(peer),
    nowMs,
    random: Math.random,
  });
  const stopListening = identity.onRevocations(onRevocations);
  const tendTimer = setInterval(tend, limits.tendMs).unref();
  const saveTimer = setInterval(() => book.save(), limits.saveMs).unref();
  tend();

  /** Everything a member should know of us at the start of a link. */
  function greet(peer: NodeId): void {
    links.send(peer, { case: 'contacts', value: { contacts: contactsFor(peer) } });
    deliverDelegation(peer);
    askForRenewal([peer]);
    void host.knownAddresses(peer).then((addresses) => {
      const dialled = host.remoteAddresses(peer).filter((address) => addresses.includes(address));
      book.remember(peer, [...dialled, ...addresses], Date.now());
    });
  }

  function contactsFor(peer: NodeId | undefined): Contact[] {
    const own: Contact = { $typeName: 'potluck.mesh.v1.Contact', peerId: identity.peerId, addresses: host.addresses() };
    const contacts = [own];
    for (const [peerId, { addresses }] of book.peers()) {
      if (contacts.length >= controlLimits.contactsMax) break;
      if (peerId === peer || identity.isRevoked(peerId)) continue;
      contacts.push({ $typeName: 'potluck.mesh.v1.Contact', peerId, addresses: [...addresses] });
    }
    return contacts;
  }

  function takeGossip(bytes: Uint8Array): Gossip {
    try {
      const body = decodeControl(bytes);
      if (body.case === 'revocations') return takeRevocations(body.value.notices) ? 'news' : 'known';
      // A newer node may say more than this one knows, and this one cannot judge it.
      if (body.case === undefined) return 'known';
      if (body.case !== 'certificates') return 'junk';
      const { certificates } = body.value;
      const fresh = certificates.slice(0, controlLimits.noticesMax).filter((one) => roster.learn(one));
      return fresh.length > 0 ? 'news' : 'known';
    } catch {
      return 'junk';
    }
  }

  function onFrame(from: NodeId, body: Control['message']): void {
    // Whose membership ended may still be connected, for a moment, to hear so.
    if (!roster.get(from)) return;
    const message = messageIn(body, { self: identity.peerId, far: from }, partsOf(from));
    if (message) return options.onMessage(from, proofs.arrived(from, message, body));
    switch (body.case) {
      case 'contacts':
        return takeContacts(from, body.value.contacts);
      case 'revocationSummary':
        if (body.value.summary !== identity.revocations.summary()) sendRevocations(from);
        return;
      case 'revocations':
        takeRevocations(body.value.notices);
        return;
      case 'renewRequest':
        return onRenewRequest(from);
      case 'renewed':
        return onRenewed(body.value.certificate && certificateBytes(body.value.certificate), body.value.certificate);
      case 'certificates':
        if (body.value.certificates.length > controlLimits.noticesMax)
          throw new BrokenRule('too many certificates at once');
        for (const certificate of body.value.certificates) roster.learn(certificate);
        return;
      case 'delegation':
        return takeDelegation(body.value);
      case 'parcel':
        parcels.get(body.value.channel)?.(from, body.value.body);
        return;
      default:
        // A newer node may say more than this one knows.
        return;
    }
  }

  function partsOf(peer: NodeId): SnapshotParts {
    let parts = snapshots.get(peer);
    if (!parts) {
      parts = createSnapshotParts();
      snapshots.set(peer, parts);
    }
    return parts;
  }

  function sendMessage(to: NodeId, message: PeerMessage): void {
    if (encoded?.message !== message) {
      const bodies = bodiesOf(message, { self: identity.peerId, far: to }, proofs.leaving(to, message));
      encoded = { message, frames: bodies.map(encodeControl) };
    }
    links.sendFrames(to, encoded.frames);
  }

  function takeContacts(from: NodeId, contacts: readonly Contact[]): void {
    if (contacts.length > controlLimits.contactsMax) throw new BrokenRule(`${contacts.length} contacts at once`);
    for (const { peerId, addresses } of contacts) {
      if (peerId === identity.peerId || !roster.get(peerId)) continue;
      // What a member says of itself is news; what it says of others is a hint for those whom we do not know.
      if (peerId !== from && book.get(peerId)) {
        // It may have moved; a try costs little, and the book keeps what it said of itself.
        if (!host.isConnected(peerId)) reconnect?.heardOf(peerId, addresses.slice(0, limits.addressesPerContact));
        continue;
      }
      book.remember(peerId, addresses.slice(0, limits.addressesPerContact), peerId === from ? Date.now() : 0);
      const kept = book.get(peerId)?.addresses ?? [];
      void host.learn(peerId, kept).catch(() => {});
      if (peerId !== from && !host.isConnected(peerId)) reconnect?.heardOf(peerId, kept);
    }
  }

  /** Who came in by the door is made known to everybody. */
  function takeCertificate(certificate: Uint8Array, from: NodeId): void {
    if (!roster.learn(certificate)) return;
    spread({ case: 'certificates', value: { certificates: [Buffer.from(certificate)] } }, from);
  }

  /** To every connected member but one, and to those beyond by gossip where that carries so much. */
  function spread(body: ControlBody, except?: NodeId): void {
    for (const peer of host.connected()) if (peer !== except) links.send(peer, body);
    const bytes = encodeControl(body);
    if (bytes.byteLength <= gossipBytesMax) void host.gossip(bytes).catch(() => {});
  }

  /** Whether any of them was news. */
  function takeRevocations(notices: readonly RevocationNotice[]): boolean {
    if (notices.length > controlLimits.noticesMax) throw new BrokenRule(`${notices.length} revocations at once`);
    try {
      return identity.addRevocations(notices).length > 0;
    } catch (error) {
      // Whoever sent them is not to blame for this disk.
      onLog(
        'warning',
        `revocations hold until the next start only: ${error instanceof Error ? error.message : String(error)}`,
      );
      return true;
    }
  }

  function sendRevocations(to: NodeId): void {
    // Few bytes ask for many: a member is told all at most so often.
    const oldestMs = nowMs() - limits.tellAllMs;
    for (const [peer, atMs] of toldAllMs) if (atMs < oldestMs) toldAllMs.delete(peer);
    if (toldAllMs.has(to)) return;
    toldAllMs.set(to, nowMs());
    for (const notices of inFrames(identity.revocations.all(), (notice) => noticeBytes(notice).byteLength)) {
      links.send(to, { case: 'revocations', value: { notices } });
    }
  }

  /** Made here or heard from somebody: whoever lost its membership hears why and is cut, everybody else is told. */
  function onRevocations(fresh: readonly RevocationNotice[]): void {
    for (const notices of inFrames(fresh, (notice) => noticeBytes(notice).byteLength)) {
      spread({ case: 'revocations', value: { notices } });
    }
    cutEnded(limits.lastWordsMs);
    if (identity.isRevoked(identity.peerId) && !toldRevoked) {
      toldRevoked = true;
      onLog('warning', 'this node was revoked: the others refuse it from now on; join again with a new invitation');
    }
  }

  function cutEnded(afterMs = 0): void {
    for (const peer of host.connected()) {
      if (roster.get(peer) || ending.has(peer)) continue;
      const reason = identity.isRevoked(peer) ? 'revoked' : 'over';
      onLog('warning', `cut the connection with ${peer}: its membership is ${reason}`);
      options.onEnded(peer, reason);
      if (afterMs === 0) host.cut(peer, `its membership is ${reason}`);
      else ending.set(peer, setTimeout(() => cut(peer, `its membership is ${reason}`), afterMs).unref());
    }
    for (const [peer] of book.peers()) if (identity.isRevoked(peer)) book.forget(peer);
  }

  function cut(peer: NodeId, reason: string): void {
    ending.delete(peer);
    host.cut(peer, reason);
  }

  function tend(): void {
    cutEnded();
    const connected = host.connected();
    askForRenewal(connected);
    const lucky = connected[Math.floor(Math.random() * connected.length)];
    const summary = identity.revocations.summary();
    if (lucky !== undefined) links.send(lucky, { case: 'revocationSummary', value: { summary } });
    for (const { issuer, delegation } of delegationsGiven(identity)) {
      const parts = openDelegation(identity.mesh, identity.verifier, delegation);
      const validity = parts && { notBeforeMs: Number(parts.notBeforeMs), notAfterMs: Number(parts.notAfterMs) };
      if (!validity || !isRenewalDue(validity, identity.nowMs()) || identity.isRevoked(issuer)) continue;
      addIssuer(identity, issuer);
      deliverDelegation(issuer);
    }
  }

  /** Whoever of them is an issuer answers. */
  function askForRenewal(peers: readonly NodeId[]): void {
    if (!isRenewalDue(identity.membership(), identity.nowMs())) return;
    if (ownDelegation(identity)) {
      const certificate = renew(identity, identity.membership());
      onRenewed(certificate && certificateBytes(certificate), certificate);
      return;
    }
    for (const peer of peers) links.send(peer, { case: 'renewRequest', value: {} });
  }

  function onRenewRequest(from: NodeId): void {
    const member = roster.get(from);
    // Early requests are answered with silence, so that nobody fills this disk with serial numbers.
    if (!member || !isRenewalDue(member, identity.nowMs() + skewMs)) return;
    // Each costs a sync of the disk: one that is asked for again is given again.
    const given = renewals.get(from);
    const isFresh = given !== undefined && nowMs() - given.atMs < limits.renewedMs;
    const certificate = isFresh ? given.certificate : renew(identity, member);
    if (!certificate) return;
    renewals.delete(from);
    renewals.set(from, isFresh ? given : { certificate, atMs: nowMs() });
    for (const oldest of renewals.keys()) {
      if (renewals.size <= limits.renewalsKept) break;
      renewals.delete(oldest);
    }
    links.send(from, { case: 'renewed', value: { certificate } });
  }

  function onRenewed(bytes: Uint8Array | undefined, certificate: Parameters<typeof acceptCertificate>[1] | undefined) {
    // The first of several answers is enough.
    if (!isRenewalDue(identity.membership(), identity.nowMs())) return;
    if (!bytes || !certificate || !acceptCertificate(identity, certificate, bytes)) return;
    onLog(
      'info',
      `the membership of this node was renewed until ${new Date(identity.membership().notAfterMs).toISOString()}`,
    );
    spread({ case: 'certificates', value: { certificates: [Buffer.from(bytes)] } });
  }

  function takeDelegation(delegation: Signed): void {
    if (acceptDelegation(identity, delegation)) onLog('info', 'this node is an issuer now: it can invite others');
  }

  function deliverDelegation(peer: NodeId): void {
    for (const { issuer, delegation } of delegationsGiven(identity)) {
      if (issuer === peer) links.send(peer, { case: 'delegation', value: delegation });
    }
  }

  return {
    links,
    addresses: () => host.addresses(),
    connected: () => host.connected(),
    remoteAddresses: (peer) => host.remoteAddresses(peer),
    contacts: () => book.peers(),
    discovered: () => discovered.size,
    send: sendMessage,
    sendParcel: (to, channel, body) => links.send(to, { case: 'parcel', value: { channel, body: Buffer.from(body) } }),
    onParcel: (channel, handler) => void parcels.set(channel, handler),
    deliverDelegations() {
      for (const peer of host.connected()) deliverDelegation(peer);
    },
    tend,
    reset: (peer) => host.cut(peer, 'it seems dead'),
    hurry: () => reconnect?.hurry(),
    settle: (timeoutMs) => links.settle(timeoutMs),
    async close() {
      clearInterval(tendTimer);
      clearInterval(saveTimer);
      for (const timer of ending.values()) clearTimeout(timer);
      stopListening();
      await reconnect?.close();
      await links.close();
      book.save();
      await host.stop();
    },
  };
}

/** Cuts a list into parts that fit into a frame each, with room to spare. */
function* inFrames<T>(items: readonly T[], sizeOf: (item: T) => number): Generator<T[]> {
  let part: T[] = [];
  let bytes = 0;
  for (const item of items) {
    const size = sizeOf(item);
    if (part.length > 0 && (bytes + size > limits.partBytesMax || part.length >= controlLimits.noticesMax)) {
      yield part;
      [part, bytes] = [[], 0];
    }
    part.push(item);
    bytes += size;
  }
  if (part.length > 0) yield part;
}

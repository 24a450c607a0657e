/**
 * The control plane of one member: host, door, links, and what keeps a mesh together by itself: revocations spread,
 * certificates are renewed, addresses are passed on, members that were lost are dialled again.
 */
import { Buffer } from 'node:buffer';
import type { Contact } from '../../protos/gen/potluck/mesh/v1/admission_pb.ts';
import type { Control } from '../../protos/gen/potluck/mesh/v1/control_pb.ts';
import type { RevocationNotice, Signed } from '../../protos/gen/potluck/mesh/v1/identity_pb.ts';
import type { NodeId } from '../core/ids.ts';
import type { SharingMessage } from '../core/sharing-types.ts';
import { createDoor } from './admission/door.ts';
import { bodyOf, decodeControl, encodeControl, messageIn } from './control/codec.ts';
import { controlProtocol, createLinks } from './control/links.ts';
import * as controlLimits from './control/limits.ts';
import { openAddressBook } from './host/address-book.ts';
import type { HostPort } from './host/addresses.ts';
import { createHost, type HostOptions } from './host/host.ts';
import { gossipBytesMax } from './host/limits.ts';
import { createReconnect, type Reconnect } from './host/reconnect.ts';
import { type CertifiedMember, certificateBytes, openDelegation } from './identity/certificate.ts';
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
import { publicKeyOf } from './identity/peer-id.ts';
import * as limits from './limits.ts';

export interface NetworkOptions extends Pick<HostOptions, 'mdns' | 'mdnsPort'> {
  readonly identity: Identity;
  readonly dataDir: string;
  readonly listen: HostPort;
  /** host:port of members to begin with. */
  readonly bootstrap: readonly string[];
  /** Milliseconds of a clock that never goes back. */
  readonly nowMs: () => number;
  readonly onMessage: (from: NodeId, message: SharingMessage) => void;
  readonly onConnected: (peer: NodeId) => void;
  readonly onDisconnected: (peer: NodeId) => void;
  readonly onRoundTrip: (peer: NodeId, ms: number) => void;
  /** A membership ended: no connection of its peer is left. */
  readonly onEnded: (peer: NodeId, reason: 'revoked' | 'expired') => void;
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
  /** What the newest certificate of a peer said that this life of the node has seen. */
  certified(peer: NodeId): CertifiedMember | undefined;
  /** Members heard of by multicast since the start. */
  discovered(): number;
  /** Hands a machine's message to a member; lost when the member cannot be reached. */
  send(to: NodeId, message: SharingMessage): void;
  /** A message of a part of the node that speaks for itself. Lost like any other. */
  sendParcel(to: NodeId, channel: string, body: Uint8Array): void;
  /** Takes the parcels of one channel. */
  onParcel(channel: string, handler: (from: NodeId, body: Uint8Array) => void): void;
  /** A member was made an issuer here, and should know. */
  deliverDelegations(): void;
  /** Dials everybody anew: the network may be another one now. */
  hurry(): void;
  /** Resolves when everything said was handed to the sockets, at the latest after so long. */
  idle(timeoutMs: number): Promise<void>;
  close(): Promise<void>;
}

/** Throws FAILED_PRECONDITION when the address cannot be listened on. */
export async function createNetwork(options: NetworkOptions): Promise<Network> {
  const { identity, nowMs, onLog } = options;
  const book = openAddressBook(options.dataDir);
  const certified = new Map<NodeId, CertifiedMember>();
  const parcels = new Map<string, (from: NodeId, body: Uint8Array) => void>();
  const toldRefusals = new Map<NodeId, number>();
  const discovered = new Set<NodeId>();
  let reconnect: Reconnect | undefined;
  let renewAskedMs = Number.NEGATIVE_INFINITY;

  const door = createDoor({
    identity,
    onMember: (member) => void certified.set(member.peerId, member),
    onJoined: (peer, name) => onLog('info', `${name || 'a node'} (${peer}) joined the mesh with an invitation`),
    onRefused(far, reason) {
      const toldMs = toldRefusals.get(far);
      if (toldMs !== undefined && nowMs() - toldMs < limits.refusalLogMs) return;
      if (toldRefusals.size >= limits.refusalsKept) toldRefusals.clear();
      toldRefusals.set(far, nowMs());
      onLog('warning', `refused a connection with ${far}: ${reason}`);
    },
    contacts: () => contactsFor(undefined),
  });
  const host = await createHost({
    identity,
    door,
    listen: options.listen,
    mdns: options.mdns,
    ...(options.mdnsPort !== undefined && { mdnsPort: options.mdnsPort }),
    onConnected(peer) {
      options.onConnected(peer);
      // Opening the link says hello; see `onOpen`.
      links.send(peer, { case: 'revocationSummary', value: { summary: identity.revocations.summary() } });
    },
    onDisconnected: options.onDisconnected,
    onDiscovered(peer, addresses) {
      if (peer === identity.peerId) return;
      discovered.add(peer);
      reconnect?.heardOf(peer, addresses);
    },
    onGossip(bytes) {
      try {
        const body = decodeControl(bytes);
        if (body.case === 'revocations') takeRevocations(body.value.notices);
      } catch {
        // Not even a frame; whoever relayed it need not be its author.
      }
    },
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
    askForRenewal();
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

  function onFrame(from: NodeId, body: Control['message']): void {
    const message = messageIn(body);
    if (message) return options.onMessage(from, message);
    switch (body.case) {
      case 'contacts':
        return takeContacts(from, body.value.contacts);
      case 'revocationSummary':
        if (body.value.summary !== identity.revocations.summary()) sendRevocations(from, identity.revocations.all());
        return;
      case 'revocations':
        return takeRevocations(body.value.notices);
      case 'renewRequest':
        return onRenewRequest(from);
      case 'renewed':
        return onRenewed(body.value.certificate && certificateBytes(body.value.certificate), body.value.certificate);
      case 'certificate': {
        const { member } = identity.verifyMember(from, body.value.certificate);
        if (member && member.notAfterMs >= (certified.get(from)?.notAfterMs ?? 0)) certified.set(from, member);
        return;
      }
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

  function takeContacts(from: NodeId, contacts: readonly Contact[]): void {
    if (contacts.length > controlLimits.contactsMax) throw new Error(`${contacts.length} contacts at once`);
    for (const { peerId, addresses } of contacts) {
      if (peerId === identity.peerId || identity.isRevoked(peerId) || !publicKeyOf(peerId)) continue;
      const some = addresses.slice(0, limits.addressesPerContact);
      // What a member says of itself is news; what it says of others is a hint for those whom we do not know.
      if (peerId !== from && book.get(peerId)) continue;
      book.remember(peerId, some, peerId === from ? Date.now() : 0);
      void host.learn(peerId, some).catch(() => {});
      if (peerId !== from && !host.isConnected(peerId)) reconnect?.heardOf(peerId, some);
    }
  }

  function takeRevocations(notices: readonly RevocationNotice[]): void {
    if (notices.length > controlLimits.noticesMax) throw new Error(`${notices.length} revocations at once`);
    identity.addRevocations(notices);
  }

  function sendRevocations(to: NodeId, notices: readonly RevocationNotice[]): void {
    for (let at = 0; at < notices.length; at += controlLimits.noticesMax) {
      const some = notices.slice(at, at + controlLimits.noticesMax);
      links.send(to, { case: 'revocations', value: { notices: some } });
    }
  }

  /** Made here or heard from somebody: whoever lost its membership is cut, everybody else is told. */
  function onRevocations(fresh: readonly RevocationNotice[]): void {
    cutEnded();
    for (const peer of host.connected()) sendRevocations(peer, fresh);
    const bytes = encodeControl({ case: 'revocations', value: { notices: [...fresh] } });
    if (bytes.byteLength <= gossipBytesMax) void host.gossip(bytes).catch(() => {});
  }

  function cutEnded(): void {
    for (const peer of host.connected()) {
      const member = certified.get(peer);
      const isRemoved = member && identity.isMembershipVoid(member);
      if (identity.isRevoked(peer) || isRemoved) end(peer, 'revoked');
      else if (member && identity.isExpired(member)) end(peer, 'expired');
    }
    for (const [peer] of book.peers()) if (identity.isRevoked(peer)) book.forget(peer);
  }

  function end(peer: NodeId, reason: 'revoked' | 'expired'): void {
    host.cut(peer, `its membership is ${reason}`);
    certified.delete(peer);
    onLog('warning', `cut the connection with ${peer}: its membership is ${reason}`);
    options.onEnded(peer, reason);
  }

  function tend(): void {
    cutEnded();
    askForRenewal();
    const connected = host.connected();
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

  function askForRenewal(): void {
    if (!isRenewalDue(identity.membership(), identity.nowMs()) || nowMs() - renewAskedMs < limits.renewMs) return;
    renewAskedMs = nowMs();
    if (ownDelegation(identity)) {
      const certificate = renew(identity, identity.membership());
      onRenewed(certificate && certificateBytes(certificate), certificate);
      return;
    }
    // Whoever is an issuer answers.
    for (const peer of host.connected()) links.send(peer, { case: 'renewRequest', value: {} });
  }

  function onRenewRequest(from: NodeId): void {
    const member = certified.get(from);
    // Early requests are answered with silence, so that nobody fills this disk with serial numbers.
    if (!member || identity.isRevoked(from) || !isRenewalDue(member, identity.nowMs() + skewMs)) return;
    const certificate = renew(identity, member);
    if (certificate) links.send(from, { case: 'renewed', value: { certificate } });
  }

  function onRenewed(bytes: Uint8Array | undefined, certificate: Parameters<typeof acceptCertificate>[1] | undefined) {
    if (!bytes || !certificate || !acceptCertificate(identity, certificate, bytes)) return;
    onLog(
      'info',
      `the membership of this node was renewed until ${new Date(identity.membership().notAfterMs).toISOString()}`,
    );
    for (const peer of host.connected()) links.send(peer, { case: 'certificate', value: { certificate: bytes } });
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
    certified: (peer) => certified.get(peer),
    discovered: () => discovered.size,
    send: (to, message) => links.send(to, bodyOf(message)),
    sendParcel: (to, channel, body) => links.send(to, { case: 'parcel', value: { channel, body: Buffer.from(body) } }),
    onParcel: (channel, handler) => void parcels.set(channel, handler),
    deliverDelegations() {
      for (const peer of host.connected()) deliverDelegation(peer);
    },
    hurry: () => reconnect?.hurry(),
    async idle(timeoutMs) {
      const endMs = nowMs() + timeoutMs;
      while (!links.idle() && nowMs() < endMs) await new Promise((resolve) => setTimeout(resolve, limits.idlePollMs));
    },
    async close() {
      clearInterval(tendTimer);
      clearInterval(saveTimer);
      stopListening();
      await reconnect?.close();
      await links.close();
      // Closing a connection of libp2p drops what its TLS has not handed to the socket yet; that takes turns of the event loop.
      await new Promise((resolve) => setTimeout(resolve, limits.flushMs));
      book.save();
      await host.stop();
    },
  };
}

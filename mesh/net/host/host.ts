/**
 * The libp2p host: one TCP port for the control plane. It knows members only, since the door keeps everybody else out;
 * which of them to talk to, and when to try again, is decided elsewhere.
 */
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { keys } from '@libp2p/crypto';
import { gossipsub, StrictNoSign, TopicValidatorResult } from '@libp2p/gossipsub';
import { identify, identifyPush } from '@libp2p/identify';
import type { Connection, Stream } from '@libp2p/interface';
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht';
import { mdns } from '@libp2p/mdns';
import { peerIdFromString } from '@libp2p/peer-id';
import { ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import type { Multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { StatusError } from '../../../protos/status.ts';
import type { NodeId } from '../../core/ids.ts';
import type { Door } from '../admission/door.ts';
import { guarded } from '../admission/guarded.ts';
import type { Identity } from '../identity/identity.ts';
import { announced, fromMultiaddr, type HostPort, toMultiaddr } from './addresses.ts';
import { boundedDiscovery, keepingNoRecords } from './bounded.ts';
import { createGate } from './gate.ts';
import * as limits from './limits.ts';

/** Names everything we speak, so that nobody's public network is mistaken for ours, nor ours for theirs. */
const prefix = 'potluck';

export interface HostOptions {
  readonly identity: Identity;
  readonly door: Door;
  readonly listen: HostPort;
  /** Whether to look for members by multicast on the local network, and to answer. */
  readonly mdns: boolean;
  /** Port of multicast DNS; another than 5353 keeps tests to themselves. */
  readonly mdnsPort?: number;
  readonly onConnected: (peer: NodeId) => void;
  readonly onDisconnected: (peer: NodeId) => void;
  /** Somebody who may be a member, heard of on the local network. */
  readonly onDiscovered: (peer: NodeId, addresses: readonly string[]) => void;
  /** `news` is passed on to others, `known` is not, and `junk` counts against whoever sent it. */
  readonly onGossip: (bytes: Uint8Array) => Gossip;
}

export type Gossip = 'news' | 'known' | 'junk';

export interface Host {
  /** Begins to listen. Throws FAILED_PRECONDITION when the address cannot be listened on. */
  start(): Promise<void>;
  /** Where this host listens and can be reached, `host:port`. */
  addresses(): string[];
  /** Members with an open connection. */
  connected(): NodeId[];
  isConnected(peer: NodeId): boolean;
  /** Where a connected member is connected from or to. */
  remoteAddresses(peer: NodeId): string[];
  /** Addresses a peer gave of itself, as far as they are known. */
  knownAddresses(peer: NodeId): Promise<string[]>;
  /** Keeps addresses for a later `connect`. */
  learn(peer: NodeId, addresses: readonly string[]): Promise<void>;
  /** Connects at known addresses; without any, asks the others through Kademlia. */
  connect(peer: NodeId, options: { readonly signal: AbortSignal }): Promise<void>;
  /** Connects to whoever is there; throws when that is no member. */
  connectTo(address: string, options: { readonly signal: AbortSignal }): Promise<NodeId>;
  open(peer: NodeId, protocol: string, options: { readonly signal: AbortSignal }): Promise<Stream>;
  handle(protocol: string, handler: (stream: Stream, from: NodeId) => void): Promise<void>;
  /** Ends every connection with a peer at once. */
  cut(peer: NodeId, reason: string): void;
  /** To every member that gossip reaches; at most `gossipBytesMax`. */
  gossip(bytes: Uint8Array): Promise<void>;
  stop(): Promise<void>;
}

/** Makes a host that is silent until it is started. */
export async function createHost(options: HostOptions): Promise<Host> {
  const { identity, door } = options;
  const listen = toMultiaddr(`${bracketed(options.listen.host)}:${options.listen.port}`);
  const topic = `/${prefix}/${identity.mesh.id}/news`;
  const node = await createLibp2p({
    privateKey: keys.privateKeyFromRaw(Buffer.concat([identity.key.seed(), identity.key.publicKey])),
    start: false,
    addresses: { listen: [String(listen)], announceFilter: announced },
    transports: [
      tcp({
        inboundSocketInactivityTimeout: limits.socketIdleMs,
        outboundSocketInactivityTimeout: limits.socketIdleMs,
      }),
    ],
    connectionEncrypters: [guarded(tls(), door), guarded(noise(), door)],
    streamMuxers: [yamux({ streamOptions: { initialStreamWindowSize: limits.streamWindowBytes } })],
    connectionGater: createGate((peer) => identity.isRevoked(peer)),
    connectionManager: {
      maxConnections: limits.connectionsMax,
      dialTimeout: limits.dialMs,
      addressDialTimeout: limits.addressDialMs,
      inboundUpgradeTimeout: limits.inboundUpgradeMs,
      inboundConnectionThreshold: limits.inboundPerSecond,
      maxIncomingPendingConnections: limits.inboundPending,
      maxPeerAddrsToDial: limits.addressesPerPeer,
      // Our own loop reconnects, and does not forget who was away for lunch.
      reconnectRetries: 0,
    },
    // One late answer proves nothing; SWIM decides who is gone.
    connectionMonitor: { enabled: false },
    peerStore: { maxAddressAge: limits.peerAgeMs, maxPeerAge: limits.peerAgeMs },
    peerDiscovery: options.mdns
      ? [
          boundedDiscovery(
            mdns({
              serviceTag: serviceTag(identity.mesh.id),
              interval: limits.mdnsMs,
              ...(options.mdnsPort !== undefined && { port: options.mdnsPort }),
            }),
          ),
        ]
      : [],
    services: {
      identify: identify({ protocolPrefix: prefix }),
      identifyPush: identifyPush({ protocolPrefix: prefix }),
      ping: ping({ protocolPrefix: prefix }),
      // It finds and routes to peers; blobs are found through the provider index.
      kad: (components: Parameters<ReturnType<typeof kadDHT>>[0]) =>
        kadDHT({
          protocol: `/${prefix}/kad/1.0.0`,
          clientMode: false,
          peerInfoMapper: passthroughMapper,
          allowQueryWithZeroPeers: true,
        })(keepingNoRecords(components)),
      gossip: gossipsub({
        globalSignaturePolicy: StrictNoSign,
        allowPublishToZeroTopicPeers: true,
        ignoreDuplicatePublishError: true,
        allowedTopics: [topic],
        heartbeatInterval: limits.gossipRoundMs,
        maxInboundDataLength: 4 * limits.gossipBytesMax,
        // Members are known, and many of them may share an address.
        scoreParams: {
          IPColocationFactorWeight: 0,
          behaviourPenaltyWeight: 0,
          decayInterval: limits.gossipRoundMs,
        },
      }),
    },
  });

  const connectionsOf = (peer: NodeId): Connection[] => node.getConnections(peerIdFromString(peer));
  const open = new Map<NodeId, number>();
  node.addEventListener('connection:open', ({ detail }) => {
    const peer = detail.remotePeer.toString();
    const count = (open.get(peer) ?? 0) + 1;
    open.set(peer, count);
    if (count === 1) options.onConnected(peer);
    // The oldest of many are left over from another network, or of somebody who wants all the room.
    const oldestFirst = connectionsOf(peer).sort((a, b) => a.timeline.open - b.timeline.open);
    for (const old of oldestFirst.slice(0, -limits.connectionsPerPeer)) old.abort(new Error('too many connections'));
  });
  node.addEventListener('connection:close', ({ detail }) => {
    const peer = detail.remotePeer.toString();
    const count = (open.get(peer) ?? 0) - 1;
    if (count > 0) {
      open.set(peer, count);
    } else if (open.delete(peer)) {
      options.onDisconnected(peer);
    }
  });
  node.addEventListener('peer:discovery', ({ detail }) => {
    options.onDiscovered(detail.id.toString(), texts(detail.multiaddrs));
  });
  // It is judged before it is passed on, so that nobody spreads junk through others.
  node.services.gossip.topicValidators.set(topic, (_, { data }) =>
    data.byteLength > limits.gossipBytesMax ? gossipResults.junk : gossipResults[options.onGossip(data)],
  );
  return {
    async start() {
      try {
        await node.start();
      } catch (error) {
        await node.stop();
        const { host, port } = options.listen;
        const reason = error instanceof Error ? error.message : String(error);
        throw new StatusError(
          'FAILED_PRECONDITION',
          `the mesh cannot listen on ${host}:${port}; choose another address with --mesh-listen (${reason})`,
          { cause: error },
        );
      }
      node.services.gossip.subscribe(topic);
    },
    addresses: () => texts(node.getMultiaddrs()),
    connected: () => [...open.keys()],
    isConnected: (peer) => open.has(peer),
    remoteAddresses: (peer) => texts(connectionsOf(peer).map(({ remoteAddr }) => remoteAddr)),
    async knownAddresses(peer) {
      const { addresses } = await node.peerStore.getInfo(peerIdFromString(peer)).then(
        ({ multiaddrs }) => ({ addresses: multiaddrs }),
        () => ({ addresses: [] }),
      );
      return texts(addresses);
    },
    async learn(peer, addresses) {
      const multiaddrs = addresses.flatMap((address) => toMultiaddr(address) ?? []).slice(0, limits.addressesPerPeer);
      if (multiaddrs.length > 0) await node.peerStore.merge(peerIdFromString(peer), { multiaddrs });
    },
    async connect(peer, { signal }) {
      await node.dial(peerIdFromString(peer), { signal });
    },
    async connectTo(address, { signal }) {
      const target = toMultiaddr(address);
      if (!target) throw new StatusError('INVALID_ARGUMENT', `"${address}" is no address; write HOST:PORT`);
      const connection = await node.dial(target, { signal });
      return connection.remotePeer.toString();
    },
    open: (peer, protocol, { signal }) =>
      node.dialProtocol(peerIdFromString(peer), protocol, { signal, maxOutboundStreams: 4 }),
    async handle(protocol, handler) {
      await node.handle(protocol, (stream, connection) => handler(stream, connection.remotePeer.toString()), {
        maxInboundStreams: 4,
      });
    },
    cut(peer, reason) {
      for (const connection of connectionsOf(peer)) connection.abort(new Error(reason));
    },
    async gossip(bytes) {
      await node.services.gossip.publish(topic, bytes);
    },
    async stop() {
      const late = new Promise<void>((resolve) => setTimeout(resolve, limits.stopMs).unref());
      await Promise.race([node.stop(), late]);
    },
  };
}

const gossipResults = {
  news: TopicValidatorResult.Accept,
  known: TopicValidatorResult.Ignore,
  junk: TopicValidatorResult.Reject,
} as const satisfies Record<Gossip, TopicValidatorResult>;

/** A DNS label of our own for each mesh, so that several on one network do not meet. */
export function serviceTag(meshId: string): string {
  return `_${prefix}-${meshId.slice(0, 16)}._udp.local`;
}

function texts(addresses: readonly Multiaddr[]): string[] {
  return [...new Set(addresses.flatMap((address) => fromMultiaddr(address) ?? []))];
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

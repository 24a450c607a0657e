/** Bounds of the libp2p host, each with its unit and its reason. */

/** For one address: connecting, encryption and admission over a link of 200 ms need about two seconds. */
export const addressDialMs = 4_000;
/** For all addresses of a peer. */
export const dialMs = 12_000;
/** For an inbound connection until it is admitted. */
export const inboundUpgradeMs = 5_000;
/** Connections a second from one address: the machines of an office come from behind one. */
export const inboundPerSecond = 100;
/** Inbound connections that are not admitted yet: all together, and from one address. */
export const inboundPending = 128;
export const inboundPendingPerAddress = 32;
/** Connections at once, and with one member: two who dial each other at once have two. */
export const connectionsMax = 300;
export const connectionsPerPeer = 4;
/** Peers heard of by multicast that are looked at in a minute; those of a large office within two. */
export const discoveriesPerMinute = 256;
/** A LAN's bandwidth times its delay; control streams carry no blobs. */
export const streamWindowBytes = 1024 * 1024;
/** Sockets without traffic for longer are closed; echoes come more often. */
export const socketIdleMs = 120_000;
/** Addresses tried for one peer. */
export const addressesPerPeer = 8;
/** A peer unseen for so long is forgotten by libp2p; the remembered peers on disk are not. */
export const peerAgeMs = 30 * 24 * 3_600_000;
/** Largest gossip message; what is larger goes over control streams. */
export const gossipBytesMax = 16 * 1024;
/** Who gossips with whom is looked at this often; what is new goes to all neighbours at once. */
export const gossipRoundMs = 5_000;
/** How long stopping may take before it goes on without. */
export const stopMs = 2_000;
/** mDNS questions are this far apart. */
export const mdnsMs = 10_000;
/** Members remembered on disk, and how much older a time of last sight may get there. */
export const rememberedMax = 512;
export const seenStepMs = 3_600_000;
/** How often it is looked whom to dial. */
export const reconnectRoundMs = 1_000;
/** ...when there is nobody to dial. */
export const reconnectRoundMsMax = 5_000;
/** Between two tries at one target: from the first failure, doubling, to the longest. */
export const pauseMsMin = 1_000;
export const pauseMsMax = 60_000;
/** Targets whose pauses are remembered; beyond it those that nobody asked for lately may be tried too early. */
export const pausesMax = 4_096;
/** Dials of our own at once. */
export const dialsAtOnce = 16;
/** Those to whom somebody was just heard to be do not wait for those to addresses that may be old. */
export const heardDialsAtOnce = 48;
/** Addresses tried of those that are heard of one peer. */
export const heardAddresses = 4;
/** With so many members connected, the others are dialled when there is something to say to them. */
export const connectedEnough = 64;

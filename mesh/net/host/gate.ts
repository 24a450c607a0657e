/**
 * Who may connect, as far as libp2p asks before and after the door (admission/guarded.ts): nobody who was revoked, and no
 * address that keeps more connections waiting at the door than an office behind one router would.
 */
import type { ConnectionGater, MultiaddrConnection } from '@libp2p/interface';
import type { NodeId } from '../../core/ids.ts';
import * as limits from './limits.ts';

export function createGate(isRevoked: (peer: NodeId) => boolean): ConnectionGater {
  /** Connections that have not been admitted yet, by the address they come from. */
  const waiting = new Map<string, Set<MultiaddrConnection>>();

  function leave(connection: MultiaddrConnection): void {
    const from = addressOf(connection);
    const others = waiting.get(from);
    others?.delete(connection);
    if (others?.size === 0) waiting.delete(from);
  }

  return {
    denyDialPeer: (peer) => isRevoked(peer.toString()),
    denyDialMultiaddr: () => false,
    denyInboundConnection(connection) {
      const from = addressOf(connection);
      const others = waiting.get(from) ?? new Set();
      if (others.size >= limits.inboundPendingPerAddress) return true;
      waiting.set(from, others.add(connection));
      connection.addEventListener('close', () => leave(connection));
      return false;
    },
    // Everybody else was turned away at the door; this is for who was revoked while coming in.
    denyInboundUpgradedConnection(peer, connection) {
      leave(connection);
      return isRevoked(peer.toString());
    },
    denyOutboundUpgradedConnection: (peer) => isRevoked(peer.toString()),
  };
}

function addressOf({ remoteAddr }: MultiaddrConnection): string {
  return remoteAddr.getComponents()[0]?.value ?? '';
}

/**
 * Puts the door into libp2p: an encrypter that hands a connection on only when its far end was admitted. The upgrader
 * negotiates the muxer afterwards, so identify, kad, gossip and ping do not exist for anybody else.
 */
import { type ConnectionEncrypter, serviceCapabilities } from '@libp2p/interface';
import type { Door } from './door.ts';

/** Wraps the encrypter that `make` makes. */
export function guarded<C>(
  make: (components: C) => ConnectionEncrypter,
  door: Door,
): (components: C) => ConnectionEncrypter {
  return (components) => {
    const inner = make(components);
    const encrypter: ConnectionEncrypter & { [serviceCapabilities]: string[] } = {
      protocol: inner.protocol,
      [serviceCapabilities]: ['@libp2p/connection-encryption'],
      async secureInbound(connection, options) {
        const secured = await inner.secureInbound(connection, options);
        await door.accepted(secured.connection, secured.remotePeer.toString());
        return secured;
      },
      async secureOutbound(connection, options) {
        const secured = await inner.secureOutbound(connection, options);
        await door.dialled(secured.connection, secured.remotePeer.toString());
        return secured;
      },
    };
    return encrypter;
  };
}

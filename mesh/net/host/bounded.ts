/** What other machines can make libp2p remember, within bounds. */
import type { PeerDiscovery } from '@libp2p/interface';
import * as limits from './limits.ts';

/**
 * Passes on so many finds a minute. Anybody on the local network can announce as many peers as it likes, and each would be
 * kept and dialled; members repeat themselves, and are known after the first time.
 */
export function boundedDiscovery<C>(make: (components: C) => PeerDiscovery): (components: C) => PeerDiscovery {
  return (components) => {
    const discovery = make(components);
    const dispatch = discovery.dispatchEvent.bind(discovery);
    let minuteStartMs = Number.NEGATIVE_INFINITY;
    let passed = 0;
    discovery.dispatchEvent = (event) => {
      const nowMs = performance.now();
      if (nowMs - minuteStartMs >= 60_000) [minuteStartMs, passed] = [nowMs, 0];
      passed += 1;
      return passed <= limits.discoveriesPerMinute ? dispatch(event) : true;
    };
    return discovery;
  };
}

/**
 * Components for kad-dht, whose records are kept by nobody: peers are found through its routing table, blobs through the
 * provider index. A member that hands it records would fill the memory with them.
 */
export function keepingNoRecords<C extends object>(components: C): C {
  const refuse = async (): Promise<never> => {
    throw Object.assign(new Error('this node keeps no records'), { name: 'NotFoundError' });
  };
  const nothing = async function* (): AsyncGenerator<never> {};
  const datastore = { put: refuse, get: refuse, has: async () => false, delete: async () => {}, query: nothing };
  return new Proxy(components, {
    get: (target, name) => (name === 'datastore' ? datastore : Reflect.get(target, name)),
  });
}

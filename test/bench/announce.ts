/**
 * `node test/bench/announce.ts [--blobs N] [--rest SECONDS]`: ten members with real sockets in this process. What they cost
 * at rest, what it costs to announce blobs and how long it takes to find one, beside kad-dht's own `provide()` over the
 * same number of libp2p nodes in the same run.
 */
import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { yamux } from '@chainsafe/libp2p-yamux';
import { identify } from '@libp2p/identify';
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht';
import { ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { createLibp2p } from 'libp2p';
import { CID } from 'multiformats/cid';
import { create as createMultihash } from 'multiformats/hashes/digest';
import type { BlobKey } from '../../mesh/core/ids.ts';
import { type ActiveMesh, startActiveMesh } from '../../node/mesh/active-mesh.ts';
import type { SharingWork } from '../../node/mesh/tier.ts';
import { createRealMesh } from '../support/real-mesh.ts';
import { until } from '../support/until.ts';

const nodeCount = 10;
const blobBytes = 1_000;
const batch = 1_000;
const lookups = 1_000;
const provides = 40;
const quietMs = 3_000;

const { values } = parseArgs({
  options: { blobs: { type: 'string', default: '100000' }, rest: { type: 'string', default: '30' } },
});
const blobCount = Number(values.blobs);
const restMs = 1_000 * Number(values.rest);
if (!(blobCount > 0) || !(restMs > 0)) {
  console.error('usage: node test/bench/announce.ts [--blobs N] [--rest SECONDS], both above 0');
  process.exit(2);
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const cpuSeconds = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};
const percentile = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] as number;

/** Waits until nothing changes any more. */
async function settled(value: () => number): Promise<void> {
  let last = value();
  let sinceMs = performance.now();
  await until(() => {
    if (value() !== last) [last, sinceMs] = [value(), performance.now()];
    return performance.now() - sinceMs > quietMs;
  }, 600_000);
}

await using parts = new AsyncDisposableStack();
const mesh = createRealMesh();
parts.defer(() => mesh.close());
const finds = new Map<number, (isHeld: boolean) => void>();
const members: ActiveMesh[] = [];
for (let index = 0; index < nodeCount; index++) {
  const { identity, dataDir } = await mesh.join();
  const bootstrap = members[0]?.network.addresses() ?? [];
  const perform = (work: SharingWork): void => {
    if (work.kind === 'found' && work.done)
      finds.get(work.find)?.(work.found.some(({ holders }) => holders.length > 0));
  };
  const member = await startActiveMesh({
    identity,
    dataDir,
    config: {
      listen: '127.0.0.1:0',
      dataListen: '127.0.0.1:0',
      bootstrap,
      site: '',
      discovery: false,
      trust: 'members',
      uploadBytesPerSecond: undefined,
      replicas: 1,
    },
    openTier: async () => ({
      dataAddress: '127.0.0.1:9',
      held: [],
      capacityBytes: 1e12,
      perform,
      close: async () => {},
    }),
    onLog: () => {},
  });
  members.push(member);
  parts.defer(() => member.close('suspended'));
}
await until(
  () => members.every((one) => one.members().filter(({ status }) => status === 'alive').length === nodeCount - 1),
  120_000,
);
// Forming a mesh moves records around for a while.
await pause(15_000);

const records = (): number => members.reduce((sum, { machine }) => sum + machine.providers.records(), 0);
const restFrom = cpuSeconds();
await pause(restMs);
const restShare = (cpuSeconds() - restFrom) / (restMs / 1_000);
console.log(
  `at rest: ${((100 * restShare) / nodeCount).toFixed(2)} % of one core for each of ${nodeCount} members, over ${restMs / 1_000} s`,
);

const [holder] = members as [ActiveMesh];
const blobs: BlobKey[] = Array.from(
  { length: blobCount },
  () => `sha256/${randomBytes(32).toString('hex')}/${blobBytes}`,
);
const announceFrom = cpuSeconds();
const startedMs = performance.now();
for (let at = 0; at < blobs.length; at += batch) {
  for (const blob of blobs.slice(at, at + batch)) holder.driver.deliver({ kind: 'stored', blob, sizeBytes: blobBytes });
  // Other work of the process gets its turn, as in a node.
  await pause(1);
}
await settled(records);
const announceWallMs = performance.now() - startedMs - quietMs;
const announceCpu = cpuSeconds() - announceFrom - (restShare * (announceWallMs + quietMs)) / 1_000;
console.log(
  `announcing ${blobCount} blobs: ${announceCpu.toFixed(2)} s of CPU in all ${nodeCount} members together, ` +
    `${(announceWallMs / 1_000).toFixed(1)} s, ${records()} records kept`,
);

const times: number[] = [];
let lost = 0;
for (let count = 0; count < lookups; count++) {
  const asker = members[1 + (count % (nodeCount - 1))] as ActiveMesh;
  const blob = blobs[Math.floor((count * blobs.length) / lookups)] as BlobKey;
  const fromMs = performance.now();
  const isHeld = await new Promise<boolean>((resolve) => {
    finds.set(count, resolve);
    asker.driver.deliver({ kind: 'find', find: count, blobs: [blob] });
  });
  finds.delete(count);
  times.push(performance.now() - fromMs);
  if (!isHeld) lost += 1;
}
times.sort((a, b) => a - b);
console.log(
  `${lookups} lookups one after another: p50 ${percentile(times, 0.5).toFixed(2)} ms, p99 ${percentile(times, 0.99).toFixed(2)} ms, ${lost} found nobody`,
);
await parts.disposeAsync();

// The same number of stock nodes; a sample is enough, since every key costs the same.
const stock = await Promise.all(
  Array.from({ length: nodeCount }, () =>
    createLibp2p({
      addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
      transports: [tcp()],
      connectionEncrypters: [tls()],
      streamMuxers: [yamux()],
      connectionManager: { inboundConnectionThreshold: 1_000 },
      services: {
        identify: identify(),
        ping: ping(),
        kad: kadDHT({ protocol: '/bench/kad/1.0.0', clientMode: false, peerInfoMapper: passthroughMapper }),
      },
    }),
  ),
);
for (const [at, node] of stock.entries()) {
  for (const other of stock.slice(at + 1)) await node.dial(other.getMultiaddrs());
}
await until(() => stock.every((node) => node.getConnections().length >= nodeCount - 1));
await pause(5_000);
const stockFrom = cpuSeconds();
for (let count = 0; count < provides; count++) {
  const cid = CID.createV1(0x55, createMultihash(0x12, randomBytes(32)));
  const provider = stock[0] as (typeof stock)[number];
  await provider.contentRouting.provide(cid, { signal: AbortSignal.timeout(30_000) });
}
const each = (cpuSeconds() - stockFrom) / provides;
await Promise.all(stock.map(async (node) => await node.stop()));
console.log(
  `kad-dht provide(), ${provides} keys: ${(1_000 * each).toFixed(1)} ms of CPU each; ${blobCount} of them would take ` +
    `${((each * blobCount) / 60).toFixed(0)} minutes of CPU, ${((each * blobCount) / announceCpu).toFixed(0)} times as much`,
);
process.exit(0);

/**
 * One blob over limited links, between members in this process: striped from three holders, and wanted by nine at once while
 * one has it. Each link carries what `--mbit` says, by the upload cap of its node.
 *
 *     node test/bench/spread.ts [--mib 24] [--mbit 25]
 */
import { createHash, randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { createRealMesh, type TierNode } from '../support/real-mesh.ts';

const { values } = parseArgs({
  options: { mib: { type: 'string', default: '24' }, mbit: { type: 'string', default: '25' } },
});
const sizeBytes = Number(values.mib) * 1024 ** 2;
const uploadBytesPerSecond = (Number(values.mbit) * 1e6) / 8;

function makeBlob() {
  const bytes = randomBytes(sizeBytes);
  return {
    digest: { fn: 'sha256' as const, hash: createHash('sha256').update(bytes).digest('hex'), sizeBytes },
    bytes,
  };
}

async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return (performance.now() - startMs) / 1000;
}

async function withNodes(count: number, run: (nodes: TierNode[]) => Promise<void>): Promise<void> {
  const mesh = createRealMesh();
  const nodes: TierNode[] = [];
  try {
    for (let at = 0; at < count; at++) nodes.push(await mesh.open({ uploadBytesPerSecond }));
    await run(nodes);
  } finally {
    for (const node of nodes) await node[Symbol.asyncDispose]();
    await mesh.close();
  }
}

async function bring(taker: TierNode, digest: ReturnType<typeof makeBlob>['digest']): Promise<void> {
  const absent = await taker.peers.bring([digest]);
  if (absent.length > 0) throw new Error('the blob did not come');
}

let oneSeconds = 0;
for (const holders of [1, 3]) {
  await withNodes(holders + 1, async ([taker, ...others]) => {
    if (!taker) return;
    const { digest, bytes } = makeBlob();
    for (const holder of others) await holder.store.blobs.putMany([{ digest, bytes }]);
    const seconds = await secondsOf(() => bring(taker, digest));
    if (holders === 1) oneSeconds = seconds;
    console.log(
      `${values.mib} MiB from ${holders}: ${seconds.toFixed(1)} s, ${(oneSeconds / seconds).toFixed(2)} times one link`,
    );
  });
}
await withNodes(10, async ([source, ...takers]) => {
  const { digest, bytes } = makeBlob();
  await source?.store.blobs.putMany([{ digest, bytes }]);
  const seconds = await secondsOf(() => Promise.all(takers.map((taker) => bring(taker, digest))));
  const served = source?.peers.tally().servedBytes ?? 0;
  console.log(
    `${takers.length} at once: ${seconds.toFixed(1)} s, ${(seconds / oneSeconds).toFixed(2)} times one transfer; ` +
      `the source sent the blob ${(served / sizeBytes).toFixed(1)} times`,
  );
});

/** Fills a store and dies without closing it. Arguments: data directory, number of small blobs, number of large ones. */
import { openStore } from '../../node/storage/open-store.ts';
import { namedBlob } from './content.ts';

const [dataDir = '', small = '', large = ''] = process.argv.slice(2);
const store = await openStore({ dataDir, sizeLimitBytes: 8 * 1024 ** 3, durability: 'fast' });

async function fill(kind: string, count: number, sizeBytes: number): Promise<void> {
  const batchBlobs = 5_000;
  for (let start = 0; start < count; start += batchBlobs) {
    const length = Math.min(batchBlobs, count - start);
    const blobs = Array.from({ length }, (_, at) => namedBlob(`${kind}${start + at}`, sizeBytes));
    await store.blobs.putMany(blobs);
  }
}

await fill('small', Number(small), 200);
await fill('large', Number(large), 8_100);
process.kill(process.pid, 'SIGKILL');

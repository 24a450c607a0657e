/**
 * Bytes between two nodes, each a process of its own, verified and durable at the receiver: through the tier "peers", and
 * beside it, in the same run, through a plain `node:tls` socket with SHA-256, a file and an fsync.
 *
 *     node test/bench/transfer.ts [--mib 1024] [--blobs 20000] [--rounds 2]
 */
import { type ChildProcess, fork } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import { parseArgs } from 'node:util';
import type { FetchEvent } from '../../mesh/core/fetch/types.ts';
import type { Member } from '../../mesh/core/membership/membership.ts';
import { createTlsIdentity } from '../../mesh/net/data/tls-identity.ts';
import { openIdentity } from '../../mesh/net/identity/identity.ts';
import type { Tier } from '../../node/mesh/tier.ts';
import { createPeerTier } from '../../node/peers/peer-tier.ts';
import { openStore } from '../../node/storage/open-store.ts';
import type { Digest } from '../../protos/digest.ts';
import { createPlanning } from '../support/planning.ts';
import { createRealMesh } from '../support/real-mesh.ts';

const chunkBytes = 256 * 1024;
const smallBytes = 10 * 1024;
/** Files that the reference writes at a time, as the store does. */
const filesAtOnce = 32;

interface Ask {
  readonly do: 'fill' | 'meet' | 'fetch' | 'plain' | 'usage' | 'forget' | 'stop';
  readonly mib?: number;
  readonly count?: number;
  readonly peer?: string;
  readonly dataAddress?: string;
  readonly plainPort?: number;
  readonly digests?: readonly Digest[];
}

interface Usage {
  readonly cpuSeconds: number;
  readonly peakRssBytes: number;
}

const self = new URL(import.meta.url).pathname;
const [role, dataDir = ''] = process.argv.slice(2);
if (role === 'node') await runNode();
else await runBench();

async function runNode(): Promise<void> {
  const identity = openIdentity({ dataDir });
  if (!identity) throw new Error('no identity');
  const store = await openStore({ dataDir: join(dataDir, 'store'), sizeLimitBytes: 16 * 1024 ** 3 });
  const others = new Map<string, string>();
  const members = (): Member[] =>
    [...others.keys()].map((id) => ({ record: { id, attributes: {} }, status: 'alive' }) as unknown as Member);
  const peers = createPeerTier({
    store,
    capacityBytes: 16 * 1024 ** 3,
    listen: '127.0.0.1:0',
    members,
    trust: 'members',
    onLog: (level, message) => void (level === 'warning' && console.error(message)),
  });
  let tier: Tier | undefined;
  const planning = createPlanning(identity.peerId, (effect) => tier?.perform(effect as never));
  tier = await peers.open({
    identity,
    deliver: (event) => {
      planning.deliver(event as FetchEvent);
    },
    dataAddressesOf: (peer) => [others.get(peer) ?? ''].filter((address) => address !== ''),
  });
  const tls = await createTlsIdentity();
  let large: Digest | undefined;
  let peakRssBytes = 0;
  setInterval(() => (peakRssBytes = Math.max(peakRssBytes, process.memoryUsage.rss())), 20).unref();

  // The reference: the bytes of the large file, or of the small blobs one behind the other.
  const small: Buffer[] = [];
  const plain = createTlsServer({ key: tls.key, cert: tls.cert, minVersion: 'TLSv1.3' }, (socket) => {
    socket.on('error', () => {});
    socket.once('data', (what: Buffer) => {
      void (async () => {
        const write = async (bytes: Uint8Array): Promise<void> => {
          if (!socket.write(bytes)) await new Promise((resolve) => socket.once('drain', resolve));
        };
        if (what.toString() === 'small') {
          for (const bytes of small) await write(bytes);
        } else {
          const file = await open(join(dataDir, 'large'));
          for (;;) {
            const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(chunkBytes), 0, chunkBytes);
            if (bytesRead === 0) break;
            await write(buffer.subarray(0, bytesRead));
          }
          await file.close();
        }
        socket.end();
      })();
    });
  });
  await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));

  async function fill(mib: number, count: number): Promise<Digest[]> {
    const block = randomBytes(chunkBytes);
    const hash = createHash('sha256');
    const file = await open(join(dataDir, 'large'), 'w');
    for (let at = 0; at < mib * 4; at++) {
      block.writeUInt32LE(at);
      hash.update(block);
      await file.writeFile(block);
    }
    await file.close();
    large = await store.blobs.putFile('sha256', join(dataDir, 'large'));
    const digests: Digest[] = [];
    for (let at = 0; at < count; at += 500) {
      const blobs = Array.from({ length: Math.min(500, count - at) }, () => {
        const bytes = randomBytes(smallBytes);
        return {
          digest: {
            fn: 'sha256' as const,
            hash: createHash('sha256').update(bytes).digest('hex'),
            sizeBytes: smallBytes,
          },
          bytes,
        };
      });
      small.push(...blobs.map(({ bytes }) => bytes));
      digests.push(...blobs.map(({ digest }) => digest));
      await store.blobs.putMany(blobs);
    }
    return [large, ...digests];
  }

  async function fetchAll(digests: readonly Digest[]): Promise<void> {
    const absent = await peers.bring(digests);
    if (absent.length > 0) throw new Error(`${absent.length} blobs did not come`);
  }

  async function receivePlain(port: number, what: 'large' | 'small'): Promise<void> {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
    await new Promise((resolve) => socket.once('secureConnect', resolve));
    socket.write(what);
    if (what === 'large') {
      const file = await open(join(dataDir, 'plain'), 'w');
      const hash = createHash('sha256');
      let writing: Promise<unknown> = Promise.resolve();
      let parts: Buffer[] = [];
      let bytes = 0;
      for await (const chunk of socket as AsyncIterable<Buffer>) {
        hash.update(chunk);
        parts.push(chunk);
        bytes += chunk.length;
        if (bytes >= 2 * chunkBytes) {
          await writing;
          writing = file.writev(parts);
          parts = [];
          bytes = 0;
        }
      }
      await writing;
      if (parts.length > 0) await file.writev(parts);
      hash.digest('hex');
      await file.sync();
      await file.close();
      await rm(join(dataDir, 'plain'));
      return;
    }
    const writing = new Set<Promise<void>>();
    let rest = Buffer.alloc(0);
    let count = 0;
    const store1 = async (bytes: Buffer, path: string): Promise<void> => {
      createHash('sha256').update(bytes).digest('hex');
      const file = await open(path, 'w');
      await file.writeFile(bytes);
      await file.sync();
      await file.close();
      await rm(path);
    };
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      rest = Buffer.concat([rest, chunk]);
      for (; rest.length >= smallBytes; rest = rest.subarray(smallBytes)) {
        const stored = store1(rest.subarray(0, smallBytes), join(dataDir, `plain-${count++}`));
        writing.add(stored);
        void stored.finally(() => writing.delete(stored));
        if (writing.size >= filesAtOnce) await Promise.race(writing);
      }
    }
    await Promise.all(writing);
  }

  const answers: { readonly [A in Ask['do']]: (ask: Ask) => Promise<unknown> } = {
    fill: ({ mib = 0, count = 0 }) => fill(mib, count),
    async meet({ peer = '', dataAddress = '' }) {
      others.set(peer, dataAddress);
      planning.setMember(peer, true, 'subnet');
    },
    fetch: ({ digests = [] }) => fetchAll(digests),
    plain: ({ plainPort = 0, count = 0 }) => receivePlain(plainPort, count > 0 ? 'small' : 'large'),
    async usage(): Promise<Usage> {
      const { user, system } = process.cpuUsage();
      const usage = {
        cpuSeconds: (user + system) / 1e6,
        peakRssBytes: Math.max(peakRssBytes, process.memoryUsage.rss()),
      };
      peakRssBytes = 0;
      return usage;
    },
    forget: async () => void (await store.gc({ targetBytes: 0 })),
    async stop() {
      await tier?.close();
      planning.close();
      plain.close();
      await store.close();
      setImmediate(() => process.disconnect());
    },
  };
  process.on('message', (ask: Ask) => {
    answers[ask.do](ask).then(
      (answer) => process.send?.({ answer: answer ?? null }),
      (error: Error) => process.send?.({ error: error.stack }),
    );
  });
  const facts = {
    peer: identity.peerId,
    dataAddress: tier.dataAddress,
    plainPort: (plain.address() as AddressInfo).port,
  };
  process.send?.({ answer: facts });
}

async function runBench(): Promise<void> {
  const { values } = parseArgs({
    options: {
      mib: { type: 'string', default: '1024' },
      blobs: { type: 'string', default: '20000' },
      rounds: { type: 'string', default: '2' },
    },
  });
  const [mib, count, rounds] = [values.mib, values.blobs, values.rounds].map(Number) as [number, number, number];
  const mesh = createRealMesh();
  const root = await mkdtemp(join(tmpdir(), 'potluck-transfer-'));
  const children: ChildProcess[] = [];
  try {
    const [giver, taker] = [await start(), await start()];
    const [large, ...small] = (await giver.ask({ do: 'fill', mib, count })) as Digest[];
    if (!large) throw new Error('nothing to send');
    await taker.ask({ do: 'meet', peer: giver.facts.peer, dataAddress: giver.facts.dataAddress });
    for (const [name, digests, unit, amount] of [
      [`one blob of ${mib} MiB`, [large], 'MB/s', (mib * 1024 ** 2) / 1e6],
      [`${count} blobs of 10 KiB`, small, 'blobs/s', count],
    ] satisfies [string, Digest[], string, number][]) {
      if (digests.length === 0) continue;
      for (let round = 0; round < rounds; round++) {
        const throughTier = async () => {
          const seen = await measured({ do: 'fetch', digests });
          await taker.ask({ do: 'forget' });
          return seen;
        };
        const plainPort = giver.facts.plainPort;
        const throughSocket = () => measured({ do: 'plain', plainPort, count: digests === small ? count : 0 });
        // By turns: whoever is first writes into memory that the system has to find.
        const early = round % 2 === 0 ? undefined : await throughSocket();
        const ours = await throughTier();
        const plain = early ?? (await throughSocket());
        const gib = digests.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) / 1024 ** 3;
        const show = ({ seconds, gaveCpu, tookCpu, gaveRss, tookRss }: Measured): string =>
          `${(amount / seconds).toFixed(0)} ${unit}, CPU s/GiB: giver ${(gaveCpu / gib).toFixed(2)}, taker ` +
          `${(tookCpu / gib).toFixed(2)}, peak RSS MB: ${(gaveRss / 1e6).toFixed(0)}, ${(tookRss / 1e6).toFixed(0)}`;
        console.log(`${name}: ${show(ours)}`);
        console.log(`  plain TLS:  ${show(plain)}`);
        console.log(`  ratio ${(plain.seconds / ours.seconds).toFixed(2)}`);
      }
    }

    interface Measured {
      readonly seconds: number;
      readonly gaveCpu: number;
      readonly tookCpu: number;
      readonly gaveRss: number;
      readonly tookRss: number;
    }

    async function measured(ask: Ask): Promise<Measured> {
      const before = await usages();
      const startMs = performance.now();
      await taker.ask(ask);
      const seconds = (performance.now() - startMs) / 1000;
      const after = await usages();
      return {
        seconds,
        gaveCpu: after.gave.cpuSeconds - before.gave.cpuSeconds,
        tookCpu: after.took.cpuSeconds - before.took.cpuSeconds,
        gaveRss: after.gave.peakRssBytes,
        tookRss: after.took.peakRssBytes,
      };
    }

    async function usages(): Promise<{ gave: Usage; took: Usage }> {
      return { gave: (await giver.ask({ do: 'usage' })) as Usage, took: (await taker.ask({ do: 'usage' })) as Usage };
    }
    for (const node of [giver, taker]) {
      const ended = once(node.child, 'exit');
      await node.ask({ do: 'stop' });
      await ended;
    }
  } finally {
    for (const child of children) child.kill();
    await mesh.close();
    await rm(root, { recursive: true, force: true });
  }

  async function start() {
    const { dataDir: dir } = await mesh.join();
    const child = fork(self, ['node', dir]);
    children.push(child);
    const next = (): Promise<unknown> =>
      new Promise((resolve, reject) => {
        child.once('message', (message: { answer?: unknown; error?: string }) => {
          if (message.error !== undefined) reject(new Error(message.error));
          else resolve(message.answer);
        });
      });
    const facts = (await next()) as { peer: string; dataAddress: string; plainPort: number };
    return {
      child,
      facts,
      ask(ask: Ask): Promise<unknown> {
        const answer = next();
        child.send(ask);
        return answer;
      },
    };
  }
}

/**
 * `node test/bench/soak.ts [--minutes N] [--nodes N]`: real nodes in one mesh, a process each. What each costs at rest, and
 * whether memory, files and sockets grow while blobs and results travel between them. Linux only, since it reads /proc.
 */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { parseArgs, promisify } from 'node:util';
import { entry, type NodeProcess, startNode } from '../support/node-process.ts';
import { ContentAddressableStorage } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { connectGrpc, type GrpcClient } from '../../node/reapi/grpc-client.ts';
import { until } from '../support/until.ts';

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '30' }, nodes: { type: 'string', default: '10' } },
});
const soakMinutes = Number(values.minutes);
const nodeCount = Number(values.nodes);
if (!(soakMinutes > 0) || !(nodeCount >= 2) || process.platform !== 'linux') {
  console.error('usage: node test/bench/soak.ts [--minutes N] [--nodes N], on Linux, at least two nodes');
  process.exit(2);
}
const alone = ['--mesh-discovery', 'off', '--mesh-listen', '127.0.0.1:0', '--mesh-data-listen', '127.0.0.1:0'];
type CasClient = GrpcClient<typeof ContentAddressableStorage>;
const settleMs = 90_000;
const restMs = 60_000;
const blobsPerSecond = 5;
const blobBytes = 20_000;
const ticksPerSecond = 100;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function potluck(...args: string[]): Promise<string> {
  return (await promisify(execFile)(process.execPath, [entry, ...args])).stdout;
}

async function cpuSeconds(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

interface Sample {
  readonly residentMiB: number;
  readonly files: number;
}

async function sample(pid: number): Promise<Sample> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8');
  const files = (await readdir(`/proc/${pid}/fd`)).length;
  return { residentMiB: Number(/VmRSS:\s+(\d+)/.exec(text)?.[1]) / 1024, files };
}

interface Put {
  readonly digest: { readonly hash: string; readonly sizeBytes: bigint };
  readonly data: Buffer;
  readonly at: number;
}

async function put(at: number): Promise<Put> {
  const data = randomBytes(blobBytes);
  const digest = { hash: createHash('sha256').update(data).digest('hex'), sizeBytes: BigInt(blobBytes) };
  await (clients[at] as CasClient).batchUpdateBlobs({ requests: [{ digest, data }] });
  return { digest, data, at };
}

/** From another node than the one that has it: it must fetch it from there. */
async function get({ digest, data, at }: Put, step: number): Promise<void> {
  const client = clients[(at + 1 + step) % nodeCount] as CasClient;
  const [answer] = (await client.batchReadBlobs({ digests: [digest] })).responses;
  if (answer && data.equals(answer.data)) exchanged += 1;
  else missed += 1;
}

let exchanged = 0;
let missed = 0;
await using parts = new AsyncDisposableStack();
const nodes: NodeProcess[] = [];
for (let index = 0; index < nodeCount; index++) {
  const node = parts.use(await startNode({ args: [...alone, '--cache-size', '256MiB'] }));
  const [first] = nodes;
  nodes.push(node);
  if (!first) continue;
  const { token } = JSON.parse(await potluck('invite', '--json', '--data-dir', first.dataDir)) as { token: string };
  await potluck('join', token, '--data-dir', node.dataDir);
}
const alive = async (node: NodeProcess): Promise<number> =>
  ((await node.status()) as { mesh: { members: { alive: number } } }).mesh.members.alive;
await until(async () => (await Promise.all(nodes.map(alive))).every((count) => count === nodeCount - 1), 300_000);
await pause(settleMs);

const connections = nodes.map(({ grpc }) => connectGrpc(grpc));
parts.defer(() => {
  for (const connection of connections) connection.close();
});
const clients = connections.map((connection) => connection.client(ContentAddressableStorage));
const pids = nodes.map(({ child }) => child.pid as number);
const before = await Promise.all(pids.map(cpuSeconds));
await pause(restMs);
const after = await Promise.all(pids.map(cpuSeconds));
const shares = after.map((seconds, at) => (100 * (seconds - (before[at] as number))) / (restMs / 1_000));
const atRest = await Promise.all(pids.map(sample));
const mean = (all: readonly number[]): number => all.reduce((sum, one) => sum + one, 0) / all.length;
console.log(
  `at rest, ${nodeCount} nodes: ${mean(shares).toFixed(2)} % of one core each (most: ${Math.max(...shares).toFixed(2)} %), ` +
    `${mean(atRest.map(({ residentMiB }) => residentMiB)).toFixed(0)} MiB resident each (most: ${Math.max(...atRest.map(({ residentMiB }) => residentMiB)).toFixed(0)})`,
);

console.log('minute  exchanged  missed  MiB mean  MiB most  files mean');
const endMs = performance.now() + soakMinutes * 60_000;
let minute = 0;
let nextRowMs = performance.now();
for (let round = 0; performance.now() < endMs; round++) {
  const puts = await Promise.all(Array.from({ length: blobsPerSecond }, (_, at) => put((round + at) % nodeCount)));
  // Announcements are gathered for a tenth of a second.
  await pause(1_000);
  await Promise.all(puts.map((one) => get(one, round % (nodeCount - 1))));
  if (performance.now() < nextRowMs) continue;
  const samples = await Promise.all(pids.map(sample));
  const memory = samples.map(({ residentMiB }) => residentMiB);
  console.log(
    [String(minute).padStart(6), String(exchanged).padStart(9), String(missed).padStart(6)].join('  ') +
      `  ${mean(memory).toFixed(0).padStart(8)}  ${Math.max(...memory)
        .toFixed(0)
        .padStart(8)}  ${mean(samples.map(({ files }) => files))
        .toFixed(1)
        .padStart(10)}`,
  );
  minute += 1;
  nextRowMs += 60_000;
}

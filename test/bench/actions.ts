/** The fixed cost of an action: Execute of a command that does nothing, beside spawning it bare. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { type MessageInitShape, create, toBinary } from '@bufbuild/protobuf';
import { toWireDigest } from '../../protos/digest.ts';
import {
  ActionSchema,
  BatchUpdateBlobsRequestSchema,
  CommandSchema,
  DirectorySchema,
  ExecuteRequestSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../protos/hasher.ts';
import { type Row, median, quantile } from './measure.ts';
import { call, frame, openSession } from './wire.ts';

const actions = 60;
const inputFiles = 50;
const inputPackages = 5;

/** Spawns and waits; milliseconds. */
export function spawnMs(program: string, args: readonly string[]): Promise<number> {
  const start = performance.now();
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'ignore' });
    child.on('error', reject);
    child.on('exit', (code) =>
      code === 0 ? resolve(performance.now() - start) : reject(new Error(`${program} exited with ${String(code)}`)),
    );
  });
}

/** The bare command a sandboxed action cannot be cheaper than. */
export const bareBwrap = [
  '--unshare-all',
  '--die-with-parent',
  '--ro-bind',
  '/',
  '/',
  '--dev',
  '/dev',
  '--proc',
  '/proc',
  '/bin/true',
];

export async function benchActions(address: string, isolation: string): Promise<{ rows: Row[]; notes: string[] }> {
  const session = openSession(address);
  try {
    const blobs: Uint8Array[] = [];
    const keep = (bytes: Uint8Array) => {
      blobs.push(bytes);
      return toWireDigest(digestOf('sha256', bytes));
    };
    const directory = (init: MessageInitShape<typeof DirectorySchema>) =>
      keep(toBinary(DirectorySchema, create(DirectorySchema, init)));
    const header = (name: string) => ({ name, digest: keep(Buffer.from(`${name}\n`.repeat(100))) });
    const named = (count: number, prefix: string) => Array.from({ length: count }, (_, i) => `${prefix}${i}`);
    const command = keep(
      toBinary(CommandSchema, create(CommandSchema, { arguments: ['/bin/true'], outputPaths: ['out/none'] })),
    );
    // In directories of their own, as the sources of a package are.
    const packages = named(inputPackages, 'package').map((name) => ({
      name,
      digest: directory({ files: named(inputFiles / inputPackages, `${name}-in`).map(header) }),
    }));
    const roots = { empty: directory({}), inputs: directory({ directories: packages }) };
    /** A distinct action each time (by its salt), so that every one is run. */
    const makeRequests = (inputRootDigest: typeof command) =>
      Array.from({ length: actions }, () => {
        const action = keep(
          toBinary(
            ActionSchema,
            create(ActionSchema, { commandDigest: command, inputRootDigest, salt: Buffer.from(randomUUID()) }),
          ),
        );
        return frame(toBinary(ExecuteRequestSchema, create(ExecuteRequestSchema, { actionDigest: action })));
      });
    const plain = makeRequests(roots.empty);
    const withInputs = makeRequests(roots.inputs);
    const busy = [...makeRequests(roots.inputs), ...makeRequests(roots.inputs)];
    await call(session, '/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs', [
      frame(
        toBinary(
          BatchUpdateBlobsRequestSchema,
          create(BatchUpdateBlobsRequestSchema, {
            requests: blobs.map((data) => ({ digest: toWireDigest(digestOf('sha256', data)), data })),
          }),
        ),
      ),
    ]);
    const execute = async (request: Buffer) => {
      const start = performance.now();
      await call(session, '/build.bazel.remote.execution.v2.Execution/Execute', [request]);
      return performance.now() - start;
    };
    const bare = () => (isolation === 'bubblewrap' ? spawnMs('bwrap', bareBwrap) : spawnMs('/bin/true', []));
    const bareName = isolation === 'bubblewrap' ? 'bare bwrap /bin/true' : 'bare /bin/true';

    const rows: Row[] = [];
    const notes: string[] = [];
    for (const [name, requests] of [
      ['trivial action, no inputs', plain],
      [`trivial action, ${inputFiles} inputs`, withInputs],
    ] as const) {
      const ours: number[] = [];
      const reference: number[] = [];
      for (const request of requests) {
        ours.push(await execute(request));
        reference.push(await bare());
      }
      // The first ones warm caches on both sides.
      const [a, b] = [ours.slice(10), reference.slice(10)];
      rows.push({
        name,
        unit: 'ms',
        referenceName: bareName,
        ours: median(a),
        reference: median(b),
        ratio: median(a) / median(b),
      });
      notes.push(`${name}: p99 ${quantile(a, 0.99).toFixed(1)} ms`);
    }
    const inFlight = 4;
    const rate = async (each: (index: number) => Promise<unknown>, count: number) => {
      const start = performance.now();
      let next = 0;
      await Promise.all(
        Array.from({ length: inFlight }, async () => {
          while (next < count) await each(next++);
        }),
      );
      return count / ((performance.now() - start) / 1000);
    };
    const ours = await rate((index) => execute(busy[index] as Buffer), busy.length);
    const reference = await rate(bare, busy.length);
    rows.push({
      name: `trivial actions, ${inputFiles} inputs, ${inFlight} in flight`,
      unit: 'actions/s',
      referenceName: bareName,
      ours,
      reference,
      ratio: ours / reference,
    });
    return { rows, notes };
  } finally {
    session.destroy();
  }
}

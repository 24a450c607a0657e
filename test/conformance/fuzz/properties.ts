/** Properties of any REAPI server under requests that make little sense. */
import { create, toBinary } from '@bufbuild/protobuf';
import type { DescMethod } from '@bufbuild/protobuf';
import fc from 'fast-check';
import assert from 'node:assert';
import { randomUUID } from 'node:crypto';
import type { Digest } from '../../../protos/digest.ts';
import {
  ActionCache,
  Capabilities,
  ContentAddressableStorage,
  type DirectorySchema as Schema,
  DirectorySchema,
  Execution,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { Operations } from '../../../protos/gen/google/longrunning/operations_pb.ts';
import type { Code } from '../../../protos/status.ts';
import { execute, failureOf, putAction } from '../actions.ts';
import type { Outcome } from '../client.ts';
import type { Context } from '../context.ts';
import {
  digestOf,
  isMissing,
  put,
  putMessage,
  readBlob,
  readName,
  wire,
  wireFn,
  writeBlob,
  writeName,
} from '../fixtures.ts';
import { started } from '../rules/execution.ts';

const cas = ContentAddressableStorage.method;
/** What a server may say to a request that is wrong or names nothing. */
const refusals: readonly Code[] = [
  'OK',
  'NOT_FOUND',
  'INVALID_ARGUMENT',
  'OUT_OF_RANGE',
  'FAILED_PRECONDITION',
  'RESOURCE_EXHAUSTED',
];

export interface FuzzProperty {
  readonly name: string;
  /** One run costs about this many runs of the cheapest property. */
  readonly weight: number;
  property(context: Context): fc.IAsyncProperty<[unknown, ...unknown[]]> | fc.IAsyncPropertyWithHooks<never>;
}

function answered(what: string, outcome: Pick<Outcome, 'code' | 'message'>, codes: readonly Code[] = refusals): void {
  assert(codes.includes(outcome.code), `${what}: ${outcome.code} ${outcome.message}`);
}

const segment = fc.oneof(
  fc.constantFrom(
    'blobs',
    'uploads',
    'compressed-blobs',
    'zstd',
    'identity',
    'blake3',
    'sha256',
    'actions',
    '',
    '.',
    '..',
    '%2e%2e',
  ),
  fc.string({ unit: 'grapheme', maxLength: 12 }),
  fc.stringMatching(/^[0-9a-f]{64}$/),
  fc.stringMatching(/^-?\d{1,20}$/),
  fc.uuid(),
);
const resourceName = fc.array(segment, { maxLength: 9 }).map((segments) => segments.join('/'));
const wireDigest = fc.record({
  hash: fc.oneof(
    fc.stringMatching(/^[0-9a-f]{64}$/),
    fc.stringMatching(/^[0-9a-fA-F]{0,130}$/),
    fc.string({ unit: 'grapheme', maxLength: 80 }),
  ),
  sizeBytes: fc.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.bigInt({ min: 0n, max: 1000n })),
});
const digestFunction = fc.oneof(fc.constantFrom(0, 1, 9), fc.integer({ min: 0, max: 40 }));

const names: FuzzProperty = {
  name: 'resource names',
  weight: 1,
  property: (context) =>
    fc.asyncProperty(resourceName, fc.bigInt({ min: -5n, max: 5n }), async (name, number) => {
      answered(`Read ${name}`, await readBlob(context, name, { offset: number, limit: number }));
      const write = await writeBlob(context, name, Buffer.from('x'));
      answered(`Write ${name}`, write);
      const status = await context.client.unary(ByteStream.method.queryWriteStatus, { resourceName: name });
      answered(`QueryWriteStatus ${name}`, status);
      const wait = await context.client.collect(Execution.method.waitExecution, { name });
      answered(`WaitExecution ${name}`, wait, [...refusals, 'UNIMPLEMENTED']);
    }),
};

const digests: FuzzProperty = {
  name: 'digests',
  weight: 1,
  property: (context) =>
    fc.asyncProperty(fc.array(wireDigest, { maxLength: 20 }), digestFunction, async (list, fn) => {
      const request = { instanceName: context.instance, digestFunction: fn as 0 };
      const { client } = context;
      const find = await client.unary(cas.findMissingBlobs, { ...request, blobDigests: list });
      answered('FindMissingBlobs', find);
      const known = new Set(list.map((digest) => `${digest.hash}/${digest.sizeBytes}`));
      for (const digest of find.response?.missingBlobDigests ?? []) {
        assert(known.has(`${digest.hash}/${digest.sizeBytes}`), 'FindMissingBlobs lists what was not asked for');
      }
      answered('BatchReadBlobs', await client.unary(cas.batchReadBlobs, { ...request, digests: list }));
      const requests = list.map((digest) => ({ digest, data: Buffer.from('never these bytes') }));
      const update = await client.unary(cas.batchUpdateBlobs, { ...request, requests });
      answered('BatchUpdateBlobs', update);
      for (const entry of update.response?.responses ?? []) assert(entry.status?.code, 'wrong bytes were taken');
      const [actionDigest] = list;
      if (!actionDigest) return;
      answered('GetActionResult', await client.unary(ActionCache.method.getActionResult, { ...request, actionDigest }));
      answered('GetTree', await client.collect(cas.getTree, { ...request, rootDigest: actionDigest }));
      answered('Execute', await client.collect(Execution.method.execute, { ...request, actionDigest }), [
        ...refusals,
        'UNIMPLEMENTED',
      ]);
    }),
};

type Step =
  | {
      readonly do: 'send';
      readonly stream: number;
      readonly bytes: number;
      readonly shift: number;
      readonly finish: boolean;
    }
  | { readonly do: 'half-close' | 'cancel' | 'query' | 'restart'; readonly stream: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('send' as const),
      stream: fc.nat(3),
      bytes: fc.nat(60_000),
      shift: fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, fc.integer({ min: -3, max: 3 })),
      finish: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, fc.constant(true)),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('half-close' as const, 'cancel' as const, 'query' as const, 'restart' as const),
      stream: fc.nat(3),
    }),
  },
);

const writes: FuzzProperty = {
  name: 'interleaved uploads',
  weight: 4,
  property: (context) =>
    fc.asyncProperty(
      fc.array(step, { maxLength: 30 }),
      fc.array(fc.integer({ min: 1, max: 150_000 }), { minLength: 2, maxLength: 2 }),
      async (steps, sizes) => {
        const blobs = sizes.map((size) => context.fresh(size));
        // Four streams: two a blob, of which the second pair shares one uuid.
        const uuid = randomUUID();
        const target = (stream: number) => blobs[stream % 2] as Buffer;
        const names = [0, 1, 2, 3].map((stream) =>
          writeName(context, digestOf(context.fn, target(stream)), stream < 2 ? {} : { uuid }),
        );
        const open = names.map(() => undefined as ReturnType<typeof start> | undefined);
        const start = () => ({ upload: context.client.upload(ByteStream.method.write), at: 0, first: true });
        const replies: Promise<Outcome>[] = [];
        for (const one of steps) {
          const name = names[one.stream] as string;
          const stream = (open[one.stream] ??= start());
          if (stream.first) replies.push(stream.upload.reply);
          if (one.do === 'send') {
            const data = target(one.stream).subarray(stream.at, stream.at + one.bytes);
            const writeOffset = BigInt(stream.at + one.shift);
            await stream.upload.send({
              resourceName: stream.first ? name : '',
              writeOffset,
              data,
              finishWrite: one.finish,
            });
            stream.at += data.byteLength;
            stream.first = false;
          } else if (one.do === 'half-close') stream.upload.halfClose();
          else if (one.do === 'query') {
            const status = await context.client.unary(ByteStream.method.queryWriteStatus, { resourceName: name });
            answered('QueryWriteStatus', status);
            const committed = Number(status.response?.committedSize ?? 0n);
            assert(
              committed <= target(one.stream).byteLength,
              `${committed} of ${target(one.stream).byteLength} bytes committed`,
            );
          } else {
            stream.upload.cancel();
            open[one.stream] = undefined;
          }
        }
        for (const stream of open) stream?.upload.halfClose();
        for (const reply of replies) answered('Write', await reply, [...refusals, 'CANCELLED', 'ABORTED']);
        for (const bytes of blobs) {
          const digest = digestOf(context.fn, bytes);
          if (!(await isMissing(context, digest))) {
            const read = await readBlob(context, readName(context, digest));
            assert(read.code === 'OK' && read.bytes.equals(bytes), 'what is visible is not the blob');
          }
          answered('the whole upload after all', await writeBlob(context, writeName(context, digest), bytes), ['OK']);
          assert(!(await isMissing(context, digest)), 'the whole upload is not there');
        }
      },
    ),
};

/** Shared directories become many when they are laid out for an action. */
const executedPathsMax = 1000;

/** Directories that refer to earlier ones only; some are never stored. */
const graph = fc.array(
  fc.record({
    children: fc.array(fc.nat(30), { maxLength: 4 }),
    files: fc.array(fc.record({ name: fc.stringMatching(/^[a-z]{1,3}$/), lost: fc.nat(12) }), { maxLength: 3 }),
    lost: fc.nat(12),
  }),
  { minLength: 1, maxLength: 20 },
);

const directories: FuzzProperty = {
  name: 'directory graphs',
  weight: 6,
  property: (context) =>
    fc.asyncProperty(graph, async (nodes) => {
      const stored: (Digest & { lost: boolean; whole: boolean; below: Set<string>; paths: number })[] = [];
      for (const node of nodes) {
        const children = [...new Set(node.children.map((child) => child % Math.max(stored.length, 1)))]
          .filter((child) => child < stored.length)
          .toSorted((a, b) => a - b);
        const files = new Map(node.files.map((file) => [file.name, file.lost === 0]));
        let whole = true;
        const fileNodes: { name: string; digest: ReturnType<typeof wire> }[] = [];
        for (const [name, lost] of [...files].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
          const content = context.fresh(40);
          if (lost) whole = false;
          else await put(context, content);
          fileNodes.push({ name, digest: wire(digestOf(context.fn, content)) });
        }
        const message = create(DirectorySchema, {
          files: fileNodes,
          // Without a mark a directory might be the same as one of an earlier run, and thus not lost.
          symlinks:
            files.size + children.length === 0 ? [] : [{ name: '_mark', target: context.fresh(8).toString('hex') }],
          directories: children.map((child) => ({
            name: `D${String(child).padStart(2, '0')}`,
            digest: wire(stored[child] as Digest),
          })),
        });
        const digest = digestOf(context.fn, toBinary(DirectorySchema, message));
        const empty = digest.sizeBytes === 0;
        const lost = node.lost === 0 && !empty;
        if (!lost) await putMessage(context, DirectorySchema as typeof Schema, message);
        const below = new Set<string>();
        let paths = 1;
        for (const child of children) {
          const known = stored[child];
          if (!known || !known.whole) whole = false;
          paths += known?.paths ?? 0;
          if (known && !known.lost) for (const hash of [known.hash, ...known.below]) below.add(hash);
        }
        const twin = stored.find((other) => other.hash === digest.hash);
        stored.push(twin ?? { ...digest, lost, whole: whole && !lost, below, paths });
      }
      const root = stored.at(-1);
      assert(root);
      const reply = await context.client.collect(cas.getTree, {
        instanceName: context.instance,
        rootDigest: wire(root),
        digestFunction: wireFn(context.fn),
      });
      if (root.lost) answered('GetTree of a lost root', reply, ['NOT_FOUND']);
      else {
        answered('GetTree', reply, ['OK']);
        const got = new Set(
          reply.messages.flatMap((page) =>
            page.directories.map((each) => digestOf(context.fn, toBinary(DirectorySchema, each)).hash),
          ),
        );
        const expected = new Set([root.hash, ...root.below]);
        assert.deepEqual([...got].toSorted(), [...expected].toSorted(), 'GetTree: other directories');
      }
      if (context.lacks(['execution']) || root.paths > executedPathsMax) return;
      const done = failureOf(await execute(context, await putAction(context, { inputRoot: root, script: 'true' })));
      answered(root.whole ? 'Execute' : 'Execute without some inputs', done, [
        root.whole ? 'OK' : 'FAILED_PRECONDITION',
      ]);
    }),
};

const methods: readonly DescMethod[] = [
  ActionCache,
  Capabilities,
  ContentAddressableStorage,
  Execution,
  Operations,
  ByteStream,
].flatMap((service) =>
  service.methods.filter((method) => method.methodKind === 'unary' || method.methodKind === 'server_streaming'),
);

const messages: FuzzProperty = {
  name: 'bytes that are no messages',
  weight: 1,
  property: (context) =>
    fc.asyncProperty(fc.constantFrom(...methods), fc.uint8Array({ maxLength: 300 }), async (method, bytes) => {
      const outcome =
        method.methodKind === 'unary'
          ? await context.client.unary(method as never, Buffer.from(bytes))
          : await context.client.collect(method as never, Buffer.from(bytes));
      answered(`${method.name} of ${Buffer.from(bytes).toString('hex')}`, outcome, [
        ...refusals,
        'UNIMPLEMENTED',
        'INTERNAL',
      ]);
    }),
};

const executions: FuzzProperty = {
  name: 'executions that are left',
  weight: 10,
  property: (context) =>
    fc.asyncProperty(
      fc.array(fc.constantFrom('stay', 'leave', 'cancel', 'wait'), { minLength: 1, maxLength: 4 }),
      fc.boolean(),
      async (clients, doNotCache) => {
        if (context.lacks(['execution'])) return;
        const action = await putAction(context, {
          script: 'sleep 0.3; echo done > out',
          outputPaths: ['out'],
          doNotCache,
        });
        await Promise.all(
          clients.map(async (what) => {
            const run = await started(context, action);
            assert(run.name !== '', 'no operation');
            if (what === 'cancel') {
              const reply = await context.client.unary(Operations.method.cancelOperation, { name: run.name });
              answered('CancelOperation', reply, ['OK', 'NOT_FOUND', 'UNIMPLEMENTED', 'FAILED_PRECONDITION']);
            }
            if (what === 'wait') {
              const wait = await context.client.collect(Execution.method.waitExecution, { name: run.name });
              answered('WaitExecution', wait, ['OK', 'NOT_FOUND']);
            }
            if (what === 'stay') for await (const operation of run.messages) if (operation.done) break;
            await run.leave();
          }),
        );
      },
    ),
};

export const properties: readonly FuzzProperty[] = [names, digests, writes, directories, messages, executions];

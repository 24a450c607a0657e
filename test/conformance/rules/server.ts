/** The server around the protocol: P58 to P60 and P62. */
import { create, toBinary } from '@bufbuild/protobuf';
import type { Digest } from '../../../protos/digest.ts';
import {
  Capabilities,
  RequestMetadataSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { execute, failureOf, outputOf, putAction, waitExecution } from '../actions.ts';
import { connect } from '../client.ts';
import { controlOf, openContext } from '../context.ts';
import {
  digestOf,
  fetchBlob,
  isMissing,
  missing,
  mustBeOk,
  mustRefuse,
  put,
  readBlob,
  readName,
  wire,
  writeBlob,
  writeName,
} from '../fixtures.ts';
import { alone, NotApplicable, type Rule, part } from '../rule.ts';
import { get, update } from './action-cache.ts';
import { started } from './execution.ts';

const metadataHeader = 'build.bazel.remote.execution.v2.requestmetadata-bin';

export const serverRules: readonly Rule[] = [
  {
    id: 'P58',
    title: 'What was acknowledged stays',
    says: 'After OK to an upload or an update the content is there whatever happens to the process.',
    source: 'REAPI, ContentAddressableStorage and ActionCache, lifetime',
    parts: [
      part('kill -9 after the answers', ['control'], async (context, check) => {
        await using server = await controlOf(context).start();
        const before = await openContext(server.target, { seed: 60 });
        const blobs: Digest[] = [];
        const results: Digest[] = [];
        const half = before.fresh(2_000_000);
        try {
          for (let index = 0; index < 40; index++) blobs.push(await put(before, before.fresh(1 + index * 20_000)));
          for (let index = 0; index < 10; index++) {
            const action = await putAction(before, { outputPaths: ['f'] });
            const outputFiles = [{ path: 'f', digest: wire(blobs[index] as Digest) }];
            mustBeOk(check, 'UpdateActionResult', await update(before, action, { outputFiles }));
            results.push(action);
          }
          const upload = before.client.upload(ByteStream.method.write);
          await upload.send({
            resourceName: writeName(before, digestOf(before.fn, half)),
            data: half.subarray(0, 1_000_000),
          });
          await server.killAndRestart();
          upload.cancel();
        } finally {
          before.client.close();
        }
        const after = await openContext(server.target, { seed: 61 });
        try {
          check.must((await missing(after, blobs)).size === 0, 'blobs are missing after kill -9');
          for (const blob of blobs) {
            check.must(
              (await fetchBlob(after, blob)) !== undefined,
              `${blob.sizeBytes} bytes cannot be read after kill -9`,
            );
          }
          for (const action of results) mustBeOk(check, 'GetActionResult after kill -9', await get(after, action));
          check.must(await isMissing(after, digestOf(after.fn, half)), 'half an upload is visible after kill -9');
        } finally {
          after.client.close();
        }
      }),
    ],
  },
  {
    id: 'P59',
    title: 'Request metadata',
    says: 'The header is for logs; a request without it, or with bytes that cannot be read, is served all the same.',
    source: 'REAPI, message RequestMetadata',
    parts: [
      part('in all states', async (context, check) => {
        const { client, instance: instanceName } = context;
        const whole = toBinary(
          RequestMetadataSchema,
          create(RequestMetadataSchema, {
            toolDetails: { toolName: 'bazel', toolVersion: '7' },
            actionId: 'x',
            actionMnemonic: 'CppCompile',
          }),
        );
        for (const [what, bytes] of [
          ['whole', whole],
          ['cut', whole.subarray(0, 5)],
          ['no message', Buffer.from([0xff, 0xff, 0xff])],
          ['empty', Buffer.alloc(0)],
          ['large', toBinary(RequestMetadataSchema, create(RequestMetadataSchema, { targetId: 'x'.repeat(3000) }))],
        ] as const) {
          const metadata = { [metadataHeader]: bytes };
          mustBeOk(
            check,
            `${what}, unary`,
            await client.unary(Capabilities.method.getCapabilities, { instanceName }, { metadata }),
          );
          const content = context.fresh();
          const name = writeName(context, digestOf(context.fn, content));
          mustBeOk(check, `${what}, upload`, await writeBlob(context, name, content, { metadata }));
        }
      }),
      part('when executing', ['execution'], async (context, check) => {
        const metadata = { [metadataHeader]: Buffer.from([0xff, 0xff, 0xff]) };
        const done = await execute(context, await putAction(context, { script: 'true' }), {}, { metadata });
        mustBeOk(check, 'Execute', failureOf(done));
      }),
    ],
  },
  {
    id: 'P60',
    title: 'gRPC itself',
    says: 'Messages of 4 MiB, a hundred streams on a connection, large metadata and deadlines are ordinary.',
    source: 'gRPC over HTTP/2',
    parts: [
      alone(
        part('many streams on a connection', async (context, check) => {
          const bytes = context.fresh(300_000);
          const digest = await put(context, bytes);
          const reads = Array.from({ length: 150 }, () => readBlob(context, readName(context, digest)));
          const wrong = (await Promise.all(reads)).filter((reply) => reply.code !== 'OK' || !reply.bytes.equals(bytes));
          check.must(
            wrong.length === 0,
            `${wrong.length} of 150 reads at once: ${wrong[0]?.code} ${wrong[0]?.message}`,
          );
          const writes = Array.from({ length: 120 }, () => {
            const content = context.fresh(50_000);
            return writeBlob(context, writeName(context, digestOf(context.fn, content)), content);
          });
          const failed = (await Promise.all(writes)).filter((reply) => reply.code !== 'OK');
          check.must(
            failed.length === 0,
            `${failed.length} of 120 writes at once: ${failed[0]?.code} ${failed[0]?.message}`,
          );
        }),
      ),
      part('messages of ByteStream', async (context, check) => {
        const bytes = context.fresh(5 * 1024 * 1024);
        const digest = await put(context, bytes);
        const reply = await context.client.collect(ByteStream.method.read, { resourceName: readName(context, digest) });
        const largest = Math.max(...reply.messages.map((message) => message.data.byteLength));
        check.must(largest < 4 * 1024 * 1024, `a message of ${largest} bytes`);
        check.saw(`${reply.messages.length} messages of at most ${largest} bytes for 5 MiB`);
        const content = context.fresh(2 * 1024 * 1024);
        const upload = context.client.upload(ByteStream.method.write);
        await upload.send({
          resourceName: writeName(context, digestOf(context.fn, content)),
          data: content,
          finishWrite: true,
        });
        upload.halfClose();
        mustBeOk(check, 'a message of 2 MiB', await upload.reply);
      }),
      part('a deadline that passes', async (context, check) => {
        const content = context.fresh(1000);
        const upload = context.client.upload(ByteStream.method.write, { deadlineMs: 300 });
        await upload.send({
          resourceName: writeName(context, digestOf(context.fn, content)),
          data: content.subarray(0, 10),
        });
        mustRefuse(check, 'an upload that stops', await upload.reply, 'DEADLINE_EXCEEDED');
        mustBeOk(check, 'the next call', await readBlob(context, readName(context, await put(context, content))));
      }),
      part('large metadata', async (context, check) => {
        const { client, instance: instanceName } = context;
        const metadata = { 'x-conformance': 'v'.repeat(6000) };
        mustBeOk(
          check,
          '6 kB',
          await client.unary(Capabilities.method.getCapabilities, { instanceName }, { metadata }),
        );
      }),
      part('a method that is not there', async (context, check) => {
        const method = { ...Capabilities.method.getCapabilities, name: 'NoSuchMethod' };
        const reply = await context.client.unary(method as typeof Capabilities.method.getCapabilities, {});
        mustRefuse(check, 'NoSuchMethod', reply, 'UNIMPLEMENTED');
      }),
      part('a slow reader', async (context, check) => {
        const bytes = context.fresh(16 * 1024 * 1024);
        const digest = await put(context, bytes);
        const slow = connect(context.grpc);
        try {
          const call = slow.download(ByteStream.method.read, { resourceName: readName(context, digest) });
          const messages = call.messages[Symbol.asyncIterator]();
          await messages.next();
          for (let index = 0; index < 5; index++) {
            mustBeOk(
              check,
              'another client meanwhile',
              await readBlob(context, readName(context, await put(context, context.fresh()))),
            );
          }
          let rest = 0;
          for (let next = await messages.next(); !next.done; next = await messages.next())
            rest += next.value.data.byteLength;
          mustBeOk(check, 'the slow one', await call.outcome);
          check.must(rest > 0, 'the slow one got nothing more');
        } finally {
          slow.close();
        }
      }),
    ],
  },
  {
    id: 'P62',
    title: 'Priorities',
    says: 'A lower number runs sooner, 0 is the default; outside the advertised ranges it is refused or ignored.',
    source: 'REAPI, message ExecutionPolicy',
    parts: [
      part('outside the range', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: 'true' });
        const done = await execute(context, action, { executionPolicy: { priority: 2_147_483_647 } });
        const failure = failureOf(done);
        if (failure.code === 'OK') check.choice('a priority outside the range is ignored');
        else mustRefuse(check, 'the highest number', failure, 'INVALID_ARGUMENT');
      }),
      part('the default', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: 'true' });
        const done = await execute(context, action, {
          executionPolicy: { priority: 0 },
          resultsCachePolicy: { priority: 0 },
        });
        mustBeOk(check, 'priority 0', failureOf(done));
      }),
      part('sooner', ['execution', 'control'], async (context, check) => {
        const ranges = context.capabilities.executionCapabilities?.executionPriorityCapabilities?.priorities ?? [];
        const [range] = ranges;
        if (!range || range.minPriority === range.maxPriority)
          throw new NotApplicable('no range of priorities is advertised');
        await using server = await controlOf(context).start({ slots: 1 });
        const own = await openContext(server.target, { seed: 62 });
        try {
          const stamped = (name: string) =>
            putAction(own, { script: `date +%s%N > out; echo ${name}; sleep 0.1`, outputPaths: ['out'] });
          const [lateAction, soonAction] = [await stamped('late'), await stamped('soon')];
          const blocker = await started(own, await putAction(own, { script: 'sleep 3' }));
          const late = await started(own, lateAction, { executionPolicy: { priority: range.maxPriority } });
          const soon = await started(own, soonAction, { executionPolicy: { priority: range.minPriority } });
          const [lateAt, soonAt] = await Promise.all(
            [late, soon].map(async (run) => {
              const done = await waitExecution(own, run.name);
              return BigInt((await outputOf(own, done, 'out')) ?? '0');
            }),
          );
          check.must((soonAt ?? 0n) > 0n && (soonAt ?? 0n) < (lateAt ?? 0n), 'the lower number did not run first');
          await Promise.all([blocker.leave(), late.leave(), soon.leave()]);
        } finally {
          own.client.close();
        }
      }),
    ],
  },
];

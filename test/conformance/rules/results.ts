/** What a client is told and keeps: P53 to P57. */
import { type Timestamp, timestampMs } from '@bufbuild/protobuf/wkt';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { emptyDigest } from '../../../protos/digest.ts';
import {
  ActionCache,
  Capabilities,
  ContentAddressableStorage,
  Execution,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { execute, failureOf, metadataOf, putAction, stdoutOf, waitExecution } from '../actions.ts';
import { controlOf, openContext } from '../context.ts';
import {
  absentDigest,
  digestOf,
  fetchBlob,
  isMissing,
  mustBeOk,
  mustRefuse,
  put,
  readBlob,
  readName,
  sameDigest,
  writeBlob,
  writeName,
} from '../fixtures.ts';
import { NotApplicable, type Rule, part } from '../rule.ts';
import { started } from './execution.ts';

export const resultRules: readonly Rule[] = [
  {
    id: 'P53',
    title: 'stdout and stderr',
    says: 'Digests, and bytes beside them only where the request asks; a stream name can be read while the command runs.',
    source: 'REAPI, messages ActionResult, ExecuteRequest and ExecuteOperationMetadata',
    parts: [
      part('not asked', ['execution'], async (context, check) => {
        const script = 'echo out; echo err >&2; echo f > f';
        const { result, summary } = await execute(context, await putAction(context, { script, outputPaths: ['f'] }));
        check.must(
          sameDigest(result?.stdoutDigest, digestOf(context.fn, Buffer.from('out\n'))),
          `stdout_digest; ${summary}`,
        );
        check.must(
          sameDigest(result?.stderrDigest, digestOf(context.fn, Buffer.from('err\n'))),
          `stderr_digest; ${summary}`,
        );
        const inline = [result?.stdoutRaw, result?.stderrRaw, result?.outputFiles[0]?.contents];
        check.must(
          inline.every((bytes) => (bytes?.byteLength ?? 0) === 0),
          'bytes inline that were not asked for',
        );
        for (const text of ['out\n', 'err\n']) {
          check.must(
            (await fetchBlob(context, digestOf(context.fn, Buffer.from(text)))) !== undefined,
            `${JSON.stringify(text)} is not stored`,
          );
        }
      }),
      part('asked', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo out; echo err >&2; echo f > f; echo g > g',
          outputPaths: ['f', 'g'],
        });
        for (const turn of ['run', 'cached']) {
          const hints = { inlineStdout: true, inlineStderr: true, inlineOutputFiles: ['f'] };
          const { result, summary } = await execute(context, action, hints);
          if (!result) return check.must(false, summary);
          for (const [what, bytes, digest, expected] of [
            ['stdout', result.stdoutRaw, result.stdoutDigest, 'out\n'],
            ['stderr', result.stderrRaw, result.stderrDigest, 'err\n'],
            ['f', result.outputFiles[0]?.contents, result.outputFiles[0]?.digest, 'f\n'],
          ] as const) {
            check.must(
              sameDigest(digest, digestOf(context.fn, Buffer.from(expected))),
              `${turn}: no digest beside ${what}`,
            );
            if ((bytes?.byteLength ?? 0) === 0) check.choice(`${turn}: ${what} not inlined`);
            else
              check.must(Buffer.from(bytes as Uint8Array).toString() === expected, `${turn}: other bytes of ${what}`);
          }
          check.must(result.outputFiles[1]?.contents.byteLength === 0, `${turn}: g was not asked for`);
        }
      }),
      part('nothing printed', ['execution'], async (context, check) => {
        const { result, summary } = await execute(context, await putAction(context, { script: 'true' }));
        const empty = emptyDigest(context.fn);
        const digest = result?.stdoutDigest;
        check.must(result !== undefined && (digest === undefined || sameDigest(digest, empty)), summary);
        check.choice(
          digest === undefined ? 'no digest for empty output' : 'the digest of the empty blob for empty output',
        );
      }),
      part('much printed', ['execution'], async (context, check) => {
        const lines = 60_000;
        const script = `i=0; while [ $i -lt ${lines} ]; do echo "line $i of output that is long enough to matter"; i=$((i+1)); done`;
        const done = await execute(context, await putAction(context, { script }), { inlineStdout: true });
        const stdout = await stdoutOf(context, done);
        check.must(
          stdout.split('\n').length === lines + 1,
          `${stdout.split('\n').length - 1} of ${lines} lines; ${done.summary}`,
        );
      }),
      part('while it runs', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: 'echo early; sleep 4; echo late' });
        const run = await started(context, action);
        let name = run.first && metadataOf(run.first)?.stdoutStreamName;
        let over = false;
        const rest = (async () => {
          for await (const operation of run.messages) name ||= metadataOf(operation)?.stdoutStreamName;
          over = true;
        })();
        const deadlineMs = performance.now() + 3500;
        while (!name && !over && performance.now() < deadlineMs)
          await new Promise((resolve) => setTimeout(resolve, 50));
        if (!name) {
          await rest;
          return check.choice('no stdout_stream_name');
        }
        const call = context.client.download(ByteStream.method.read, { resourceName: name });
        let text = '';
        let early = false;
        for await (const message of call.messages) {
          text += Buffer.from(message.data).toString();
          early ||= text.startsWith('early') && !over;
        }
        mustBeOk(check, `reading ${name}`, await call.outcome);
        check.must(early, 'nothing could be read before the end');
        check.must(text === 'early\nlate\n', `read ${JSON.stringify(text)}`);
        await rest;
        const write = await writeBlob(context, name, Buffer.from('x'));
        check.must(write.code !== 'OK', 'anybody can write to the stream');
      }),
    ],
  },
  {
    id: 'P54',
    title: 'Execution metadata',
    says: 'A worker is named and its timestamps follow each other.',
    source: 'REAPI, message ExecutedActionMetadata',
    parts: [
      part('of a run', ['execution'], async (context, check) => {
        const {
          result,
          metadata: steps,
          summary,
        } = await execute(context, await putAction(context, { script: 'sleep 0.3' }));
        const metadata = result?.executionMetadata;
        if (!metadata) return check.must(false, `none: ${summary}`);
        check.must(metadata.worker !== '', 'the worker has no name');
        const order = [
          'queuedTimestamp',
          'workerStartTimestamp',
          'inputFetchStartTimestamp',
          'inputFetchCompletedTimestamp',
          'executionStartTimestamp',
          'executionCompletedTimestamp',
          'outputUploadStartTimestamp',
          'outputUploadCompletedTimestamp',
          'workerCompletedTimestamp',
        ] as const;
        let before: { name: string; time: Timestamp } | undefined;
        for (const name of order) {
          const time = metadata[name];
          check.must(time !== undefined, `${name} is not set`);
          if (!time) continue;
          if (before) check.must(nanosOf(before.time) <= nanosOf(time), `${name} is before ${before.name}`);
          before = { name, time };
        }
        const { executionStartTimestamp: start, executionCompletedTimestamp: end } = metadata;
        const wallMs = start && end ? timestampMs(end) - timestampMs(start) : 0;
        check.must(wallMs >= 280, `a command of 300 ms took ${wallMs} ms`);
        const virtual = metadata.virtualExecutionDuration;
        if (virtual) {
          const virtualMs = Number(virtual.seconds) * 1000 + virtual.nanos / 1e6;
          check.must(virtualMs <= wallMs + 1, `virtual_execution_duration ${virtualMs} ms of ${wallMs} ms`);
        }
        const partial = steps.filter((step) => step.partialExecutionMetadata !== undefined).length;
        check.saw(`${partial} of ${steps.length} operations with partial metadata`);
      }),
    ],
  },
  {
    id: 'P55',
    title: 'A client that goes away',
    says: 'The end of the stream does not cancel the operation; WaitExecution may follow.',
    source: 'REAPI, WaitExecution',
    parts: [
      part('and comes back', ['execution'], async (context, check) => {
        const run = await started(context, await putAction(context, { script: 'sleep 2; echo finished' }));
        await run.leave();
        const done = await waitExecution(context, run.name);
        check.must(failureOf(done).code === 'OK' && done.result?.exitCode === 0, done.summary);
        check.must((await stdoutOf(context, done)) === 'finished\n', 'the output is lost');
      }),
    ],
  },
  {
    id: 'P56',
    title: 'Which status',
    says: 'Bad input is INVALID_ARGUMENT, never UNKNOWN; a blob that turned bad on disk counts as missing.',
    source: 'REAPI, errors; google.rpc.Code',
    parts: [
      part('requests with nothing set', async (context, check) => {
        const { client, instance: instanceName } = context;
        const calls = {
          GetActionResult: client.unary(ActionCache.method.getActionResult, { instanceName }),
          GetTree: client.collect(ContentAddressableStorage.method.getTree, { instanceName }),
          Read: client.collect(ByteStream.method.read, {}),
          QueryWriteStatus: client.unary(ByteStream.method.queryWriteStatus, {}),
          'FindMissingBlobs of an unset digest': client.unary(ContentAddressableStorage.method.findMissingBlobs, {
            instanceName,
            blobDigests: [{}],
          }),
          ...(context.lacks(['execution'])
            ? {}
            : { Execute: client.collect(Execution.method.execute, { instanceName }) }),
        };
        for (const [name, call] of Object.entries(calls)) {
          mustRefuse(check, name, await call, 'INVALID_ARGUMENT', 'NOT_FOUND', 'UNIMPLEMENTED');
        }
      }),
      part('bytes that are no message', async (context, check) => {
        const garbage = Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x01]);
        for (const [name, call] of [
          ['GetCapabilities', context.client.unary(Capabilities.method.getCapabilities, garbage)],
          ['FindMissingBlobs', context.client.unary(ContentAddressableStorage.method.findMissingBlobs, garbage)],
          ['Read', context.client.collect(ByteStream.method.read, garbage)],
        ] as const) {
          mustRefuse(check, name, await call, 'INVALID_ARGUMENT', 'INTERNAL');
        }
      }),
      part('a blob that turned bad', ['control'], async (context, check) => {
        await using server = await controlOf(context).start();
        const own = await openContext(server.target, { seed: 56 });
        try {
          const bytes = own.fresh(3 * 1024 * 1024);
          const digest = await put(own, bytes);
          await damage(server.dataDir, bytes);
          const read = await readBlob(own, readName(own, digest));
          check.must(!read.bytes.equals(bytes), 'the damage was not found by this test');
          mustRefuse(check, 'Read', read, 'NOT_FOUND');
          check.must(await isMissing(own, digest), 'FindMissingBlobs still promises it');
          mustBeOk(check, 'uploading it again', await writeBlob(own, writeName(own, digest), bytes));
          check.must((await fetchBlob(own, digest))?.equals(bytes) ?? false, 'not there after it was uploaded again');
        } finally {
          own.client.close();
        }
      }),
      part('a blob larger than the store', ['control'], async (context, check) => {
        await using server = await controlOf(context).start({ cacheSizeBytes: 16 * 1024 * 1024 });
        const own = await openContext(server.target, { seed: 57 });
        try {
          const bytes = own.fresh(24 * 1024 * 1024);
          const digest = digestOf(own.fn, bytes);
          const reply = await writeBlob(own, writeName(own, digest), bytes);
          mustRefuse(check, 'Write', reply, 'RESOURCE_EXHAUSTED', 'INVALID_ARGUMENT');
          check.must(await isMissing(own, digest), 'it is there');
          const small = own.fresh(1000);
          const next = await writeBlob(own, writeName(own, digestOf(own.fn, small)), small);
          mustBeOk(check, 'a small blob afterwards', next);
        } finally {
          own.client.close();
        }
      }),
    ],
  },
  {
    id: 'P57',
    title: 'Eviction during a build',
    says: 'Inputs of what is queued or runs stay; a store that is too small leads to an error, not to a wait without end.',
    source: 'REAPI, Execute, errors; FindMissingBlobs',
    parts: [
      part('inputs of a running action', ['control', 'execution'], async (context, check) => {
        const blobBytes = 512 * 1024;
        await using server = await controlOf(context).start({ cacheSizeBytes: 32 * blobBytes, slots: 2 });
        const own = await openContext(server.target, { seed: 58 });
        try {
          const action = await putAction(own, {
            script: 'sleep 4; wc -c < big > out',
            inputs: { big: own.fresh(blobBytes) },
            outputPaths: ['out'],
          });
          const running = execute(own, action);
          for (let index = 0; index < 45; index++) await put(own, own.fresh(blobBytes));
          const done = await running;
          check.must(failureOf(done).code === 'OK' && done.result?.exitCode === 0, done.summary);
        } finally {
          own.client.close();
        }
      }),
      part('a build larger than the store', ['control', 'execution'], async (context, check) => {
        const blobBytes = 512 * 1024;
        await using server = await controlOf(context).start({ cacheSizeBytes: 24 * blobBytes, slots: 2 });
        const own = await openContext(server.target, { seed: 59 });
        try {
          const outcomes = new Map<string, number>();
          for (let index = 0; index < 10; index++) {
            const action = await putAction(own, {
              script: 'cat a b > out',
              inputs: { a: own.fresh(2 * blobBytes), b: own.fresh(2 * blobBytes) },
              outputPaths: ['out'],
            });
            const done = await execute(own, action, {}, { deadlineMs: 30_000 });
            const { code } = failureOf(done);
            check.must(code !== 'DEADLINE_EXCEEDED', `action ${index + 1} hangs`);
            outcomes.set(code, (outcomes.get(code) ?? 0) + 1);
          }
          check.saw([...outcomes].map(([code, count]) => `${code} ${count}`).join(', '));
        } finally {
          own.client.close();
        }
      }),
      part('outputs survive until they are fetched', ['execution'], async (context, check) => {
        const done = await execute(
          context,
          await putAction(context, { script: 'echo kept > out', outputPaths: ['out'] }),
        );
        for (let index = 0; index < 5; index++) await put(context, context.fresh(100_000));
        const digest = done.result?.outputFiles[0]?.digest;
        const expected = digestOf(context.fn, Buffer.from('kept\n'));
        check.must(sameDigest(digest, expected), done.summary);
        check.must((await fetchBlob(context, expected)) !== undefined, 'the output is gone');
        mustRefuse(
          check,
          'an absent blob',
          await readBlob(context, readName(context, absentDigest(context))),
          'NOT_FOUND',
        );
      }),
    ],
  },
];

function nanosOf(time: Timestamp): bigint {
  return time.seconds * 1_000_000_000n + BigInt(time.nanos);
}

/** Flips one byte in the middle of the file that holds `bytes`, wherever the server keeps it. */
async function damage(dataDir: string, bytes: Buffer): Promise<void> {
  for (const entry of await readdir(dataDir, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || (await stat(path)).size !== bytes.byteLength) continue;
    await using file = await open(path, 'r+').catch(async () => {
      await (await import('node:fs/promises')).chmod(path, 0o644);
      return open(path, 'r+');
    });
    const at = bytes.byteLength >> 1;
    await file.write(Buffer.from([(bytes[at] as number) ^ 0xff]), 0, 1, at);
    return;
  }
  throw new NotApplicable('the blob is not kept in a file of its own');
}

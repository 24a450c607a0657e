/** Digests: P1 to P4. */
import { create, toBinary } from '@bufbuild/protobuf';
import { randomUUID } from 'node:crypto';
import { type Digest, type DigestFunction, emptyDigest } from '../../../protos/digest.ts';
import {
  ActionCache,
  Compressor_Value,
  ContentAddressableStorage,
  DigestFunction_Value,
  DirectorySchema,
  Execution,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { type Code, codeName } from '../../../protos/status.ts';
import { execute, putAction } from '../actions.ts';
import type { Context } from '../context.ts';
import {
  absentDigest,
  digestOf,
  isMissing,
  missing,
  mustBeOk,
  mustRefuse,
  put,
  putTree,
  readBlob,
  readName,
  sameDigest,
  wire,
  wireFn,
  writeBlob,
  writeName,
  zstd,
} from '../fixtures.ts';
import { type Check, type Rule, part } from '../rule.ts';

const cas = ContentAddressableStorage.method;
/** The functions whose hashes tell them apart by length, so that requests may leave the function out. */
const inferred: readonly DigestFunction[] = ['sha256', 'sha1', 'sha384', 'sha512', 'md5'];

export const digestRules: readonly Rule[] = [
  {
    id: 'P1',
    title: 'The empty blob is always there',
    says: 'The blob of no bytes can be found, read and named although nobody ever uploaded it.',
    source: 'REAPI, message Digest and service ContentAddressableStorage',
    parts: [
      part('FindMissingBlobs', async (context, check) => {
        for (const fn of context.functions) {
          check.must((await missing(context, [emptyDigest(fn)])).size === 0, `${fn}: listed as missing`);
        }
      }),
      part('BatchReadBlobs', async (context, check) => {
        for (const fn of context.functions) {
          const reply = await context.client.unary(cas.batchReadBlobs, {
            instanceName: context.instance,
            digests: [wire(emptyDigest(fn))],
            digestFunction: wireFn(fn),
          });
          if (!mustBeOk(check, fn, reply)) continue;
          const entry = reply.response?.responses[0];
          check.must(entry?.status?.code === undefined || entry.status.code === 0, `${fn}: ${entry?.status?.message}`);
          check.must(entry?.data.byteLength === 0, `${fn}: ${entry?.data.byteLength} bytes`);
        }
      }),
      part('ByteStream.Read', async (context, check) => {
        for (const fn of context.functions) {
          const reply = await readBlob(context, readName(context, emptyDigest(fn)));
          if (mustBeOk(check, fn, reply))
            check.must(reply.bytes.byteLength === 0, `${fn}: ${reply.bytes.byteLength} bytes`);
        }
      }),
      part('ByteStream.Read zstd', ['zstd'], async (context, check) => {
        const reply = await readBlob(context, readName(context, emptyDigest(context.fn), { compressor: 'zstd' }));
        if (!mustBeOk(check, 'read', reply)) return;
        check.must((await zstd.decompress(reply.bytes))?.byteLength === 0, 'does not decode to nothing');
        if (reply.bytes.byteLength === 0) check.choice('no frame at all stands for no bytes');
      }),
      part('HTTP', ['http'], async (context, check) => {
        for (const method of ['GET', 'HEAD']) {
          const response = await fetch(`http://${context.http}/cas/${emptyDigest('sha256').hash}`, { method });
          check.must(response.status === 200, `${method}: status ${response.status}`);
          check.must((await response.arrayBuffer()).byteLength === 0, `${method}: a body`);
        }
      }),
      part('in an action result', ['update-action-cache'], async (context, check) => {
        const actionDigest = wire(absentDigest(context));
        const empty = wire(emptyDigest(context.fn));
        const stored = await context.client.unary(ActionCache.method.updateActionResult, {
          instanceName: context.instance,
          actionDigest,
          actionResult: { stdoutDigest: empty, stderrDigest: empty, outputFiles: [{ path: 'none', digest: empty }] },
          digestFunction: wireFn(context.fn),
        });
        if (!mustBeOk(check, 'UpdateActionResult', stored)) return;
        const got = await context.client.unary(ActionCache.method.getActionResult, {
          instanceName: context.instance,
          actionDigest,
          digestFunction: wireFn(context.fn),
        });
        mustBeOk(check, 'GetActionResult', got);
      }),
      part('GetTree', async (context, check) => {
        const reply = await context.client.collect(cas.getTree, {
          instanceName: context.instance,
          rootDigest: wire(emptyDigest(context.fn)),
          digestFunction: wireFn(context.fn),
        });
        if (!mustBeOk(check, 'an empty root', reply)) return;
        const directories = reply.messages.flatMap((message) => message.directories);
        check.must(directories.length === 1, `an empty root: ${directories.length} directories`);
      }),
      part('Execute', ['execution'], async (context, check) => {
        for (const inputs of [{}, { none: '' }]) {
          const action = await putAction(context, {
            script: 'test ! -e none || test ! -s none',
            inputs,
            skipEmptyRoot: true,
          });
          const done = await execute(context, action);
          if (mustBeOk(check, 'Execute', done)) {
            check.must(done.result?.exitCode === 0, `with ${JSON.stringify(inputs)}: ${done.summary}`);
          }
        }
      }),
    ],
  },
  {
    id: 'P2',
    title: 'The size is half of the key',
    says: 'A right hash beside a wrong size names nothing; such a blob is neither stored nor served.',
    source: 'REAPI, message Digest',
    parts: [
      part('FindMissingBlobs', async (context, check) => {
        const digest = await put(context, context.fresh());
        const wrong = { ...digest, sizeBytes: digest.sizeBytes + 1 };
        check.must((await missing(context, [wrong])).size === 1, 'the wrong size counts as present');
        check.must((await missing(context, [digest])).size === 0, 'the right size counts as missing');
      }),
      part('ByteStream.Read', async (context, check) => {
        const digest = await put(context, context.fresh());
        for (const sizeBytes of [digest.sizeBytes + 1, digest.sizeBytes - 1]) {
          const reply = await readBlob(context, readName(context, { ...digest, sizeBytes }));
          mustRefuse(check, `size ${sizeBytes} of ${digest.sizeBytes}`, reply, 'NOT_FOUND', 'INVALID_ARGUMENT');
          check.must(reply.bytes.byteLength === 0, `bytes were sent under size ${sizeBytes}`);
        }
      }),
      part('BatchReadBlobs', async (context, check) => {
        const digest = await put(context, context.fresh());
        const reply = await context.client.unary(cas.batchReadBlobs, {
          instanceName: context.instance,
          digests: [{ ...wire(digest), sizeBytes: BigInt(digest.sizeBytes + 1) }],
          digestFunction: wireFn(context.fn),
        });
        const entry = reply.response?.responses[0];
        check.must(reply.code !== 'OK' || (entry?.status?.code ?? 0) !== 0, 'served under a wrong size');
      }),
      part('BatchUpdateBlobs', async (context, check) => {
        const bytes = context.fresh();
        const good = context.fresh();
        const digest = digestOf(context.fn, bytes);
        const reply = await context.client.unary(cas.batchUpdateBlobs, {
          instanceName: context.instance,
          requests: [
            { digest: { ...wire(digest), sizeBytes: BigInt(bytes.byteLength + 1) }, data: bytes },
            { digest: wire(digestOf(context.fn, good)), data: good },
          ],
          digestFunction: wireFn(context.fn),
        });
        if (!mustBeOk(check, 'the call', reply)) return;
        const [wrong, right] = reply.response?.responses ?? [];
        check.must(wrong?.status?.code === 3, `the wrong size: code ${wrong?.status?.code ?? 0}`);
        check.must((right?.status?.code ?? 0) === 0, `the right one beside it: code ${right?.status?.code}`);
        check.must(await isMissing(context, digest), 'stored although the size was wrong');
      }),
    ],
  },
  {
    id: 'P3',
    title: 'Hashes are lower-case hex of full length',
    says: 'What is not such a hash, or not a possible size, is an invalid argument and never becomes a file name.',
    source: 'REAPI, message Digest',
    parts: [
      part('digests in messages', async (context, check) => {
        const { hash } = await put(context, context.fresh());
        const upperCase = hash.replace(/[a-f]/g, (letter) => letter.toUpperCase());
        const wrong: [string, { hash: string; sizeBytes: bigint }][] = [
          ['upper case', { hash: upperCase, sizeBytes: 100n }],
          ['one digit short', { hash: hash.slice(1), sizeBytes: 100n }],
          ['not hex', { hash: `g${hash.slice(1)}`, sizeBytes: 100n }],
          ['a path', { hash: '../'.repeat(22).slice(0, hash.length), sizeBytes: 100n }],
          ['empty', { hash: '', sizeBytes: 100n }],
          ['a negative size', { hash, sizeBytes: -1n }],
        ];
        for (const [what, digest] of wrong) {
          const request = { instanceName: context.instance, digestFunction: wireFn(context.fn) };
          const find = await context.client.unary(cas.findMissingBlobs, { ...request, blobDigests: [digest] });
          const listed = (find.response?.missingBlobDigests.length ?? 0) > 0;
          mustRefuseDigest(check, `FindMissingBlobs, ${what}`, listed ? { code: 'NOT_FOUND', message: '' } : find);
          const read = await context.client.unary(cas.batchReadBlobs, { ...request, digests: [digest] });
          const entry = read.response?.responses[0]?.status;
          mustRefuseDigest(
            check,
            `BatchReadBlobs, ${what}`,
            read.code === 'OK' ? { code: codeName(entry?.code ?? 0), message: entry?.message ?? '' } : read,
          );
          const actionDigest = digest;
          const got = await context.client.unary(ActionCache.method.getActionResult, { ...request, actionDigest });
          mustRefuseDigest(check, `GetActionResult, ${what}`, got);
        }
      }),
      part('digests in resource names', async (context, check) => {
        const digest = await put(context, context.fresh());
        const name = readName(context, digest);
        const { hash, sizeBytes } = digest;
        const wrong: [string, string][] = [
          ['upper case', name.replace(hash, hash.toUpperCase())],
          ['one digit short', name.replace(hash, hash.slice(1))],
          ['not hex', name.replace(hash, `g${hash.slice(1)}`)],
          ['a negative size', name.replace(/\/\d+$/, '/-1')],
          ['a size with a sign', name.replace(/\/\d+$/, `/+${sizeBytes}`)],
          ['a size with a leading zero', name.replace(/\/\d+$/, `/0${sizeBytes}`)],
          ['a size of 2^63', name.replace(/\/\d+$/, '/9223372036854775808')],
          ['a size that is no number', name.replace(/\/\d+$/, '/ten')],
          ['no size', name.replace(/\/\d+$/, '')],
        ];
        for (const [what, resourceName] of wrong) {
          const read = await readBlob(context, resourceName);
          mustRefuseDigest(check, `Read, ${what}`, read);
          check.must(read.bytes.byteLength === 0, `Read, ${what}: bytes were sent`);
          const upload = resourceName.replace('blobs/', `uploads/${randomUUID()}/blobs/`);
          mustRefuse(check, `Write, ${what}`, await writeBlob(context, upload, Buffer.alloc(10)), 'INVALID_ARGUMENT');
        }
      }),
      part('HTTP', ['http'], async (context, check) => {
        for (const path of ['/cas/../../../etc/passwd', '/cas/..%2f..%2f..%2fetc%2fpasswd', '/cas/xyz', '/ac/%00']) {
          const response = await fetch(`http://${context.http}${path}`);
          check.must(response.status >= 400 && response.status < 500, `${path}: status ${response.status}`);
          await response.arrayBuffer();
        }
      }),
    ],
  },
  {
    id: 'P4',
    title: 'The digest function is part of the key',
    says: 'Unset means the function that the length tells, SHA256 for 64 digits; an unsupported one is an invalid argument.',
    source: 'REAPI, digest_function fields',
    parts: [
      part('unset is inferred', async (context, check) => {
        for (const fn of context.functions.filter((name) => inferred.includes(name))) {
          const bytes = context.fresh();
          const digest = digestOf(fn, bytes);
          const reply = await context.client.unary(cas.batchUpdateBlobs, {
            instanceName: context.instance,
            requests: [{ digest: wire(digest), data: bytes }],
          });
          mustBeOk(check, `${fn}: BatchUpdateBlobs`, reply);
          check.must((reply.response?.responses[0]?.status?.code ?? 0) === 0, `${fn}: entry refused`);
          check.must(!(await isMissing(context, digest)), `${fn}: missing when asked with the function set`);
        }
        check.saw(`functions: ${context.functions.join(', ')}`);
      }),
      part('each function has its own blobs', ['blake3'], async (context, check) => {
        const bytes = context.fresh();
        const sha256 = digestOf('sha256', bytes);
        const blake3 = await put(context, bytes, 'blake3');
        check.must(await isMissing(context, sha256), 'the SHA256 digest counts as present after a BLAKE3 upload');
        check.must(
          await isMissing(context, { ...blake3, fn: 'sha256' }),
          'the BLAKE3 hash counts as present under SHA256',
        );
        const unset = await context.client.unary(cas.findMissingBlobs, {
          instanceName: context.instance,
          blobDigests: [wire(blake3)],
        });
        check.must(unset.response?.missingBlobDigests.length === 1, 'unset is taken for BLAKE3');
        await put(context, bytes, 'sha256');
        check.must(!(await isMissing(context, sha256)) && !(await isMissing(context, blake3)), 'not two entries');
      }),
      part('BLAKE3 everywhere', ['blake3'], (context, check) => blake3Everywhere(context, check)),
      part('BLAKE3 in actions', ['blake3', 'execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'cat in > out',
          inputs: { in: 'with another function' },
          outputPaths: ['out'],
          fn: 'blake3',
        });
        const done = await execute(context, action);
        if (!mustBeOk(check, 'Execute', done)) return;
        const expected = digestOf('blake3', Buffer.from('with another function'));
        check.must(sameDigest(done.result?.outputFiles[0]?.digest, expected), `not a BLAKE3 output: ${done.summary}`);
        for (const metadata of done.metadata) {
          if (metadata.digestFunction !== 0) {
            check.must(metadata.digestFunction === DigestFunction_Value.BLAKE3, 'the metadata names another function');
          }
        }
      }),
      part('unsupported functions', async (context, check) => {
        const supported = new Set<number>(context.capabilities.cacheCapabilities?.digestFunctions);
        const unsupported = [DigestFunction_Value.VSO, DigestFunction_Value.MURMUR3, 99].filter(
          (fn) => !supported.has(fn),
        );
        const digest = wire(await put(context, context.fresh()));
        for (const digestFunction of unsupported) {
          const request = { instanceName: context.instance, digestFunction: digestFunction as DigestFunction_Value };
          const calls = {
            FindMissingBlobs: context.client.unary(cas.findMissingBlobs, { ...request, blobDigests: [digest] }),
            BatchReadBlobs: entryOrCall(context.client.unary(cas.batchReadBlobs, { ...request, digests: [digest] })),
            GetActionResult: context.client.unary(ActionCache.method.getActionResult, {
              ...request,
              actionDigest: digest,
            }),
            GetTree: context.client.collect(cas.getTree, { ...request, rootDigest: digest }),
            ...(context.lacks(['execution'])
              ? {}
              : { Execute: context.client.collect(Execution.method.execute, { ...request, actionDigest: digest }) }),
          };
          for (const [name, call] of Object.entries(calls)) {
            mustRefuse(check, `${name}, function ${digestFunction}`, await call, 'INVALID_ARGUMENT');
          }
        }
      }),
    ],
  },
];

/** INVALID_ARGUMENT says it best; that no such blob is there is true as well. */
function mustRefuseDigest(
  check: Check,
  what: string,
  outcome: { readonly code: Code; readonly message: string },
): void {
  mustRefuse(check, what, outcome, 'INVALID_ARGUMENT', 'NOT_FOUND');
}

async function blake3Everywhere(context: Context, check: Check): Promise<void> {
  const fn = 'blake3';
  const request = { instanceName: context.instance, digestFunction: wireFn(fn) };
  const bytes = context.fresh();
  const digest: Digest = digestOf(fn, bytes);
  mustBeOk(check, 'Write', await writeBlob(context, writeName(context, digest), bytes));
  const read = await readBlob(context, readName(context, digest));
  check.must(read.code === 'OK' && read.bytes.equals(bytes), `Read: ${read.code}`);
  const status = await context.client.unary(ByteStream.method.queryWriteStatus, {
    resourceName: writeName(context, digest),
  });
  check.must(status.code === 'OK' || status.code === 'UNIMPLEMENTED', `QueryWriteStatus: ${status.code}`);
  const batch = await context.client.unary(cas.batchReadBlobs, {
    ...request,
    digests: [wire(digest)],
    acceptableCompressors: [Compressor_Value.IDENTITY],
  });
  check.must(Buffer.from(batch.response?.responses[0]?.data ?? []).equals(bytes), 'BatchReadBlobs: other bytes');
  const rootDigest = await putTree(context, { dir: { dir: { file: 'x' } } }, fn);
  const tree = await context.client.collect(cas.getTree, { ...request, rootDigest: wire(rootDigest) });
  if (mustBeOk(check, 'GetTree', tree)) {
    const root = tree.messages.flatMap((message) => message.directories)[0];
    const encoded = toBinary(DirectorySchema, root ?? create(DirectorySchema));
    check.must(digestOf(fn, encoded).hash === rootDigest.hash, 'GetTree: not the root');
  }
  if (context.lacks(['update-action-cache'])) return;
  const actionDigest = wire(absentDigest(context, 100, fn));
  const actionResult = { outputFiles: [{ path: 'f', digest: wire(digest) }], exitCode: 0 };
  const update = await context.client.unary(ActionCache.method.updateActionResult, {
    ...request,
    actionDigest,
    actionResult,
  });
  mustBeOk(check, 'UpdateActionResult', update);
  const got = await context.client.unary(ActionCache.method.getActionResult, { ...request, actionDigest });
  mustBeOk(check, 'GetActionResult', got);
}

/** A batch may refuse as a whole or entry by entry. */
async function entryOrCall(
  call: Promise<{
    code: string;
    message: string;
    response?: { responses: { status?: { code: number } | undefined }[] };
  }>,
): Promise<{ code: 'INVALID_ARGUMENT' | 'UNKNOWN'; message: string }> {
  const reply = await call;
  const entry = reply.response?.responses[0]?.status?.code;
  const refused = reply.code === 'INVALID_ARGUMENT' || entry === 3;
  return {
    code: refused ? 'INVALID_ARGUMENT' : 'UNKNOWN',
    message: `${reply.code} ${reply.message}, entry ${entry ?? 0}`,
  };
}

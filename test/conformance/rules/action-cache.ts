/** The action cache over gRPC and HTTP: P24 to P28. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Digest } from '../../../protos/digest.ts';
import {
  ActionCache,
  ActionResultSchema,
  DirectorySchema,
  type GetActionResultRequest,
  TreeSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { putAction } from '../actions.ts';
import type { Context } from '../context.ts';
import {
  absentDigest,
  digestOf,
  fetchBlob,
  isMissing,
  mustBeOk,
  mustRefuse,
  put,
  putMessage,
  sameDigest,
  wire,
  wireFn,
  zstd,
} from '../fixtures.ts';
import { type Rule, part } from '../rule.ts';

type Result = MessageInitShape<typeof ActionResultSchema>;

export const actionCacheRules: readonly Rule[] = [
  {
    id: 'P24',
    title: 'A hit is complete',
    says: 'A miss is NOT_FOUND, and a result any of whose blobs is gone is a miss.',
    source: 'REAPI, GetActionResult',
    parts: [
      part('a miss', async (context, check) => {
        mustRefuse(check, 'GetActionResult', await get(context, absentDigest(context)), 'NOT_FOUND');
      }),
      part('a complete result', ['update-action-cache'], async (context, check) => {
        const action = await anAction(context);
        const stored = await update(context, action, await completeResult(context));
        if (!mustBeOk(check, 'UpdateActionResult', stored)) return;
        mustBeOk(check, 'GetActionResult', await get(context, action));
      }),
      ...(
        [
          ['an output file', async (_context, lost) => ({ outputFiles: [{ path: 'f', digest: wire(lost) }] })],
          ['stdout', async (_context, lost) => ({ stdoutDigest: wire(lost) })],
          ['stderr', async (_context, lost) => ({ stderrDigest: wire(lost) })],
          ['a Tree', async (_context, lost) => ({ outputDirectories: [{ path: 'd', treeDigest: wire(lost) }] })],
          [
            'a file in the root of a Tree',
            async (context, lost) => ({
              outputDirectories: [
                {
                  path: 'd',
                  treeDigest: wire(
                    await putMessage(context, TreeSchema, { root: { files: [{ name: 'f', digest: wire(lost) }] } }),
                  ),
                },
              ],
            }),
          ],
          [
            'a file in a child of a Tree',
            async (context, lost) => {
              const child = create(DirectorySchema, { files: [{ name: 'f', digest: wire(lost) }] });
              const digest = wire(digestOf(context.fn, toBinary(DirectorySchema, child)));
              const root = { directories: [{ name: 'c', digest }] };
              const treeDigest = wire(await putMessage(context, TreeSchema, { root, children: [child] }));
              return { outputDirectories: [{ path: 'd', treeDigest }] };
            },
          ],
          [
            'the hierarchy below root_directory_digest',
            async (context, lost) => {
              const child = await putMessage(context, DirectorySchema, { files: [{ name: 'f', digest: wire(lost) }] });
              const rootDirectoryDigest = wire(
                await putMessage(context, DirectorySchema, { directories: [{ name: 'c', digest: wire(child) }] }),
              );
              return { outputDirectories: [{ path: 'd', rootDirectoryDigest }] };
            },
          ],
        ] satisfies [string, (context: Context, lost: Digest) => Promise<Result>][]
      ).map(([what, resultOf]) =>
        part(`without ${what}`, ['update-action-cache'], async (context, check) => {
          const content = context.fresh();
          const action = await anAction(context);
          const stored = await update(context, action, await resultOf(context, digestOf(context.fn, content)));
          if (stored.code !== 'OK') {
            mustRefuse(check, 'storing it', stored, 'FAILED_PRECONDITION', 'INVALID_ARGUMENT', 'NOT_FOUND');
            return check.choice(`refused when it is stored: ${stored.code}`);
          }
          mustRefuse(check, 'an incomplete result', await get(context, action), 'NOT_FOUND');
          await put(context, content);
          const complete = await get(context, action);
          if (complete.code === 'NOT_FOUND') check.saw('stays a miss when the blob arrives');
        }),
      ),
    ],
  },
  {
    id: 'P25',
    title: 'Inlining only on request',
    says: 'Outputs come inline only when asked for and when the message stays small; the digest is set in any case.',
    source: 'REAPI, GetActionResult and message ActionResult',
    parts: [
      part('not asked', ['update-action-cache'], async (context, check) => {
        const action = await anAction(context);
        await update(context, action, await completeResult(context));
        const { response } = await get(context, action);
        if (!response) return check.must(false, 'no hit');
        check.must(response.stdoutRaw.byteLength + response.stderrRaw.byteLength === 0, 'stdout or stderr inline');
        check.must(
          response.outputFiles.every((file) => file.contents.byteLength === 0),
          'an output file inline',
        );
      }),
      part('asked', ['update-action-cache'], async (context, check) => {
        const action = await anAction(context);
        await update(context, action, await completeResult(context));
        const inlineOutputFiles = ['file'];
        const { response } = await get(context, action, { inlineStdout: true, inlineStderr: true, inlineOutputFiles });
        if (!response) return check.must(false, 'no hit');
        const [file, other] = ['file', 'other'].map((path) =>
          response.outputFiles.find((output) => output.path === path),
        );
        check.must(
          file?.digest !== undefined && response.stdoutDigest !== undefined,
          'a digest is not set beside the bytes',
        );
        check.must(other?.contents.byteLength === 0, 'a file inline that was not asked for');
        for (const [what, bytes, digest] of [
          ['stdout', response.stdoutRaw, response.stdoutDigest],
          ['stderr', response.stderrRaw, response.stderrDigest],
          ['a file', file?.contents ?? Buffer.alloc(0), file?.digest],
        ] as const) {
          if (bytes.byteLength === 0) check.choice(`${what}: not inlined`);
          else check.must(sameDigest(digest, digestOf(context.fn, bytes)), `${what}: other bytes inline`);
        }
      }),
      part('asked for too much', ['update-action-cache'], async (context, check) => {
        const action = await anAction(context);
        const files: { path: string; digest: ReturnType<typeof wire> }[] = [];
        for (let index = 0; index < 4; index++) {
          files.push({ path: `f${index}`, digest: wire(await put(context, context.fresh(2 * 1024 * 1024))) });
        }
        await update(context, action, {
          outputFiles: files,
          stdoutDigest: files[0]?.digest as ReturnType<typeof wire>,
        });
        const reply = await get(context, action, {
          inlineStdout: true,
          inlineOutputFiles: files.map((file) => file.path),
        });
        if (!mustBeOk(check, '10 MiB to inline', reply) || !reply.response) return;
        const bytes = toBinary(ActionResultSchema, reply.response).byteLength;
        check.must(bytes <= 4 * 1024 * 1024, `a message of ${bytes} bytes`);
      }),
      part('stored inline', ['update-action-cache'], async (context, check) => {
        const action = await anAction(context);
        const bytes = context.fresh(50);
        const stored = await update(context, action, { stdoutRaw: bytes });
        if (!mustBeOk(check, 'stdout_raw without a digest', stored)) return;
        const { response } = await get(context, action);
        if (!response) return check.must(false, 'no hit');
        const digest = digestOf(context.fn, bytes);
        if (sameDigest(response.stdoutDigest, digest)) {
          check.must(
            (await fetchBlob(context, digest))?.equals(bytes) ?? false,
            'the digest is set, the blob is not there',
          );
        } else {
          check.must(Buffer.from(response.stdoutRaw).equals(bytes), 'stdout is lost');
          check.choice('stdout_raw is kept as it came');
        }
      }),
    ],
  },
  {
    id: 'P26',
    title: 'UpdateActionResult',
    says: 'The stored result is equivalent to what was sent; who may not store is told so.',
    source: 'REAPI, UpdateActionResult',
    parts: [
      part('what comes back', ['update-action-cache'], async (context, check) => {
        const action = await anAction(context);
        const result = {
          ...(await completeResult(context)),
          exitCode: 0,
          outputSymlinks: [{ path: 'link', target: 'file' }],
          executionMetadata: { worker: 'conformance' },
        };
        const stored = await update(context, action, result);
        if (!mustBeOk(check, 'UpdateActionResult', stored)) return;
        const got = await get(context, action);
        for (const [what, reply] of [
          ['the answer', stored],
          ['the hit', got],
        ] as const) {
          const paths = reply.response?.outputFiles
            .map((file) => file.path)
            .toSorted()
            .join();
          check.must(paths === 'file,other', `${what} has the files ${paths}`);
          check.must(reply.response?.outputSymlinks[0]?.target === 'file', `${what} has lost the link`);
          check.must(reply.response?.executionMetadata?.worker === 'conformance', `${what} has lost the metadata`);
        }
      }),
      part('all defaults', ['update-action-cache'], async (context, check) => {
        const action = await anAction(context);
        mustBeOk(check, 'a result of no bytes', await update(context, action, {}));
        mustBeOk(check, 'the hit afterwards', await get(context, action));
      }),
      part('an update replaces', ['update-action-cache'], async (context, check) => {
        const action = await anAction(context);
        await update(context, action, { executionMetadata: { worker: 'first' } });
        mustBeOk(
          check,
          'the second update',
          await update(context, action, { executionMetadata: { worker: 'second' } }),
        );
        const worker = (await get(context, action)).response?.executionMetadata?.worker;
        if (worker === 'first') check.choice('the first result stays');
        else check.must(worker === 'second', `the hit afterwards is of "${worker}"`);
      }),
      part('an action that is not there', ['update-action-cache'], async (context, check) => {
        const reply = await update(context, absentDigest(context), {});
        if (reply.code === 'OK') check.choice('stored without looking for the Action');
        else mustRefuse(check, 'UpdateActionResult', reply, 'FAILED_PRECONDITION');
      }),
      part('nothing set', ['update-action-cache'], async (context, check) => {
        const reply = await context.client.unary(ActionCache.method.updateActionResult, {
          instanceName: context.instance,
        });
        mustRefuse(check, 'an empty request', reply, 'INVALID_ARGUMENT');
      }),
      part('paths that lead out', ['update-action-cache'], async (context, check) => {
        const digest = wire(await put(context, context.fresh()));
        for (const path of ['/etc/passwd', '../x', 'a/../../x']) {
          const reply = await update(context, await anAction(context), { outputFiles: [{ path, digest }] });
          if (reply.code === 'OK') check.choice(`"${path}" is stored unchecked`);
          else mustRefuse(check, `"${path}"`, reply, 'INVALID_ARGUMENT');
        }
      }),
      part('without permission', async (context, check) => {
        if (!context.lacks(['update-action-cache'])) return check.saw('update_enabled is true');
        const reply = await update(context, await anAction(context), {});
        mustRefuse(check, 'UpdateActionResult', reply, 'PERMISSION_DENIED', 'UNAUTHENTICATED', 'UNIMPLEMENTED');
      }),
    ],
  },
  {
    id: 'P27',
    title: 'The key of a result',
    says: 'Instance name, digest function, hash and size of the action together.',
    source: 'REAPI, service ActionCache',
    parts: [
      part('instances', ['update-action-cache', 'instances'], async (context, check) => {
        const action = await anAction(context);
        const results = ['conformance', 'conformance/b/c'].map(
          (worker) => [worker, { executionMetadata: { worker } }] as const,
        );
        for (const [instance, result] of results)
          mustBeOk(check, instance, await update(context, action, result, instance));
        for (const [instance] of results) {
          const worker = (await get(context, action, {}, instance)).response?.executionMetadata?.worker;
          check.must(worker === instance, `instance ${instance} has the result of "${worker}"`);
        }
        mustRefuse(check, 'a third instance', await get(context, action, {}, 'conformance/third'), 'NOT_FOUND');
      }),
      part('size', ['update-action-cache'], async (context, check) => {
        const action = await anAction(context);
        await update(context, action, {});
        const reply = await get(context, { ...action, sizeBytes: action.sizeBytes + 1 });
        mustRefuse(check, 'another size', reply, 'NOT_FOUND', 'INVALID_ARGUMENT');
      }),
      part('function', ['update-action-cache', 'blake3'], async (context, check) => {
        const action = await anAction(context);
        await update(context, { ...action, fn: 'sha256' }, {});
        mustRefuse(check, 'the same digits as BLAKE3', await get(context, { ...action, fn: 'blake3' }), 'NOT_FOUND');
      }),
    ],
  },
  {
    id: 'P28',
    title: 'The HTTP cache',
    says: 'PUT, GET and HEAD under /ac/ and /cas/; bytes that do not hash to their name are refused with 400.',
    source: "Bazel's HTTP caching protocol",
    parts: [
      part('CAS', ['http'], async (context, check) => {
        const bytes = context.fresh(100_000);
        const digest = digestOf('sha256', bytes);
        const url = `http://${context.http}/cas/${digest.hash}`;
        check.must((await status(url)) === 404, 'GET before PUT is not 404');
        check.must((await status(url, { method: 'HEAD' })) === 404, 'HEAD before PUT is not 404');
        const wrong = await status(url, { method: 'PUT', body: context.fresh(100) });
        check.must(wrong === 400, `PUT of other bytes: ${wrong}, not 400`);
        check.must((await status(url)) === 404, 'other bytes are visible');
        const stored = await status(url, { method: 'PUT', body: bytes });
        check.must(stored >= 200 && stored < 300, `PUT: ${stored}`);
        const response = await fetch(url);
        check.must(response.status === 200, `GET: ${response.status}`);
        check.must(Buffer.from(await response.arrayBuffer()).equals(bytes), 'GET: other bytes');
        const head = await fetch(url, { method: 'HEAD' });
        check.must(head.status === 200, `HEAD: ${head.status}`);
        if (Number(head.headers.get('content-length')) !== bytes.byteLength) check.choice('HEAD tells no length');
        check.must(!(await isMissing(context, digest)), 'not there over gRPC');
      }),
      part('prefixes', ['http'], async (context, check) => {
        const bytes = context.fresh();
        const { hash } = digestOf('sha256', bytes);
        for (const prefix of ['/some/prefix', '/p']) {
          const stored = await status(`http://${context.http}${prefix}/cas/${hash}`, { method: 'PUT', body: bytes });
          check.must(stored >= 200 && stored < 300, `PUT under ${prefix}: ${stored}`);
          check.must((await status(`http://${context.http}${prefix}/cas/${hash}`)) === 200, `GET under ${prefix}`);
        }
      }),
      part('AC', ['http'], async (context, check) => {
        const file = context.fresh();
        await put(context, file, 'sha256');
        const result = create(ActionResultSchema, {
          outputFiles: [{ path: 'f', digest: wire(digestOf('sha256', file)) }],
        });
        const url = `http://${context.http}/ac/${digestOf('sha256', context.fresh()).hash}`;
        check.must((await status(url)) === 404, 'GET before PUT is not 404');
        const stored = await status(url, { method: 'PUT', body: Buffer.from(toBinary(ActionResultSchema, result)) });
        check.must(stored >= 200 && stored < 300, `PUT: ${stored}`);
        const response = await fetch(url);
        check.must(response.status === 200, `GET: ${response.status}`);
        const back = fromBinary(ActionResultSchema, new Uint8Array(await response.arrayBuffer()));
        check.must(back.outputFiles[0]?.path === 'f', 'GET: another result');
        const head = await status(url, { method: 'HEAD' });
        check.must(head === 200, `HEAD: ${head}`);
      }),
      part('an AC body that is no result', ['http'], async (context, check) => {
        const url = `http://${context.http}/ac/${digestOf('sha256', context.fresh()).hash}`;
        const stored = await status(url, { method: 'PUT', body: Buffer.from([0xff, 0xff, 0xff, 0xff]) });
        check.must(stored < 500, `PUT: ${stored}`);
        check.choice(stored === 400 ? 'bodies are validated' : `bodies are not validated (PUT: ${stored})`);
      }),
      part('ranges and zstd', ['http'], async (context, check) => {
        const bytes = context.fresh(10_000);
        const { hash } = await put(context, bytes, 'sha256');
        const url = `http://${context.http}/cas/${hash}`;
        const ranged = await fetch(url, { headers: { range: 'bytes=100-199' } });
        const body = Buffer.from(await ranged.arrayBuffer());
        if (ranged.status === 206) check.must(body.equals(bytes.subarray(100, 200)), 'a range of other bytes');
        else check.must(ranged.status === 200 && body.equals(bytes), `a range: ${ranged.status}`);
        check.choice(ranged.status === 206 ? 'ranges are served' : 'ranges are ignored');
        const other = context.fresh(10_000);
        const packed = await status(`http://${context.http}/cas/${digestOf('sha256', other).hash}`, {
          method: 'PUT',
          body: zstd.compress(other),
          headers: { 'content-encoding': 'zstd' },
        });
        const taken = packed >= 200 && packed < 300;
        check.must(taken || (packed >= 400 && packed < 500), `PUT with Content-Encoding zstd: ${packed}`);
        check.must(
          taken !== (await isMissing(context, digestOf('sha256', other))),
          'the answer to a zstd PUT does not fit the store',
        );
        check.choice(taken ? 'zstd uploads are taken' : `zstd uploads are refused with ${packed}`);
      }),
      part('other methods and paths', ['http'], async (context, check) => {
        const { hash } = await put(context, context.fresh(), 'sha256');
        const post = await status(`http://${context.http}/cas/${hash}`, { method: 'POST', body: 'x' });
        check.must(post === 405 || post === 404 || post === 400, `POST: ${post}`);
        const other = await status(`http://${context.http}/nothing/here`);
        check.must(other === 404 || other === 400, `an unknown path: ${other}`);
      }),
    ],
  },
];

export async function status(
  url: string,
  init: Omit<RequestInit, 'body'> & { body?: Buffer | string } = {},
): Promise<number> {
  const response = await fetch(url, init as RequestInit);
  await response.arrayBuffer();
  return response.status;
}

/** An action that is stored with its command and input root, so that a target may look for them. */
function anAction(context: Context): Promise<Digest> {
  return putAction(context, { outputPaths: ['file', 'other'] });
}

async function completeResult(context: Context) {
  const root = create(DirectorySchema, { files: [{ name: 'f', digest: wire(await put(context, context.fresh())) }] });
  return {
    outputFiles: [
      { path: 'file', digest: wire(await put(context, context.fresh())) },
      { path: 'other', digest: wire(await put(context, context.fresh())) },
    ],
    outputDirectories: [
      {
        path: 'dir',
        treeDigest: wire(await putMessage(context, TreeSchema, { root })),
      },
      { path: 'empty', treeDigest: wire(await putMessage(context, TreeSchema, { root: {} })) },
    ],
    stdoutDigest: wire(await put(context, context.fresh(30))),
    stderrDigest: wire(await put(context, context.fresh(30))),
  };
}

export function update(context: Context, action: Digest, actionResult: Result, instanceName = context.instance) {
  return context.client.unary(ActionCache.method.updateActionResult, {
    instanceName,
    actionDigest: wire(action),
    actionResult,
    digestFunction: wireFn(action.fn),
  });
}

export function get(
  context: Context,
  action: Digest,
  hints: Partial<Pick<GetActionResultRequest, 'inlineStdout' | 'inlineStderr' | 'inlineOutputFiles'>> = {},
  instanceName = context.instance,
) {
  return context.client.unary(ActionCache.method.getActionResult, {
    instanceName,
    actionDigest: wire(action),
    digestFunction: wireFn(action.fn),
    ...hints,
  });
}

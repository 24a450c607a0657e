/** The action cache: P24 to P27. */
import { create, toBinary } from '@bufbuild/protobuf';
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
import { type Context, controlOf, openContext } from '../context.ts';
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
      part('after eviction', ['control'], async (context, check) => {
        const blobBytes = 512 * 1024;
        await using server = await controlOf(context).start({ cacheSizeBytes: 16 * blobBytes });
        const own = await openContext(server.target, { seed: 24 });
        try {
          const results: [string, Digest, Digest][] = [];
          for (const what of ['an output file', 'stdout', 'a file in a Tree']) {
            const blob = await put(own, own.fresh(blobBytes));
            const digest = wire(blob);
            const result: Result =
              what === 'stdout'
                ? { stdoutDigest: digest }
                : what === 'an output file'
                  ? { outputFiles: [{ path: 'f', digest }] }
                  : {
                      outputDirectories: [
                        {
                          path: 'd',
                          treeDigest: wire(
                            await putMessage(own, TreeSchema, { root: { files: [{ name: 'f', digest }] } }),
                          ),
                        },
                      ],
                    };
            const action = await anAction(own);
            mustBeOk(check, what, await update(own, action, result));
            results.push([what, action, blob]);
          }
          for (let index = 0; index < 24; index++) await put(own, own.fresh(blobBytes));
          for (const [what, action, blob] of results) {
            const reply = await get(own, action);
            if (reply.code === 'OK') check.must(!(await isMissing(own, blob)), `a hit without ${what}`);
            else mustRefuse(check, what, reply, 'NOT_FOUND');
            check.saw(`${what}: ${reply.code}`);
          }
        } finally {
          own.client.close();
        }
      }),
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
];

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

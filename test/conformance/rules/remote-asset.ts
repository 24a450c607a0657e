/** The Remote Asset API: P61. */
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  Fetch,
  type FetchBlobRequestSchema,
  Push,
} from '../../../protos/gen/build/bazel/remote/asset/v1/remote_asset_pb.ts';
import { BadRequestSchema } from '../../../protos/gen/google/rpc/error_details_pb.ts';
import type { Context } from '../context.ts';
import {
  absentDigest,
  digestOf,
  isMissing,
  mustBeOk,
  mustRefuse,
  put,
  putTree,
  requestBase,
  sameDigest,
  wire,
} from '../fixtures.ts';
import { NotApplicable, type Rule, part } from '../rule.ts';

export const remoteAssetRules: readonly Rule[] = [
  {
    id: 'P61',
    title: 'Remote Asset',
    says: 'An unsupported qualifier is INVALID_ARGUMENT naming it; a fetch that fails is told in the response; checksums are verified.',
    source: 'REAPI, Remote Asset API, Fetch and Push',
    parts: [
      part('qualifiers', async (context, check) => {
        const uris = ['http://127.0.0.1:9/x'];
        const reply = await fetchBlob(context, { uris, qualifiers: [{ name: 'no.such.qualifier', value: 'x' }] });
        mustRefuse(check, 'no.such.qualifier', reply, 'INVALID_ARGUMENT');
        const fields = reply.details
          .flatMap((detail) => anyUnpack(detail, BadRequestSchema)?.fieldViolations ?? [])
          .map(({ field }) => field);
        check.must(fields.join() === 'qualifiers.no.such.qualifier', `the fields named are ${fields.join() || 'none'}`);
      }),
      part('nothing to fetch', async (context, check) => {
        mustRefuse(check, 'no address', await fetchBlob(context, { uris: [] }), 'INVALID_ARGUMENT');
      }),
      part('addresses in order', async (context, check) => {
        const content = context.fresh(5000);
        await using origin = await serve(content);
        const reply = await fetchBlob(context, { uris: [`${origin.url}/gone`, `${origin.url}/content`] });
        if (!mustBeOk(check, 'the second of two', reply)) return;
        check.must((reply.response?.status?.code ?? 0) === 0, `status ${reply.response?.status?.message}`);
        check.must(reply.response?.uri === `${origin.url}/content`, `the address told is ${reply.response?.uri}`);
        const digest = digestOf(context.fn, content);
        check.must(sameDigest(reply.response?.blobDigest, digest), 'another digest');
        check.must(!(await isMissing(context, digest)), 'the blob is not stored');
        check.must(origin.asked.join() === '/gone,/content', `asked for ${origin.asked.join()}`);
      }),
      part('failures', async (context, check) => {
        await using origin = await serve(context.fresh());
        for (const uri of [`${origin.url}/gone`, 'http://127.0.0.1:1/refused', 'no-such-scheme://x']) {
          const reply = await fetchBlob(context, { uris: [uri] });
          if (reply.code === 'INVALID_ARGUMENT' && uri.startsWith('no-such'))
            check.choice('an unknown scheme fails the call');
          else if (mustBeOk(check, `${uri}: the call`, reply)) {
            check.must((reply.response?.status?.code ?? 0) !== 0, `${uri}: no status in the response`);
          }
        }
      }),
      part('checksums', async (context, check) => {
        const content = context.fresh(5000);
        await using origin = await serve(content);
        const uris = [`${origin.url}/content`];
        const bad = await fetchBlob(context, { uris, qualifiers: [sri(context.fresh())] });
        check.must(bad.code !== 'OK' || (bad.response?.status?.code ?? 0) !== 0, 'a wrong checksum is taken');
        const good = await fetchBlob(context, { uris, qualifiers: [sri(content)] });
        check.must(
          good.code === 'OK' && (good.response?.status?.code ?? 0) === 0,
          `the right checksum: ${good.code} ${good.response?.status?.message}`,
        );
      }),
      part('what is old', async (context, check) => {
        await using origin = await serve(context.fresh(5000));
        const uris = [`${origin.url}/content`];
        await fetchBlob(context, { uris });
        const again = await fetchBlob(context, { uris });
        check.must((again.response?.status?.code ?? 0) === 0, `a second time: ${again.response?.status?.message}`);
        check.choice(origin.asked.length === 1 ? 'what was fetched is remembered' : 'fetched each time');
        const before = origin.asked.length;
        const oldestContentAccepted = { seconds: BigInt(Math.floor(Date.now() / 1000) + 60) };
        await fetchBlob(context, { uris, oldestContentAccepted });
        check.must(origin.asked.length > before, 'older content than was accepted is the answer');
      }),
      part('what was pushed', async (context, check) => {
        const content = context.fresh();
        const uris = [`http://127.0.0.1:1/${digestOf('sha256', content).hash}`];
        const blobDigest = wire(await put(context, content));
        const pushed = await context.client.unary(Push.method.pushBlob, { ...requestBase(context), uris, blobDigest });
        if (pushed.code === 'UNIMPLEMENTED') throw new NotApplicable('the Push service is not served');
        if (pushed.code === 'PERMISSION_DENIED') return check.choice(`Push: ${pushed.code}`);
        if (!mustBeOk(check, 'PushBlob', pushed)) return;
        const blob = await fetchBlob(context, { uris });
        check.must(
          blob.response?.blobDigest?.hash === blobDigest.hash,
          `FetchBlob: ${blob.code} ${blob.response?.status?.message}`,
        );
        const rootDirectoryDigest = wire(await putTree(context, { f: content }));
        mustBeOk(
          check,
          'PushDirectory',
          await context.client.unary(Push.method.pushDirectory, { ...requestBase(context), uris, rootDirectoryDigest }),
        );
        const directory = await context.client.unary(Fetch.method.fetchDirectory, { ...requestBase(context), uris });
        check.must(
          directory.response?.rootDirectoryDigest?.hash === rootDirectoryDigest.hash,
          `FetchDirectory: ${directory.code} ${directory.response?.status?.message}`,
        );
      }),
      part('what was pushed and is gone', async (context, check) => {
        const uris = [`http://127.0.0.1:1/${context.fresh(8).toString('hex')}`];
        const blobDigest = wire(absentDigest(context));
        const pushed = await context.client.unary(Push.method.pushBlob, { ...requestBase(context), uris, blobDigest });
        if (pushed.code === 'UNIMPLEMENTED') throw new NotApplicable('the Push service is not served');
        if (pushed.code !== 'OK') return check.choice(`pushing a blob that is not stored: ${pushed.code}`);
        const reply = await fetchBlob(context, { uris });
        check.must((reply.response?.status?.code ?? 0) !== 0, 'a blob is named that is not there');
      }),
    ],
  },
];

async function fetchBlob(
  context: Context,
  request: Omit<MessageInitShape<typeof FetchBlobRequestSchema>, '$typeName' | '$unknown'>,
) {
  const reply = await context.client.unary(Fetch.method.fetchBlob, { ...requestBase(context), ...request });
  if (reply.code === 'UNIMPLEMENTED') throw new NotApplicable('the Fetch service is not served');
  return reply;
}

function sri(bytes: Uint8Array): { name: string; value: string } {
  return { name: 'checksum.sri', value: `sha256-${createHash('sha256').update(bytes).digest('base64')}` };
}

/** An origin of one file, `/content`, that remembers what it was asked for. */
async function serve(content: Buffer): Promise<AsyncDisposable & { readonly url: string; readonly asked: string[] }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    if (request.url === '/content') response.end(content);
    else response.writeHead(404).end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The HTTP cache: P28. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { ActionResultSchema } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf, isMissing, put, wire, zstd } from '../fixtures.ts';
import { type Rule, part } from '../rule.ts';

export const httpRules: readonly Rule[] = [
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

async function status(url: string, init: Omit<RequestInit, 'body'> & { body?: Buffer | string } = {}): Promise<number> {
  const response = await fetch(url, init as RequestInit);
  await response.arrayBuffer();
  return response.status;
}

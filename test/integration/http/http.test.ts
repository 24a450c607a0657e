import { create, fromBinary, fromJsonString, toBinary } from '@bufbuild/protobuf';
import { randomBytes } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { buffer, text } from 'node:stream/consumers';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { digestFunctionNames, digestFunctions, toWireDigest } from '../../../protos/digest.ts';
import {
  type ActionResult,
  ActionResultSchema,
  type Digest as WireDigest,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf, hashBytes } from '../../../protos/hasher.ts';
import { serveHttp } from '../../../node/http/http-server.ts';
import { StatusError } from '../../../protos/status.ts';
import { openNode, type TestNode } from '../node/fixture.ts';

let on: TestNode;
beforeAll(async () => {
  on = await openNode();
});
afterAll(() => on[Symbol.asyncDispose]());

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | undefined>;
  readonly body: Buffer;
}

/** Bytes as they are on the wire, unlike with `fetch`. */
async function ask(
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: Uint8Array; at?: string } = {},
): Promise<Answer> {
  const url = new URL(options.at ?? on.http);
  return await new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        host: url.hostname,
        port: url.port,
        path,
        method: options.method ?? 'GET',
        headers: options.headers,
        agent: false,
      },
      (response) => {
        const status = response.statusCode ?? 0;
        const headers = response.headers as Record<string, string>;
        buffer(response).then((body) => resolve({ status, headers, body }), reject);
      },
    );
    request.once('error', reject);
    request.end(options.body);
  });
}
const put = (path: string, body: Uint8Array, headers: Record<string, string> = {}): Promise<Answer> =>
  ask(path, { method: 'PUT', body, headers: { 'content-length': String(body.byteLength), ...headers } });
const sha256 = (bytes: Uint8Array): string => hashBytes('sha256', bytes);

describe('/cas/', () => {
  test.each(digestFunctionNames)('keeps blobs by their %s hash', async (fn) => {
    const bytes = randomBytes(100_000);
    const path = `/cas/${fn === 'blake3' ? 'blake3/' : ''}${hashBytes(fn, bytes)}`;
    expect((await ask(path)).status).toBe(404);
    expect((await put(path, bytes)).status).toBe(200);
    const answer = await ask(path);
    expect(answer.status).toBe(200);
    expect(answer.body.equals(bytes)).toBe(true);
  });

  test('shares blobs with gRPC, whatever the instance name', async () => {
    const bytes = randomBytes(50);
    await put(`/team/a/cas/${sha256(bytes)}`, bytes);
    const { missingBlobDigests } = await on.cas.findMissingBlobs({
      instanceName: 'b',
      blobDigests: [toWireDigest(digestOf('sha256', bytes))],
    });
    expect(missingBlobDigests).toEqual([]);
  });

  test('tells size and nothing else to HEAD', async () => {
    const bytes = randomBytes(5_000);
    const path = `/cas/${sha256(bytes)}`;
    expect((await ask(path, { method: 'HEAD' })).status).toBe(404);
    await put(path, bytes);
    const answer = await ask(path, { method: 'HEAD' });
    expect(answer.status).toBe(200);
    expect(answer.headers['content-length']).toBe('5000');
    expect(answer.body).toHaveLength(0);
  });

  test('has the empty blob although nobody uploaded it', async () => {
    const path = `/cas/${digestFunctions.sha256.emptyHash}`;
    expect((await ask(path)).status).toBe(200);
    expect((await ask(path, { method: 'HEAD' })).headers['content-length']).toBe('0');
    expect((await put(path, new Uint8Array())).status).toBe(200);
  });

  test('refuses bytes that hash to something else, and keeps nothing', async () => {
    const path = `/cas/${sha256(randomBytes(10))}`;
    for (const headers of [{}, { 'content-encoding': 'zstd' }]) {
      const body = 'content-encoding' in headers ? zstdCompressSync(randomBytes(10)) : randomBytes(10);
      const answer = await put(path, body, headers);
      expect(answer.status).toBe(400);
      expect(answer.body.toString()).toContain('hash');
    }
    expect((await ask(path)).status).toBe(404);
  });

  test.each([
    ['bytes=0-9', 206, 0, 10],
    ['bytes=90-', 206, 90, 100],
    ['bytes=-5', 206, 95, 100],
    ['bytes=0-1,5-6', 200, 0, 100],
  ])('answers Range %s', async (range, status, from, to) => {
    const bytes = randomBytes(100);
    await put(`/cas/${sha256(bytes)}`, bytes);
    const answer = await ask(`/cas/${sha256(bytes)}`, { headers: { range } });
    expect(answer.status).toBe(status);
    expect(answer.body.equals(bytes.subarray(from, to))).toBe(true);
    if (status === 206) expect(answer.headers['content-range']).toBe(`bytes ${from}-${to - 1}/100`);
  });

  test('answers 416 to a range behind the end', async () => {
    const bytes = randomBytes(100);
    await put(`/cas/${sha256(bytes)}`, bytes);
    const answer = await ask(`/cas/${sha256(bytes)}`, { headers: { range: 'bytes=100-' } });
    expect(answer.status).toBe(416);
    expect(answer.headers['content-range']).toBe('bytes */100');
  });

  test('takes and gives zstd to those who speak it', async () => {
    const bytes = Buffer.alloc(1_000_000, 'compressible ');
    const path = `/cas/${sha256(bytes)}`;
    const packed = zstdCompressSync(bytes);
    expect((await put(path, packed, { 'content-encoding': 'zstd' })).status).toBe(200);
    expect((await ask(path)).body.equals(bytes)).toBe(true);
    const answer = await ask(path, { headers: { 'accept-encoding': 'gzip, zstd;q=0.5' } });
    expect(answer.headers['content-encoding']).toBe('zstd');
    expect(answer.body.byteLength).toBeLessThan(10_000);
    expect(zstdDecompressSync(answer.body).equals(bytes)).toBe(true);
    const unwanted = await ask(path, { headers: { 'accept-encoding': 'zstd;q=0' } });
    expect(unwanted.headers['content-encoding']).toBeUndefined();
  });

  test('bounds what it unpacks, and refuses what is no zstd', async () => {
    const bomb = zstdCompressSync(Buffer.alloc(80 * 1024 * 1024));
    expect((await put(`/cas/${'0'.repeat(64)}`, bomb, { 'content-encoding': 'zstd' })).status).toBe(413);
    const junk = await put(`/cas/${'0'.repeat(64)}`, randomBytes(100), { 'content-encoding': 'zstd' });
    expect(junk.status).toBe(400);
    expect((await put(`/cas/${'0'.repeat(64)}`, randomBytes(9), { 'content-encoding': 'br' })).status).toBe(415);
  });

  test('wants to know the length, and refuses what can never fit', async () => {
    const chunked = await ask(`/cas/${'0'.repeat(64)}`, {
      method: 'PUT',
      body: randomBytes(10),
      headers: { 'transfer-encoding': 'chunked' },
    });
    expect(chunked.status).toBe(411);
    const large = await ask(`/cas/${'0'.repeat(64)}`, {
      method: 'PUT',
      headers: { 'content-length': String(1e15), expect: '100-continue' },
    });
    expect(large.status).toBe(413);
  });

  test('answers the upload of a blob that is held without reading it, and keeps the connection', async () => {
    const bytes = randomBytes(3_000_000);
    const path = `/cas/${sha256(bytes)}`;
    await put(path, bytes);
    const { hostname, port } = new URL(on.http);
    const socket = connect({ host: hostname, port: Number(port) });
    const head = `PUT ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${bytes.byteLength}\r\n\r\n`;
    socket.write(head);
    socket.write(bytes);
    socket.write(`GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
    const answers = await text(socket);
    expect(answers.match(/HTTP\/1\.1 200/g)).toHaveLength(2);
    expect(answers).toContain('ok\n');
  });
});

test('a body that is refused midway does not block its connection', async () => {
  const unused = async (): Promise<never> => {
    throw new Error('unused');
  };
  const server = await serveHttp({
    listen: '127.0.0.1:0',
    blobs: {
      findByHash: unused,
      open: unused,
      get: unused,
      putMany: unused,
      async put(_digest, content) {
        for await (const _ of content) break;
        throw new StatusError('RESOURCE_EXHAUSTED', 'the disk is full');
      },
    },
    actions: { get: unused, put: unused },
    checkInstance: () => {},
    validateActionResults: true,
    maxBlobBytes: 100_000_000,
    metrics: () => '',
    api: { builds: unused, build: unused, explain: unused, top: () => ({}), audits: () => ({}), audit: unused },
    status: unused,
  });
  try {
    const [host, port] = server.address.split(':') as [string, string];
    const socket = connect({ host, port: Number(port) });
    const answers = text(socket);
    const body = Buffer.alloc(40_000_000);
    socket.write(
      `PUT /cas/${'a'.repeat(64)} HTTP/1.1\r\nHost: ${server.address}\r\nContent-Length: ${body.length}\r\n\r\n`,
    );
    socket.write(body);
    socket.end(`GET /healthz HTTP/1.1\r\nHost: ${server.address}\r\nConnection: close\r\n\r\n`);
    expect((await answers).match(/HTTP\/1.1 \d+/g)).toEqual(['HTTP/1.1 507', 'HTTP/1.1 200']);
  } finally {
    await server.close();
  }
});

describe('/ac/', () => {
  const actionHash = (): string => sha256(randomBytes(20));
  const held = async (): Promise<{ result: ActionResult; bytes: Buffer }> => {
    const bytes = randomBytes(30);
    await put(`/cas/${sha256(bytes)}`, bytes);
    const digest = toWireDigest(digestOf('sha256', bytes));
    return { bytes, result: create(ActionResultSchema, { outputFiles: [{ path: 'out', digest }], exitCode: 0 }) };
  };

  test('keeps results by instance name', async () => {
    const { result } = await held();
    const hash = actionHash();
    expect((await ask(`/a/b/ac/${hash}`)).status).toBe(404);
    expect((await put(`/a/b/ac/${hash}`, toBinary(ActionResultSchema, result))).status).toBe(200);
    const answer = await ask(`/a/b/ac/${hash}`);
    expect(answer.status).toBe(200);
    expect(fromBinary(ActionResultSchema, answer.body).outputFiles).toEqual(result.outputFiles);
    expect((await ask(`/a/b/ac/${hash}`, { method: 'HEAD' })).status).toBe(200);
    expect((await ask(`/ac/${hash}`)).status).toBe(404);
  });

  test('refuses a result that names paths outside', async () => {
    const { result } = await held();
    const digest = result.outputFiles[0]?.digest as WireDigest;
    const outside = create(ActionResultSchema, { outputFiles: [{ path: '../../etc/profile', digest }] });
    const { status, body } = await put(`/ac/${actionHash()}`, toBinary(ActionResultSchema, outside));
    expect(status, body.toString()).toBe(400);
  });

  test('speaks JSON to those who ask for it', async () => {
    const { result } = await held();
    const [file] = result.outputFiles;
    const hash = actionHash();
    const json = JSON.stringify({
      outputFiles: [{ path: 'out', digest: { hash: file?.digest?.hash, sizeBytes: '30' }, isExecutable: false }],
      exitCode: 0,
      somethingNew: true,
    });
    const headers = { 'content-type': 'application/json' };
    expect((await put(`/ac/${hash}`, Buffer.from(json), headers)).status).toBe(200);
    const answer = await ask(`/ac/${hash}`, { headers: { accept: 'application/json' } });
    expect(answer.headers['content-type']).toBe('application/json');
    expect(JSON.parse(answer.body.toString()).outputFiles[0].digest.sizeBytes).toBe('30');
    expect(fromJsonString(ActionResultSchema, answer.body.toString()).outputFiles).toEqual(result.outputFiles);
    expect(fromBinary(ActionResultSchema, (await ask(`/ac/${hash}`)).body).outputFiles).toEqual(result.outputFiles);
  });

  test('keeps a result of default values alone, which has no bytes', async () => {
    const hash = actionHash();
    expect((await put(`/ac/${hash}`, new Uint8Array())).status).toBe(200);
    expect((await ask(`/ac/${hash}`)).status).toBe(200);
  });

  test('refuses what is no ActionResult and what names blobs that are not here', async () => {
    const junk = await put(`/ac/${actionHash()}`, Buffer.from('\xff\xffnot a message'));
    expect(junk.status).toBe(400);
    expect(junk.body.toString()).toContain('--http-action-results any');
    const digest = toWireDigest(digestOf('sha256', randomBytes(10)));
    const result = create(ActionResultSchema, { outputFiles: [{ path: 'out', digest }] });
    const incomplete = await put(`/ac/${actionHash()}`, toBinary(ActionResultSchema, result));
    expect(incomplete.status).toBe(400);
    expect(incomplete.body.toString()).toContain(digest.hash);
  });

  test('keeps any body when it is told not to validate', async () => {
    await using loose = await openNode({ validateHttpActionResults: false });
    const hash = actionHash();
    const body = Buffer.from('{"anything":"goes"}');
    const headers = { 'content-length': String(body.byteLength) };
    expect((await ask(`/ac/${hash}`, { method: 'PUT', body, headers, at: loose.http })).status).toBe(200);
    const answer = await ask(`/ac/${hash}`, { at: loose.http });
    expect(answer.status).toBe(200);
    expect(answer.body.equals(body)).toBe(true);
  });
});

describe('the rest', () => {
  test('/metrics is Prometheus text with units in the names', async () => {
    await on.execute(await on.prepare({ script: 'true' })).last;
    const answer = await ask('/metrics');
    expect(answer.headers['content-type']).toContain('text/plain; version=0.0.4');
    const samples = answer.body
      .toString()
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
    for (const sample of samples) expect(sample).toMatch(/^potluck_[a-z_]+(\{.*\})? [0-9.e+-]+$/);
    const names = new Set(samples.map((sample) => /^[a-z_]+/.exec(sample)?.[0] ?? ''));
    for (const name of [
      'potluck_store_bytes',
      'potluck_action_results',
      'potluck_cache_lookups_total',
      'potluck_executions_total',
      'potluck_execution_phase_duration_seconds_bucket',
      'potluck_rpcs_total',
      'potluck_http_requests_total',
      'potluck_process_resident_bytes',
      'potluck_event_loop_lag_seconds',
    ]) {
      expect(names).toContain(name);
    }
    expect(samples).toContain('potluck_executions_total{instance="",outcome="succeeded"} 1');
  });

  test('/api/status is JSON, /healthz is ok', async () => {
    const status = JSON.parse((await ask('/api/status')).body.toString());
    expect(status).toMatchObject({ state: 'serving', dataDir: on.dataDir, execution: { slots: 2 } });
    expect(status.store.blobs).toBeGreaterThan(0);
    expect((await ask('/healthz')).body.toString()).toBe('ok\n');
  });

  test('unknown paths and methods are told what there is', async () => {
    expect((await ask('/nothing')).body.toString()).toContain('/cas/HASH');
    const answer = await ask('/metrics', { method: 'DELETE' });
    expect(answer.status).toBe(405);
    expect(answer.headers['allow']).toBe('GET, HEAD');
    expect((await ask(`/cas/${'A'.repeat(64)}`)).status).toBe(400);
    expect((await ask('/cas/../../etc/passwd')).status).toBe(404);
  });

  test.each([[{ host: 'evil.example' }], [{ origin: 'http://evil.example' }], [{ 'sec-fetch-site': 'cross-site' }]])(
    'a web page gets nothing: %o',
    async (headers) => {
      const bytes = randomBytes(10);
      const path = `/cas/${sha256(bytes)}`;
      const refused = await ask(path, { method: 'PUT', body: bytes, headers: { 'content-length': '10', ...headers } });
      expect(refused.status).toBe(403);
      await put(path, bytes);
      expect((await ask(path, { headers })).status).toBe(403);
      expect((await ask('/api/status', { headers })).status).toBe(403);
    },
  );
});

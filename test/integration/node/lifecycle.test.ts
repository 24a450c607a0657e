import { execFileSync } from 'node:child_process';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { Agent, createServer, type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connectGrpc } from '../../../node/reapi/grpc.ts';
import { toWireDigest } from '../../../protos/digest.ts';
import { Capabilities } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { HealthCheckResponse_ServingStatus as Serving } from '../../../protos/gen/grpc/health/v1/health_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { StatusError } from '../../../protos/status.ts';
import { buildAction, openNode } from './fixture.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'potluck-life-'));
  await chmod(dir, 0o755);
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const failure = (promise: Promise<unknown>): Promise<StatusError> =>
  promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: StatusError) => error,
  );

describe('starting', () => {
  test('an address that is taken is named, and what was opened before is closed again', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as AddressInfo;
    const dataDir = join(dir, 'data');
    const error = await failure(openNode({ dataDir, http: `127.0.0.1:${port}` }));
    expect(error.reason).toContain(`127.0.0.1:${port}`);
    taken.close();
    await using again = await openNode({ dataDir });
    expect(again.node.status().state).toBe('serving');
  });

  test.each([
    ['listen', { listen: ['0.0.0.0:0'] }],
    ['http', { http: '0.0.0.0:0' }],
  ])('an address that others can reach is refused while nothing guards it: %s', async (_what, config) => {
    const error = await failure(openNode({ dataDir: join(dir, 'data'), ...config }));
    expect(error.code).toBe('FAILED_PRECONDITION');
    expect(error.reason).toMatch(/TLS.*bearer token/);
  });

  test('two nodes do not share a data directory', async () => {
    await using one = await openNode();
    const error = await failure(openNode({ dataDir: one.dataDir }));
    expect(error.code).toBe('FAILED_PRECONDITION');
  });

  test('many nodes share a process', async () => {
    await using one = await openNode();
    await using two = await openNode();
    const [digest, other] = [await one.prepare({ script: 'echo one' }), await two.prepare({ script: 'echo two' })];
    const responses = await Promise.all([one.execute(digest).response, two.execute(other).response]);
    expect(responses.map(({ result }) => result?.exitCode)).toEqual([0, 0]);
    expect((await failure(two.execute(digest).last)).code).toBe('FAILED_PRECONDITION');
  });
});

describe('what is served', () => {
  test('a node without slots is a cache only, and says so', async () => {
    await using on = await openNode({ slots: 0 });
    const { executionCapabilities, cacheCapabilities } = await on.capabilities.getCapabilities({});
    expect(executionCapabilities?.execEnabled ?? false).toBe(false);
    expect(cacheCapabilities).toBeDefined();
    expect(on.node.status().execution).toBeNull();
    const { digest } = buildAction({ script: 'true' });
    expect((await failure(on.execute(digest).last)).code).toBe('UNIMPLEMENTED');
  });

  test('only the configured instances are served, by every service', async () => {
    await using on = await openNode({ instances: ['team'] });
    const digest = await on.prepare({ script: 'true' }, 'team');
    expect((await on.execute(digest, { instanceName: 'team' }).response).result?.exitCode).toBe(0);
    expect((await failure(on.execute(digest).last)).code).toBe('INVALID_ARGUMENT');
    expect((await failure(on.capabilities.getCapabilities({ instanceName: 'x' }))).code).toBe('INVALID_ARGUMENT');
    expect((await fetch(`${on.http}/cas/${digest.hash}`)).status).toBe(400);
    expect((await fetch(`${on.http}/team/cas/${digest.hash}`)).status).toBe(200);
  });

  test('a Unix socket serves gRPC and another HTTP', async () => {
    await using on = await openNode({ listen: [`unix:${dir}/grpc.sock`], http: `unix:${dir}/http.sock` });
    expect((await on.capabilities.getCapabilities({})).highApiVersion?.minor).toBe(12);
    expect(on.node.facts.http).toBe(`unix:${dir}/http.sock`);
  });

  test('with TLS and a bearer token, only who has both gets in, by gRPC and by HTTP', async (context) => {
    const certFile = join(dir, 'cert.pem');
    const keyFile = join(dir, 'key.pem');
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', keyFile];
    try {
      execFileSync('openssl', ['req', '-x509', ...key, '-out', certFile, '-days', '2', ...subject], {
        stdio: 'ignore',
      });
    } catch {
      return context.skip('TLS is not checked: there is no openssl to make a certificate with');
    }
    const bearerTokenFile = join(dir, 'token');
    await writeFile(bearerTokenFile, 'secret\n');
    const tls = { certFile, keyFile, clientCaFile: undefined };
    await using on = await openNode({ tls, bearerTokenFile, listen: ['0.0.0.0:0'], http: '0.0.0.0:0' });
    const grpcPort = on.node.facts.grpc[0]?.split(':').at(-1);
    const httpPort = on.node.facts.http?.split(':').at(-1);

    const ca = await readFile(certFile);
    const connect = (bearerToken?: string) => {
      return connectGrpc(`grpcs://localhost:${grpcPort}`, { tls: { ca }, ...(bearerToken && { bearerToken }) });
    };
    const [good, bad, none] = [connect('secret'), connect('guess'), connect()];
    expect((await good.client(Capabilities).getCapabilities({})).highApiVersion?.major).toBe(2);
    for (const connection of [bad, none]) {
      expect((await failure(connection.client(Capabilities).getCapabilities({}))).code).toBe('UNAUTHENTICATED');
    }
    for (const connection of [good, bad, none]) connection.close();

    const status = (path: string, token?: string): Promise<number> =>
      new Promise((resolve, reject) => {
        const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
        const request = httpsRequest(
          { host: 'localhost', port: httpPort, path, ca, headers, agent: false },
          (response) => {
            response.resume();
            resolve(response.statusCode ?? 0);
          },
        );
        request.once('error', reject).end();
      });
    expect(await status('/api/status', 'secret')).toBe(200);
    expect(await status('/api/status', 'guess')).toBe(401);
    expect(await status('/api/status')).toBe(401);
    expect(await status(`/cas/${'0'.repeat(64)}`)).toBe(401);
    expect(await status('/healthz')).toBe(200);
  });
});

describe('closing', () => {
  test('tells those who watch its health, and is done twice as once', async () => {
    await using on = await openNode();
    const seen: number[] = [];
    const watching = (async () => {
      for await (const { status } of on.health.watch({})) seen.push(status);
    })();
    while (seen.length === 0) await new Promise((resolve) => setImmediate(resolve));
    const [first, second] = [on.node.close({ drainMaxMs: 5_000 }), on.node.close({ drainMaxMs: 5_000 })];
    await Promise.all([first, second, watching.catch(() => {})]);
    expect(seen).toEqual([Serving.SERVING, Serving.NOT_SERVING]);
  });

  test('lets an upload end that has begun, and does not wait for its connection to idle', async () => {
    await using on = await openNode();
    const bytes = Buffer.from('a slow upload');
    const { hostname, port } = new URL(on.http);
    const agent = new Agent({ keepAlive: true });
    const path = `/cas/${digestOf('sha256', bytes).hash}`;
    const headers = { 'content-length': String(bytes.byteLength), expect: '100-continue' };
    const upload = httpRequest({ host: hostname, port, path, method: 'PUT', agent, headers });
    const answered = once(upload, 'response');
    upload.flushHeaders();
    await once(upload, 'continue');
    const closing = on.node.close({ drainMaxMs: 600_000 });
    upload.end(bytes);
    const [response] = (await answered) as [IncomingMessage];
    expect(response.statusCode).toBe(200);
    response.resume();
    await closing;
    agent.destroy();
  });

  test('leaves no sandbox directory behind, and the next start finds what was stored', async () => {
    const dataDir = join(dir, 'data');
    const bytes = Buffer.from('kept');
    const digest = digestOf('sha256', bytes);
    await using on = await openNode({ dataDir });
    await on.upload('sha256', [{ digest, bytes }]);
    const running = on.execute(await on.prepare({ script: 'sleep 60' }));
    await running.first;
    await on.node.close({ drainMaxMs: 0 });
    const left = await readdir(join(dataDir, 'sandbox'), { recursive: true });
    expect(left.filter((name) => name.includes('actions/'))).toEqual([]);
    await using again = await openNode({ dataDir });
    expect((await again.cas.findMissingBlobs({ blobDigests: [toWireDigest(digest)] })).missingBlobDigests).toEqual([]);
  });
});

/** Who gets in: addresses, TLS, client certificates, bearer tokens, Unix sockets. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { connectGrpc, type GrpcClientOptions, serveGrpc } from '../../../node/reapi/grpc.ts';
import { bindService } from '../../../node/reapi/handler.ts';
import { createHealth } from '../../../node/reapi/health.ts';
import { Health, HealthCheckRequestSchema } from '../../../protos/gen/grpc/health/v1/health_pb.ts';
import { codeOf } from './harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'potluck-access-'));
afterAll(() => rmSync(folder, { recursive: true }));
const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const open of opened.splice(0).reverse()) await open.close();
});

async function serve(options: Partial<Parameters<typeof serveGrpc>[0]> = {}) {
  const services = [bindService(Health, createHealth([]).handlers)];
  const server = await serveGrpc({ listen: ['127.0.0.1:0'], services, ...options });
  opened.push(server);
  return server.addresses;
}

/** The code of one call. */
async function call(address: string | undefined, options: GrpcClientOptions = {}) {
  const connection = connectGrpc(address as string, options);
  opened.push(connection);
  return codeOf(connection.client(Health).check(create(HealthCheckRequestSchema), { timeoutMs: 30_000 }));
}

/** An authority, and a certificate for 127.0.0.1 of its making; another authority for strangers. */
const keys = (() => {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  try {
    openssl('version');
  } catch {
    return undefined;
  }
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  for (const authority of ['ours', 'theirs']) {
    openssl(
      'req',
      '-x509',
      ...ec,
      '-subj',
      `/CN=${authority}`,
      '-keyout',
      `${authority}.key`,
      '-out',
      `${authority}.pem`,
    );
    openssl(
      'req',
      ...ec,
      '-subj',
      '/CN=127.0.0.1',
      '-addext',
      'subjectAltName=IP:127.0.0.1',
      '-keyout',
      `${authority}-leaf.key`,
      '-out',
      `${authority}.csr`,
    );
    openssl(
      'x509',
      '-req',
      '-in',
      `${authority}.csr`,
      '-CA',
      `${authority}.pem`,
      '-CAkey',
      `${authority}.key`,
      '-copy_extensions',
      'copy',
      '-days',
      '2',
      '-out',
      `${authority}-leaf.pem`,
    );
  }
  return (name: string) => readFileSync(join(folder, name));
})();

describe('an address that others can reach', () => {
  test.each(['0.0.0.0:0', '[::]:0', '192.168.0.1:0', 'example.org:0'])('%s is refused unguarded', async (address) => {
    await expect(serve({ listen: [address] })).rejects.toThrow(/FAILED_PRECONDITION.*certificate/);
    await expect(serve({ listen: [address], bearerToken: 'secret' })).rejects.toThrow(/FAILED_PRECONDITION/);
  });

  test.each(['localhost', '127.0.0.1:x', '127.0.0.1:70000', 'unix:relative', '[1.2.3.4]:5', ''])(
    '"%s" is no address',
    async (address) => {
      await expect(serve({ listen: [address] })).rejects.toThrow(/INVALID_ARGUMENT/);
    },
  );
});

test('a taken address is refused, and none of the others stays open', async () => {
  const [taken] = await serve();
  const path = join(folder, 'other.sock');
  await expect(serve({ listen: [`unix:${path}`, taken as string] })).rejects.toThrow(
    /FAILED_PRECONDITION.*another process/,
  );
  const [address] = await serve({ listen: [`unix:${path}`] });
  expect(await call(address)).toBe('OK');
});

test('a bearer token is asked for over TCP', async () => {
  const path = join(folder, 'bearer.sock');
  const [tcp, unix] = await serve({ listen: ['127.0.0.1:0', `unix:${path}`], bearerToken: 'secret' });
  expect(await call(tcp)).toBe('UNAUTHENTICATED');
  expect(await call(tcp, { bearerToken: 'guess' })).toBe('UNAUTHENTICATED');
  expect(await call(tcp, { bearerToken: 'secret' })).toBe('OK');
  expect(await call(unix)).toBe('OK');
});

test('a Unix socket is for its owner alone, and a stale one is replaced', async () => {
  const path = join(folder, 'own.sock');
  // A process that dies leaves its socket file behind.
  const dying = 'require("net").createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))';
  expect(spawnSync(process.execPath, ['-e', dying, path]).signal).toBe('SIGKILL');
  const [address] = await serve({ listen: [`unix:${path}`] });
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(await call(address)).toBe('OK');
});

test('a file that is no socket is left alone', async () => {
  const path = join(folder, 'precious.txt');
  writeFileSync(path, 'precious');
  await expect(serve({ listen: [`unix:${path}`] })).rejects.toThrow(/FAILED_PRECONDITION.*it is a file/);
  expect(readFileSync(path, 'utf8')).toBe('precious');
});

test('a Unix socket that somebody answers on is left alone', async () => {
  const path = join(folder, 'taken.sock');
  const other = createServer().listen(path);
  opened.push(other);
  await expect(serve({ listen: [`unix:${path}`] })).rejects.toThrow(/FAILED_PRECONDITION/);
  expect(statSync(path).isSocket()).toBe(true);
});

describe.runIf(keys)('TLS', () => {
  const key = keys as NonNullable<typeof keys>;
  const tls = () => ({ cert: key('ours-leaf.pem'), key: key('ours-leaf.key') });
  const ca = () => key('ours.pem');

  test('is spoken only with those who trust the certificate', async () => {
    const [address] = await serve({ tls: tls() });
    expect(await call(address, { tls: { ca: ca() } })).toBe('OK');
    expect(await call(address, { tls: { ca: key('theirs.pem') } })).not.toBe('OK');
    expect(await call(address)).not.toBe('OK');
  });

  test('with an authority for clients lets in its own certificates alone', async () => {
    const [address] = await serve({ tls: { ...tls(), clientCa: ca() } });
    const identity = (name: string) => ({ cert: key(`${name}-leaf.pem`), key: key(`${name}-leaf.key`) });
    expect(await call(address, { tls: { ca: ca(), ...identity('ours') } })).toBe('OK');
    expect(await call(address, { tls: { ca: ca(), ...identity('theirs') } })).not.toBe('OK');
    expect(await call(address, { tls: { ca: ca() } })).not.toBe('OK');
  });

  test('with a token opens other addresses than loopback', async () => {
    const addresses = await serve({ listen: ['127.0.0.1:0'], tls: tls(), bearerToken: 'secret' });
    expect(await call(addresses[0], { tls: { ca: ca() } })).toBe('UNAUTHENTICATED');
    expect(await call(addresses[0], { tls: { ca: ca() }, bearerToken: 'secret' })).toBe('OK');
  });
});
if (!keys) console.log('skipped: TLS, because there is no openssl to make certificates with');

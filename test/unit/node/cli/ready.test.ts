import { hostname } from 'node:os';
import { describe, expect, test } from 'vitest';
import { readyEvent, readyText, type ServingFacts } from '../../../../node/cli/ready.ts';
import { loadConfig } from '../../../../node/config/load.ts';
import type { NodeConfig } from '../../../../node/config/config.ts';

const facts: ServingFacts = {
  grpc: ['127.0.0.1:8980', 'unix:/run/p.sock'],
  http: '127.0.0.1:8981',
  isolation: 'none',
  isolationReason: 'bwrap is not installed',
};
const config = (changes: Partial<NodeConfig> = {}) =>
  loadConfig({ flags: { 'data-dir': '/d', slots: '4' }, env: {}, platform: 'linux' }).then((made) => ({
    ...made,
    ...changes,
  }));
const lines = async (changes?: Partial<NodeConfig>, more: Partial<ServingFacts> = {}) =>
  readyText(await config(changes), { ...facts, ...more }).join('\n');

describe('the text for a person', () => {
  test('has both variants of the .bazelrc lines', async () => {
    const text = await lines();
    expect(text).toContain('\n  build --remote_executor=grpc://127.0.0.1:8980\n');
    expect(text).toContain('\n  build --remote_cache=grpc://127.0.0.1:8980\n');
    expect(text).toContain('none: bwrap is not installed');
  });

  test('names only the cache when there are no slots', async () => {
    const text = await lines({ slots: 0 });
    expect(text).not.toContain('remote_executor');
    expect(text).toContain('this node only caches');
  });

  test('adds what TLS, client certificates, a token and an instance name ask of Bazel', async () => {
    const tls = { certFile: '/cert.pem', keyFile: '/key.pem', clientCaFile: '/ca.pem' };
    const text = await lines({ tls, bearerTokenFile: '/token', instances: ['office/linux'] });
    expect(text).toContain('  build --remote_executor=grpcs://127.0.0.1:8980\n');
    expect(text).toContain('  build --tls_certificate=/cert.pem\n');
    expect(text).toContain('  build --tls_client_certificate=');
    expect(text).toContain('  build --remote_header="authorization=Bearer TOKEN"');
    expect(text).toContain('  build --remote_instance_name=office/linux\n');
    expect(text).toContain('https://127.0.0.1:8981');
  });

  test('names this machine where it is reached on all interfaces', async () => {
    expect(await lines({}, { grpc: ['0.0.0.0:8980'] })).toContain(`grpc://${hostname()}:8980\n`);
    expect(await lines({}, { grpc: ['[::]:8980'] })).toContain(`grpc://${hostname()}:8980\n`);
  });

  test('takes the Unix socket when there is nothing else', async () => {
    expect(await lines({}, { grpc: ['unix:/run/p.sock'], http: undefined })).toContain(
      '--remote_executor=unix:/run/p.sock',
    );
  });
});

test('the event for a program has the fields it may rely on', async () => {
  expect(readyEvent(await config(), { ...facts, http: undefined })).toMatchObject({
    event: 'ready',
    grpc: '127.0.0.1:8980',
    http: null,
    dataDir: '/d',
    addresses: facts.grpc,
    isolation: 'none',
  });
});

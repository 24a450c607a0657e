import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConfigError, type ConfigSources, loadConfig } from '../../../../node/config/load.ts';
import { environmentName, settingNames } from '../../../../node/config/settings.ts';

let dir: string;
let [cert, key, authority, token] = ['', '', '', ''];
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'potluck-config-'));
  cert = await file('cert.pem', '');
  key = await file('key.pem', '');
  authority = await file('ca.pem', '');
  token = await file('token', '');
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const load = (sources: Partial<ConfigSources>) => loadConfig({ flags: {}, env: {}, platform: 'linux', ...sources });

async function file(name: string, text: string): Promise<string> {
  const path = join(dir, name);
  await writeFile(path, text);
  return path;
}

async function problemsOf(sources: Partial<ConfigSources>): Promise<readonly string[]> {
  const error = await load(sources).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(ConfigError);
  return (error as ConfigError).problems;
}

describe('defaults', () => {
  test('serve loopback only, sync to disk, and put the cache where the platform says', async () => {
    const config = await load({ env: { XDG_CACHE_HOME: '/somewhere' } });
    expect(config).toMatchObject({
      dataDir: '/somewhere/potluck',
      listen: ['127.0.0.1:8980'],
      http: '127.0.0.1:8981',
      durability: 'full',
      instances: undefined,
      tls: undefined,
      validateHttpActionResults: true,
      remoteAsset: false,
    });
    expect(config.slots).toBeGreaterThan(0);
    expect(config.cacheSizeBytes).toBeGreaterThan(0);
    expect(config.cacheSizeBytes).toBeLessThanOrEqual(50e9);
  });

  test('on macOS lie in the Library; a relative XDG_CACHE_HOME is ignored', async () => {
    expect((await load({ platform: 'darwin' })).dataDir).toMatch(/\/Library\/Caches\/potluck$/);
    expect((await load({ env: { XDG_CACHE_HOME: 'relative' } })).dataDir).toMatch(/\/\.cache\/potluck$/);
  });
});

describe('sources', () => {
  test('flags win over the environment, the environment over the file', async () => {
    const path = await file('order.yaml', 'slots: 1\ncache-size: 1GB\nhttp: off\n');
    const config = await load({
      flags: { slots: '3' },
      env: { POTLUCK_SLOTS: '2', POTLUCK_CACHE_SIZE: '2GiB' },
      file: path,
    });
    expect(config).toMatchObject({ slots: 3, cacheSizeBytes: 2 * 2 ** 30, http: undefined });
  });

  test('the environment can name the file; --config wins', async () => {
    const one = await file('one.yaml', 'slots: 1');
    const two = await file('two.yaml', 'slots: 2');
    expect((await load({ env: { POTLUCK_CONFIG: one } })).slots).toBe(1);
    expect((await load({ env: { POTLUCK_CONFIG: one }, file: two })).slots).toBe(2);
  });

  test('lists repeat as flags, take commas in the environment and are lists or one value in the file', async () => {
    expect((await load({ flags: { instance: ['a', ''] } })).instances).toEqual(['a', '']);
    expect((await load({ env: { POTLUCK_INSTANCE: 'a,b/c' } })).instances).toEqual(['a', 'b/c']);
    const list = await file('list.yaml', 'listen: ["127.0.0.1:0", unix:/run/p.sock]\nplatform:\n  - OSFamily=linux\n');
    expect(await load({ file: list })).toMatchObject({
      listen: ['127.0.0.1:0', 'unix:/run/p.sock'],
      platformProperties: [{ name: 'OSFamily', value: 'linux' }],
    });
    expect((await load({ file: await file('scalar.yaml', 'instance: main') })).instances).toEqual(['main']);
  });

  test('every setting can be given in each way', async () => {
    const values: Record<string, string> = {
      'data-dir': '/d',
      listen: '127.0.0.1:1',
      http: '127.0.0.1:2',
      'cache-size': '9GB',
      slots: '7',
      instance: 'x',
      durability: 'fast',
      'tls-cert': cert,
      'tls-key': key,
      'tls-client-ca': authority,
      'bearer-token-file': token,
      bwrap: '/b',
      'default-action-timeout': '1m',
      'max-action-timeout': '2m',
      platform: 'a=b',
      'http-action-results': 'any',
      'remote-asset': 'on',
      mesh: 'on',
      'mesh-listen': '127.0.0.1:3',
      'mesh-data-listen': '127.0.0.1:4',
      'mesh-peer': '127.0.0.1:5',
      'mesh-discovery': 'off',
      replicas: '2',
      'mesh-upload-rate': '5MB',
      trust: 'publishers',
      site: 'berlin',
      lend: 'always',
      'lend-slots': '3',
      'audit-percent': '2.5',
      'log-format': 'json',
    };
    expect(Object.keys(values).sort()).toEqual([...settingNames].sort());
    const lists = new Set(['listen', 'instance', 'platform', 'mesh-peer']);
    const flags = Object.fromEntries(
      Object.entries(values).map(([name, text]) => [name, lists.has(name) ? [text] : text]),
    );
    const env = Object.fromEntries(Object.entries(values).map(([name, text]) => [environmentName(name), text]));
    const yaml = await file(
      'all.yaml',
      Object.entries(values)
        .map(([name, text]) => `${name}: "${text}"`)
        .join('\n'),
    );
    const byFlags = await load({ flags });
    expect(byFlags).toEqual({
      dataDir: '/d',
      listen: ['127.0.0.1:1'],
      http: '127.0.0.1:2',
      cacheSizeBytes: 9e9,
      slots: 7,
      instances: ['x'],
      durability: 'fast',
      tls: { certFile: cert, keyFile: key, clientCaFile: authority },
      bearerTokenFile: token,
      bwrapPath: '/b',
      defaultActionTimeoutMs: 60_000,
      maxActionTimeoutMs: 120_000,
      platformProperties: [{ name: 'a', value: 'b' }],
      validateHttpActionResults: false,
      remoteAsset: true,
      auditPercent: 2.5,
      mesh: {
        listen: '127.0.0.1:3',
        dataListen: '127.0.0.1:4',
        bootstrap: ['127.0.0.1:5'],
        discovery: false,
        site: 'berlin',
        trust: 'publishers',
        uploadBytesPerSecond: 5e6,
        replicas: 2,
        lend: { when: 'always', slots: 3 },
      },
      logFormat: 'json',
    });
    expect(await load({ env })).toEqual(byFlags);
    expect(await load({ file: yaml })).toEqual(byFlags);
  });
});

test('the mesh is on unless it is turned off; its second port follows the first', async () => {
  expect((await load({})).mesh).toEqual({
    listen: '0.0.0.0:8982',
    dataListen: '0.0.0.0:8983',
    bootstrap: [],
    site: '',
    discovery: true,
    trust: 'members',
    uploadBytesPerSecond: undefined,
    replicas: 1,
    lend: { when: 'idle', slots: undefined },
  });
  expect((await load({ flags: { 'mesh-listen': '127.0.0.1:0' } })).mesh?.dataListen).toBe('127.0.0.1:0');
  expect((await load({ flags: { mesh: 'off' } })).mesh).toBeUndefined();
});

describe('problems', () => {
  test('of all sources come together, each with its place', async () => {
    const path = await file('bad.yaml', '# mine\ndurability: maybe\ncolour: red\nslots: [1]\n');
    const problems = await problemsOf({
      flags: { 'cache-size': 'huge' },
      env: { POTLUCK_LISTEN: '127.0.0.1:1,nowhere', POTLUCK_SLOT: '2' },
      file: path,
    });
    expect(problems).toEqual([
      expect.stringMatching(/bad\.yaml:3 colour: no such setting; known are data-dir, /),
      expect.stringMatching(/bad\.yaml:4 slots: must be one value/),
      'POTLUCK_SLOT: no such setting; did you mean POTLUCK_SLOTS?',
      expect.stringMatching(/^POTLUCK_LISTEN: "nowhere" is not an address/),
      expect.stringMatching(/^--cache-size: "huge" is not a size/),
      expect.stringMatching(/bad\.yaml:2 durability: "maybe" is not one of full, fast/),
    ]);
  });

  test('are not seen in variables that are nothing like a setting', async () => {
    const env = { POTLUCK_ACTION: 'x', POTLUCK_TEST_SECRET: 'x', POTLUCK_CRASH_ROUNDS: '100', POTLUCK_VERSION: '1' };
    await expect(load({ env })).resolves.toBeDefined();
  });

  test('of a file that is no YAML name the line', async () => {
    expect(await problemsOf({ file: await file('broken.yaml', 'slots: 1\nhttp: [\n') })).toEqual([
      expect.stringMatching(/broken\.yaml:\d+: /),
    ]);
    expect(await problemsOf({ file: await file('text.yaml', 'just words') })).toEqual([
      expect.stringMatching(/must hold settings/),
    ]);
    expect(await problemsOf({ file: await file('twice.yaml', 'slots: 1\nslots: 2\n') })).toHaveLength(1);
    expect(await problemsOf({ file: join(dir, 'absent.yaml') })).toEqual([
      expect.stringMatching(/cannot be read \(ENOENT\)/),
    ]);
  });

  test('an address that other machines reach needs TLS and a way to tell clients apart', async () => {
    const open = { listen: ['0.0.0.0:8980'], http: '[::]:8981' };
    expect(await problemsOf({ flags: open })).toHaveLength(2);
    const tls = { 'tls-cert': cert, 'tls-key': key };
    expect(await problemsOf({ flags: { ...open, ...tls } })).toHaveLength(2);
    for (const guard of [{ 'tls-client-ca': authority }, { 'bearer-token-file': token }]) {
      expect(await load({ flags: { ...open, ...tls, ...guard } })).toMatchObject({ listen: ['0.0.0.0:8980'] });
    }
    expect(await problemsOf({ flags: { listen: ['0.0.0.0:1'], 'bearer-token-file': token } })).toHaveLength(1);
  });

  test('credentials that cannot be read', async () => {
    const flags = { 'tls-cert': join(dir, 'no-cert'), 'tls-key': key, 'bearer-token-file': join(dir, 'no-token') };
    expect(await problemsOf({ flags })).toEqual([
      expect.stringMatching(/^--tls-cert: .*no-cert cannot be read \(ENOENT\)$/),
      expect.stringMatching(/^--bearer-token-file: .*no-token cannot be read \(ENOENT\)$/),
    ]);
  });

  test('settings that need each other', async () => {
    expect(await problemsOf({ flags: { 'tls-cert': cert } })).toEqual([expect.stringContaining('needs --tls-key')]);
    expect(await problemsOf({ flags: { 'tls-client-ca': cert } })).toEqual([
      expect.stringContaining('needs --tls-cert'),
    ]);
    expect(await problemsOf({ flags: { 'default-action-timeout': '2h', 'max-action-timeout': '1h' } })).toHaveLength(1);
    expect((await load({ flags: { 'max-action-timeout': '1m' } })).defaultActionTimeoutMs).toBe(60_000);
  });

  test.each([
    ['slots', '-1'],
    ['slots', '1.5'],
    ['slots', '99999'],
    ['cache-size', '1MB'],
    ['cache-size', '5 parsecs'],
    ['default-action-timeout', '10'],
    ['http', '127.0.0.1'],
    ['http', '127.0.0.1:70000'],
  ])('--%s %s is refused', async (name, text) => {
    expect(await problemsOf({ flags: { [name]: text } })).toHaveLength(1);
  });

  test.each(['a//b', '/a', 'blobs', 'a/uploads'])('instance name %j is refused', async (name) => {
    expect(await problemsOf({ flags: { instance: [name] } })).toHaveLength(1);
  });
});

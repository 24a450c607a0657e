/** The owner's socket, tried by others: another user of the machine, a directory laid out beforehand, requests out of shape. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, expect, test } from 'vitest';
import { post } from '../../../../node/cli/mesh-socket.ts';
import { adminSocketPath } from '../../../../node/mesh/admin-requests.ts';
import { serveAdmin } from '../../../../node/mesh/admin-server.ts';
import { adminBytesMax } from '../../../../node/mesh/limits.ts';

const closers: (() => unknown)[] = [];

const nobody = 65_534;

function runAs(uid: number, script: string): string {
  const { stdout } = spawnSync(process.execPath, ['-e', script], { uid, gid: uid, cwd: '/' });
  return (stdout ?? '').toString().trim();
}

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

function newDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'potluck-admin-'));
  closers.push(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

async function serve(dataDir: string): Promise<{ handled: unknown[]; path: string }> {
  const handled: unknown[] = [];
  const server = await serveAdmin(dataDir, async (request) => {
    handled.push(request);
    return { done: true };
  });
  closers.push(() => server.close());
  return { handled, path: adminSocketPath(dataDir) };
}

function say(socketPath: string, body: string): Promise<{ code: number | undefined; answer: string }> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ socketPath, method: 'POST' }, (response) => {
      text(response).then((answer) => resolve({ code: response.statusCode, answer }), reject);
    });
    sent.once('error', reject);
    sent.end(body);
  });
}

test('the socket and its directory are the owner s alone', async () => {
  const { handled, path } = await serve(newDir());
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(statSync(dirname(path)).mode & 0o777).toBe(0o700);
  expect(await say(path, '{"do":"peers"}')).toMatchObject({ code: 200 });
  expect(handled).toEqual([{ do: 'peers' }]);
});

/** Only root can pose as somebody else, who must be able to run this Node. */
const canPose = process.getuid?.() === 0 && runAs(nobody, 'console.log(1)') === '1';

test.runIf(canPose)('another user of the machine does not get through, even into the directory', async () => {
  const dataDir = newDir();
  const { handled, path } = await serve(dataDir);
  // As open as a careless owner can make it, short of letting others write there.
  for (const dir of [dataDir, dirname(path)]) chmodSync(dir, 0o755);
  const script = `require('node:net').connect(${JSON.stringify(path)})
    .on('error', ({ code }) => console.log(code)).on('connect', () => { console.log('connected'); process.exit(); })`;
  const attempt = (uid: number): string => runAs(uid, script);
  const [stranger, owner] = [attempt(nobody), attempt(0)];
  expect(owner).toBe('connected');
  expect(stranger).toBe('EACCES');
  expect(handled).toEqual([]);
});

test('a directory that others can write to, or a link, is not used', async () => {
  const [open, linked] = [newDir(), newDir()];
  mkdirSync(join(open, 'mesh'));
  chmodSync(join(open, 'mesh'), 0o777);
  await expect(serveAdmin(open, async () => ({}))).rejects.toThrow(/can be written by others/);
  symlinkSync(newDir(), join(linked, 'mesh'));
  await expect(serveAdmin(linked, async () => ({}))).rejects.toThrow(/belongs to somebody else/);
});

test('a command tells nothing to a socket that somebody else could have laid out', async () => {
  const dataDir = newDir();
  const path = adminSocketPath(dataDir);
  mkdirSync(dirname(path));
  let heard = 0;
  const trap = createServer((_, response) => {
    heard += 1;
    response.end('{}');
  });
  await new Promise<void>((resolve) => trap.listen(path, resolve));
  closers.push(() => trap.close());
  chmodSync(dirname(path), 0o777);
  const invitation = JSON.stringify({ do: 'join', token: 'potluck-secret', name: '' });
  await expect(async () => post(dataDir, invitation)).rejects.toThrow(/can be written by others/);
  expect(heard).toBe(0);
});

test('requests too long or out of shape reach nobody, and answers show no stack', async () => {
  const { handled, path } = await serve(newDir());
  for (const body of ['{', '', 'do=peers', JSON.stringify({ do: 'x'.repeat(adminBytesMax) })]) {
    const { code, answer } = await say(path, body);
    expect(code).toBe(400);
    expect(answer).not.toMatch(/\bat .*\.ts/);
  }
  expect(handled).toEqual([]);
});

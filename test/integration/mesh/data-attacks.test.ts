/**
 * The data plane under attack, over real sockets: strangers in the middle and in numbers, and members that keep to no rule.
 * Waiting times are short here; which they are is the business of the limits.
 */
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { createDataClient, type RemoteBlob } from '../../../mesh/net/data/client.ts';
import { introduce, welcome } from '../../../mesh/net/data/hello.ts';
import * as limits from '../../../mesh/net/data/limits.ts';
import { memberCredentials } from '../../../mesh/net/data/member-credentials.ts';
import { type DataServer, type DataServerOptions, type DataSource, serveData } from '../../../mesh/net/data/server.ts';
import { createTlsIdentity } from '../../../mesh/net/data/tls-identity.ts';
import type { Credentials } from '../../../mesh/net/data/credentials.ts';
import { type Identity, openIdentity } from '../../../mesh/net/identity/identity.ts';
import { invitationId, prove } from '../../../mesh/net/identity/invitation.ts';
import * as issuing from '../../../mesh/net/identity/issuer.ts';
import { openKey } from '../../../mesh/net/identity/keys.ts';
import { membershipMs, skewMs } from '../../../mesh/net/identity/limits.ts';
import { identityPaths, writeState } from '../../../mesh/net/identity/state.ts';
import { digestKey } from '../../../protos/digest.ts';
import { randomBlob } from '../../contract/blobs.ts';
import { createTestMesh, type TestMember } from '../../support/test-mesh.ts';
import { until } from '../../support/until.ts';
import { createMeeting, type Meeting } from './meeting.ts';

vi.mock('../../../mesh/net/data/limits.ts', async (original) => ({
  ...(await original<typeof limits>()),
  handshakeMs: 1_000,
  headersMs: 300,
  bodyMs: 1_000,
  lateCheckMs: 100,
  drainMs: 300,
  stallMs: 1_500,
}));

const identity = await createTlsIdentity();
const other = await createTlsIdentity();
const mesh = createTestMesh('mesh one');
const [anna, ben] = [mesh.join(), mesh.join()];
const { digest, bytes } = randomBlob(1_000);
const get = `GET /blobs/${digestKey(digest)} HTTP/1.1\r\nhost: potluck\r\n\r\n`;
const closers: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

function sourceOf(content = bytes, calls: DataSource['calls'] = new Map()): DataSource {
  return {
    open: async () => ({
      isArriving: false,
      has: () => true,
      async *read({ offset, length }) {
        for (let at = offset; at < offset + length; at += 65_536) {
          yield content.subarray(at, Math.min(offset + length, at + 65_536));
        }
      },
      async [Symbol.asyncDispose]() {},
    }),
    get: async () => content,
    async put(_peer, _digest, stream) {
      for await (const chunk of stream) void chunk;
    },
    calls,
  };
}

async function serve(more: Partial<DataServerOptions> = {}): Promise<DataServer> {
  const server = await serveData({
    host: '127.0.0.1',
    port: 0,
    credentials: anna.credentials,
    identity,
    source: sourceOf(),
    ...more,
  });
  closers.push(() => server.close());
  return server;
}

interface Heard {
  readonly socket: TLSSocket;
  text(): string;
  readonly closed: Promise<unknown>;
}

function listen(socket: TLSSocket): Heard {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => {});
  const closed = new Promise((resolve) => (socket.closed ? resolve(undefined) : socket.once('close', resolve)));
  return { socket, text: () => Buffer.concat(chunks).toString('latin1'), closed };
}

async function tlsTo(port: number, own = other): Promise<TLSSocket> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, key: own.key, cert: own.cert });
  closers.push(() => socket.destroy());
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  return socket;
}

/** A connection on which a member has proven who it is; what it says next is up to the test. */
async function memberAt(port: number, member: TestMember = ben, expected = anna.peer): Promise<Heard> {
  const socket = await tlsTo(port);
  await introduce(socket, expected, { credentials: member.credentials, identity: other });
  return listen(socket);
}

/** A TLS server of somebody who keeps to no rule. */
async function lyingServer(serveSocket: (socket: TLSSocket) => Promise<void> | void, own = other): Promise<number> {
  const server = createServer(
    { key: own.key, cert: own.cert, requestCert: true, rejectUnauthorized: false, minVersion: 'TLSv1.3' },
    (socket) => {
      socket.on('error', () => {});
      closers.push(() => socket.destroy());
      void serveSocket(socket);
    },
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => void server.close());
  return (server.address() as { port: number }).port;
}

function clientOf(credentials: Credentials, port: number) {
  const client = createDataClient({ credentials, identity, addressesOf: () => [{ host: '127.0.0.1', port }] });
  closers.push(() => client.close());
  return client;
}

describe('a stranger', () => {
  test('between two members who passes their hellos on is believed by neither', async () => {
    const refusals: string[] = [];
    const server = await serve({ onRefused: (_, reason) => refusals.push(reason) });
    let heardFromClient = 0;
    const port = await lyingServer(async (socket) => {
      const onward = await tlsTo(server.port);
      socket.on('data', (chunk: Buffer) => {
        heardFromClient += chunk.byteLength;
        onward.write(chunk);
      });
      onward.on('data', (chunk: Buffer) => socket.write(chunk));
      onward.on('close', () => socket.destroy());
    });
    await expect(clientOf(ben.credentials, port).read(anna.peer, digest, undefined)).rejects.toMatchObject({
      failure: 'refused',
    });
    expect(heardFromClient).toBeGreaterThan(100);
    expect(refusals).toEqual([expect.stringContaining('not signed with the key of its peer id')]);
  });

  test('that shows the very TLS certificates of the two is no better off', async () => {
    // It cannot have their keys, but say it had: only the session tells the two connections apart.
    const server = await serve();
    const port = await lyingServer(async (socket) => {
      const onward = await tlsTo(server.port, identity);
      socket.pipe(onward).pipe(socket);
      onward.on('close', () => socket.destroy());
    }, identity);
    await expect(clientOf(ben.credentials, port).read(anna.peer, digest, undefined)).rejects.toMatchObject({
      failure: 'refused',
    });
  });

  test('that sends a hello back to who said it is refused', async () => {
    const port = await lyingServer((socket) => void socket.pipe(socket));
    await expect(clientOf(ben.credentials, port).read(ben.peer, digest, undefined)).rejects.toMatchObject({
      failure: 'refused',
    });
  });

  test('that trickles its hello is closed in time', async () => {
    const server = await serve();
    const socket = await tlsTo(server.port);
    const heard = listen(socket);
    const trickle = setInterval(() => socket.write(Uint8Array.of(0)), 200);
    await heard.closed;
    clearInterval(trickle);
    expect(heard.text()).toBe('');
    expect(server.connections()).toEqual({ members: 0, strangers: 0 });
  });

  test.runIf(process.platform === 'linux')(
    'that opens many connections without a word of TLS keeps no member out',
    async () => {
      const server = await serve();
      const sockets: Socket[] = [];
      for (let i = 0; i < 2 * limits.strangersPerAddressMax; i++) {
        const socket = connectTcp({ host: '127.0.0.1', port: server.port, localAddress: '127.0.0.2' });
        sockets.push(socket.on('error', () => {}).resume());
        await new Promise((resolve) => socket.once('connect', resolve).once('close', resolve));
      }
      closers.push(() => sockets.forEach((socket) => socket.destroy()));
      const later = sockets.slice(limits.strangersPerAddressMax);
      await until(() => later.every(({ closed }) => closed));
      expect(server.connections().strangers).toBe(limits.strangersPerAddressMax);
      const member = await memberAt(server.port);
      member.socket.write(get);
      await until(() => member.text().startsWith('HTTP/1.1 200'));
      expect(server.connections().members).toBe(1);
      await until(() => server.connections().strangers === 0);
    },
  );
});

describe('a member', () => {
  test('that asks for more before it was answered is cut off', async () => {
    let opened = 0;
    const source = sourceOf();
    const hold = Promise.withResolvers<void>();
    const server = await serve({
      source: {
        ...source,
        async open(...asked) {
          opened += 1;
          await hold.promise;
          return source.open(...asked);
        },
      },
    });
    const member = await memberAt(server.port);
    member.socket.write(get.repeat(20));
    await member.closed;
    hold.resolve();
    expect(opened).toBe(1);
    expect(member.text()).toBe('');
  });

  test('that does not finish the head of a request is cut off', async () => {
    const server = await serve();
    const member = await memberAt(server.port);
    member.socket.write('GET /blobs/');
    const trickle = setInterval(() => member.socket.write('a'), 50);
    await member.closed;
    clearInterval(trickle);
    expect(server.connections().members).toBe(0);
  });

  test.each([
    ['a batch', 'POST /blobs', 10_000],
    ['a call', 'POST /calls/echo', 10_000],
    ['a blob', `PUT /blobs/${digestKey(digest)}`, 1_000],
  ])('that trickles the body of %s is cut off', async (_, line, length) => {
    const server = await serve({ source: sourceOf(bytes, new Map([['echo', async (_, body) => body]])) });
    const member = await memberAt(server.port);
    member.socket.write(`${line} HTTP/1.1\r\nhost: potluck\r\ncontent-length: ${length}\r\n\r\n`);
    const trickle = setInterval(() => member.socket.write('a'), 50);
    await member.closed;
    clearInterval(trickle);
    expect(member.text()).not.toContain(' 200 ');
  });

  test('that takes nothing of what it asked for gives its upload back', async () => {
    const large = randomBlob(32 * 1024 * 1024);
    const uploadLimits = () => ({ uploadsMax: 1, uploadsPerPeerMax: 1, bytesPerSecond: undefined });
    const server = await serve({ source: sourceOf(large.bytes), uploadLimits });
    const socket = await tlsTo(server.port);
    await introduce(socket, anna.peer, { credentials: ben.credentials, identity: other });
    socket.pause();
    socket.write(`GET /blobs/${digestKey(large.digest)} HTTP/1.1\r\nhost: potluck\r\n\r\n`);
    await until(() => server.connections().members === 0);
    const next = await memberAt(server.port, mesh.join());
    next.socket.write(get);
    await until(() => next.text().startsWith('HTTP/1.1 '));
    expect(next.text()).toMatch(/^HTTP\/1.1 200/);
  });

  test('that announces large calls leaves room for those of others', async () => {
    const server = await serve({ source: sourceOf(bytes, new Map([['echo', async (_, body) => body]])) });
    const head = (length: number): string =>
      `POST /calls/echo HTTP/1.1\r\nhost: potluck\r\ncontent-length: ${length}\r\n\r\n`;
    const greedy = await memberAt(server.port);
    greedy.socket.write(head(limits.heldCallBytesMax));
    await until(() => greedy.text().startsWith('HTTP/1.1 400'));
    const many: Heard[] = [];
    for (let i = 0; i < 9; i++) many.push(await memberAt(server.port));
    for (const { socket } of many) socket.write(head(limits.callBytesMax));
    await until(() => many.filter((one) => one.text().startsWith('HTTP/1.1 503')).length === 7);
    const modest = await memberAt(server.port, mesh.join());
    modest.socket.write(`${head(5)}hello`);
    await until(() => modest.text().endsWith('hello'));
  });

  test('finds no second way to say how long a body is', async () => {
    const server = await serve({ source: sourceOf(bytes, new Map([['echo', async (_, body) => body]])) });
    for (const lengths of [
      'content-length: 5\r\ntransfer-encoding: chunked',
      'content-length: 5\r\ncontent-length: 6',
      'transfer-encoding: chunked, identity',
    ]) {
      const member = await memberAt(server.port);
      member.socket.write(
        `POST /calls/echo HTTP/1.1\r\nhost: potluck\r\n${lengths}\r\n\r\n5\r\nhello\r\n0\r\n\r\n${get}`,
      );
      await member.closed;
      expect(member.text(), lengths).toMatch(/^HTTP\/1.1 400 Bad Request\r\n/);
      expect(member.text().match(/HTTP\/1\.1/g)).toHaveLength(1);
    }
  });
});

describe('a member that serves', () => {
  /** Proves who it is, then says `answer` whatever it is asked, again and again while the client listens. */
  async function servingLiar(answer: string, everyMs?: number): Promise<number> {
    return await lyingServer(async (socket) => {
      await welcome(socket, { credentials: anna.credentials, identity: other });
      const heard = listen(socket);
      await until(() => heard.text().includes('\r\n\r\n'));
      socket.write(answer);
      const again = everyMs === undefined ? undefined : setInterval(() => socket.write(answer), everyMs);
      closers.push(() => clearInterval(again));
    });
  }

  test.each([
    ['says "wait" for ever', 'HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n', 20],
    ['names another length', `HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n`, undefined],
    ['names no length', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n', 20],
  ])('and %s is found out', async (_, answer, everyMs) => {
    const port = await servingLiar(answer, everyMs);
    await expect(clientOf(ben.credentials, port).read(anna.peer, digest, undefined)).rejects.toMatchObject({
      failure: 'lied',
    });
  });

  test('and sends headers without end is given up', async () => {
    const port = await servingLiar('HTTP/1.1 200 OK\r\n', 1);
    const more = 'x: ' + 'y'.repeat(10_000) + '\r\n';
    const endless = await servingLiar(`HTTP/1.1 200 OK\r\n${more}`, 1);
    for (const at of [port, endless]) {
      await expect(clientOf(ben.credentials, at).read(anna.peer, digest, undefined)).rejects.toMatchObject({
        failure: 'unreachable',
      });
    }
  });

  test('and sends more than it announced gives that to nobody', async () => {
    const rest = `HTTP/1.1 200 OK\r\ncontent-length: ${bytes.byteLength}\r\n\r\n${'z'.repeat(bytes.byteLength)}`;
    const port = await servingLiar(`HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello${rest}`);
    const client = clientOf(ben.credentials, port);
    await expect(client.read(anna.peer, digest, { offset: 0, length: 5 }).then(readAll)).resolves.toBe('hello');
    // What came behind it is no answer to the next question.
    const next = await client.read(anna.peer, digest, undefined).then(readAll, (error: { failure: string }) => error);
    expect(next).toMatchObject({ failure: expect.stringMatching(/unreachable|stalled|refused|lied/) });
  });

  async function readAll(blob: RemoteBlob): Promise<string> {
    const chunks: Uint8Array[] = [];
    for await (const part of blob.bytes) chunks.push(part);
    return Buffer.concat(chunks).toString('latin1');
  }
});

describe('with real certificates', () => {
  let meeting: Meeting;
  const clock = { offsetMs: 0 };

  function opened(dataDir: string): Identity {
    const found = openIdentity({ dataDir, nowMs: () => Date.now() + clock.offsetMs });
    if (!found) throw new Error('no identity');
    return found;
  }

  function joined(host: Identity): Identity {
    const dataDir = meeting.newDir();
    const { peerId } = openKey(identityPaths(dataDir).key);
    const { secret } = issuing.invite(host, { ttlMs: 60_000, roles: [] });
    const joining = { issuer: host.peerId, joiner: peerId, nonce: new Uint8Array(16) };
    const proof = prove(secret, 'join', joining);
    const admission = issuing.admit(host, { ...joining, invitationId: invitationId(secret), proof, name: 'guest' });
    if (!('certificate' in admission)) throw new Error(admission.refused);
    writeState(dataDir, { mesh: host.mesh.bytes, certificate: admission.certificate });
    return opened(dataDir);
  }

  async function openConnection(): Promise<{ founder: Identity; issuer: Identity; guest: Identity; kept: Heard }> {
    meeting = createMeeting();
    closers.push(() => meeting[Symbol.asyncDispose]());
    clock.offsetMs = 0;
    const dataDir = meeting.newDir();
    issuing.foundMesh({ dataDir, name: 'founder', nowMs: Date.now() });
    const founder = opened(dataDir);
    const issuer = joined(founder);
    issuing.acceptDelegation(issuer, issuing.addIssuer(founder, issuer.peerId));
    const guest = joined(issuer);
    const server = await serve({ credentials: memberCredentials(founder) });
    const socket = await tlsTo(server.port);
    await introduce(socket, founder.peerId, { credentials: memberCredentials(guest), identity: other });
    const kept = listen(socket);
    socket.write(get);
    await until(() => kept.text().length > bytes.byteLength);
    return { founder, issuer, guest, kept };
  }

  test('a member whose issuer was removed loses its open connection', async () => {
    const { founder, issuer, kept } = await openConnection();
    issuing.removeIssuer(founder, issuer.peerId, []);
    await kept.closed;
  });

  test('one whose issuer was revoked does too', async () => {
    const { founder, issuer, kept } = await openConnection();
    issuing.revoke(founder, issuer.peerId);
    await kept.closed;
  });

  test('one whose membership ran out is answered no more', async () => {
    const { kept } = await openConnection();
    clock.offsetMs = membershipMs + skewMs + 60_000;
    const before = kept.text();
    kept.socket.write(get);
    await kept.closed;
    expect(kept.text()).toBe(before);
  });
});

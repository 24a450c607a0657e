import { constants } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { connect, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { createDataClient, type DataClient } from '../../../mesh/net/data/client.ts';
import type { Credentials } from '../../../mesh/net/data/credentials.ts';
import { introduce, welcome } from '../../../mesh/net/data/hello.ts';
import { type DataServerOptions, type DataSource, serveData, type UploadGate } from '../../../mesh/net/data/server.ts';
import { createTlsIdentity } from '../../../mesh/net/data/tls-identity.ts';
import { newKey } from '../../../mesh/net/identity/keys.ts';
import { type Digest, digestKey } from '../../../protos/digest.ts';
import { randomBlob } from '../../contract/blobs.ts';
import { createTestMesh, type TestMember } from '../../support/test-mesh.ts';
import { until } from '../../support/until.ts';

const identity = await createTlsIdentity();
const otherIdentity = await createTlsIdentity();
const closers: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

function sourceOf(blobs: readonly { digest: Digest; bytes: Uint8Array }[]) {
  const held = new Map(blobs.map(({ digest, bytes }) => [digestKey(digest), bytes]));
  const taken = new Map<string, Uint8Array>();
  const source: DataSource = {
    async open(digest) {
      const bytes = held.get(digestKey(digest));
      return (
        bytes && {
          isArriving: false,
          has: () => true,
          async *read({ offset, length }) {
            for (let at = offset; at < offset + length; at += 100_000) {
              yield bytes.subarray(at, Math.min(offset + length, at + 100_000));
            }
          },
          async [Symbol.asyncDispose]() {},
        }
      );
    },
    get: async (digest) => held.get(digestKey(digest)),
    async put(_, digest, content) {
      const chunks: Uint8Array[] = [];
      for await (const chunk of content) chunks.push(chunk);
      taken.set(digestKey(digest), Buffer.concat(chunks));
    },
    calls: new Map([['echo', async (peer, body) => Buffer.from(`${peer} said ${Buffer.from(body).toString()}`)]]),
  };
  return { source, held, taken };
}

async function serve(member: TestMember, source: DataSource, more: Partial<DataServerOptions> = {}) {
  const server = await serveData({
    host: '127.0.0.1',
    port: 0,
    credentials: member.credentials,
    identity,
    source,
    ...more,
  });
  closers.push(() => server.close());
  return server;
}

function clientOf(credentials: Credentials, port: number): DataClient {
  const client = createDataClient({
    credentials,
    identity: otherIdentity,
    addressesOf: () => [{ host: '127.0.0.1', port }],
  });
  closers.push(() => client.close());
  return client;
}

async function readAll(client: DataClient, peer: string, digest: Digest, range?: { offset: number; length: number }) {
  await using blob = await client.read(peer, digest, range);
  const chunks: Uint8Array[] = [];
  for await (const part of blob.bytes) chunks.push(part);
  return Buffer.concat(chunks);
}

describe('between members', () => {
  const mesh = createTestMesh('mesh one');
  const [anna, ben] = [mesh.join(), mesh.join()];

  test('blobs and ranges of them arrive, many at once, over few connections', async () => {
    const blobs = [randomBlob(1), randomBlob(300_000), randomBlob(2_000_000)];
    const server = await serve(anna, sourceOf(blobs).source);
    const client = clientOf(ben.credentials, server.port);
    const [, , large] = blobs;
    if (!large) throw new Error('three blobs');
    const reads = blobs.map(async ({ digest, bytes }) => {
      expect((await readAll(client, anna.peer, digest)).equals(bytes)).toBe(true);
    });
    await Promise.all(reads);
    const part = await readAll(client, anna.peer, large.digest, { offset: 999_999, length: 500_001 });
    expect(part.equals(large.bytes.subarray(999_999, 1_500_000))).toBe(true);
    await Promise.all(Array.from({ length: 40 }, () => readAll(client, anna.peer, large.digest)));
    expect(server.connections().members).toBeLessThanOrEqual(8);
    expect(server.connections().strangers).toBe(0);
  });

  test('a batch brings what is held and says what is not', async () => {
    const held = Array.from({ length: 500 }, (_, at) => randomBlob(at * 37));
    const absent = randomBlob(10);
    const server = await serve(anna, sourceOf(held).source);
    const client = clientOf(ben.credentials, server.port);
    const wanted = [...held.slice(0, 250), absent, ...held.slice(250)];
    let at = 0;
    for await (const { digest, bytes } of client.readMany(
      anna.peer,
      wanted.map(({ digest }) => digest),
    )) {
      const expected = wanted[at++];
      expect(digest).toEqual(expected?.digest);
      if (expected === absent) expect(bytes).toBeUndefined();
      else expect(Buffer.from(bytes ?? []).equals(expected?.bytes ?? Buffer.of(1))).toBe(true);
    }
    expect(at).toBe(501);
  });

  test('what is not held is missing, and the connection is used again', async () => {
    const server = await serve(anna, sourceOf([]).source);
    const client = clientOf(ben.credentials, server.port);
    for (let i = 0; i < 10; i++) {
      await expect(client.read(anna.peer, randomBlob(5).digest, undefined)).rejects.toMatchObject({
        failure: 'missing',
      });
    }
    expect(server.connections().members).toBe(1);
  });

  test('calls and blobs handed over reach the other side under the name of the member that sent them', async () => {
    const { source, taken } = sourceOf([]);
    const server = await serve(anna, source);
    const client = clientOf(ben.credentials, server.port);
    const answer = await client.call(anna.peer, 'echo', Buffer.from('hello'));
    expect(Buffer.from(answer).toString()).toBe(`${ben.peer} said hello`);
    const { digest, bytes } = randomBlob(700_000);
    const content = async function* () {
      for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000);
    };
    await client.write(anna.peer, digest, content());
    expect(Buffer.from(taken.get(digestKey(digest)) ?? []).equals(bytes)).toBe(true);
  });

  test('a node whose gate refuses says when to come again, and whom to ask', async () => {
    const { digest, bytes } = randomBlob(50_000);
    const cleo = mesh.join();
    const asked: unknown[] = [];
    const gate: UploadGate = {
      async ask(peer, parts) {
        asked.push([peer, parts]);
        return { refused: true, tryPeers: [cleo.peer], retryAfterMs: 321 };
      },
    };
    const server = await serve(anna, sourceOf([{ digest, bytes }]).source, { gate });
    const client = clientOf(ben.credentials, server.port);
    const range = { offset: 10, length: 20 };
    await expect(client.read(anna.peer, digest, range)).rejects.toMatchObject({
      failure: 'busy',
      tryPeers: [cleo.peer],
      retryAfterMs: 321,
    });
    expect(asked).toEqual([[ben.peer, [{ blob: digestKey(digest), offset: 10, lengthBytes: 20, whole: false }]]]);
  });

  test('a node serves so many at once, and refuses who waits too long', async () => {
    const { digest, bytes } = randomBlob(50_000);
    const { source } = sourceOf([{ digest, bytes }]);
    const hold = Promise.withResolvers<void>();
    const slow: DataSource = {
      ...source,
      async open(...about) {
        await hold.promise;
        return source.open(...about);
      },
    };
    const uploadLimits = () => ({ uploadsMax: 1, uploadsPerPeerMax: 1, bytesPerSecond: undefined });
    const server = await serve(anna, slow, { uploadLimits });
    const client = clientOf(ben.credentials, server.port);
    const first = readAll(client, anna.peer, digest);
    await until(() => server.connections().members === 1);
    await expect(client.read(anna.peer, digest, undefined)).rejects.toMatchObject({ failure: 'busy' });
    hold.resolve();
    expect((await first).equals(bytes)).toBe(true);
  });

  test('a source that breaks off midway is a broken transfer, never a short one', async () => {
    const { digest, bytes } = randomBlob(500_000);
    const { source } = sourceOf([{ digest, bytes }]);
    const broken: DataSource = {
      ...source,
      async open() {
        return {
          isArriving: true,
          has: () => true,
          async *read() {
            yield bytes.subarray(0, 200_000);
            throw new Error('the disk broke');
          },
          async [Symbol.asyncDispose]() {},
        };
      },
    };
    const server = await serve(anna, broken);
    const client = clientOf(ben.credentials, server.port);
    await expect(readAll(client, anna.peer, digest)).rejects.toMatchObject({ failure: 'unreachable' });
  });

  test('a member that is gone is unreachable, and one that answers for another is refused', async () => {
    const server = await serve(anna, sourceOf([]).source);
    const { digest } = randomBlob(5);
    const cleo = mesh.join();
    await expect(clientOf(ben.credentials, server.port).read(cleo.peer, digest, undefined)).rejects.toMatchObject({
      failure: 'refused',
    });
    await server.close();
    await expect(clientOf(ben.credentials, server.port).read(anna.peer, digest, undefined)).rejects.toMatchObject({
      failure: 'unreachable',
    });
  });
});

describe('strangers', () => {
  const mesh = createTestMesh('mesh one');
  const anna = mesh.join();
  const { digest, bytes } = randomBlob(1_000);

  /** A TLS client that does as it likes; resolves to all that the server sent until it closed the connection. */
  async function talk(
    port: number,
    say: (socket: TLSSocket) => Promise<void> | void,
    more: object = {},
  ): Promise<{ received: string; session: Buffer | undefined }> {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...more });
    let session: Buffer | undefined;
    socket.on('session', (ticket: Buffer) => (session = ticket));
    socket.on('error', () => {});
    const chunks: Buffer[] = [];
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.once('secureConnect', () => {
      void (async () => {
        await say(socket);
        socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      })().catch(() => socket.destroy());
    });
    await closed;
    return { received: Buffer.concat(chunks).toString('latin1'), session };
  }

  const get = `GET /blobs/${digestKey(digest)} HTTP/1.1\r\nhost: potluck\r\n\r\n`;
  const own = { key: otherIdentity.key, cert: otherIdentity.cert };

  test.each([
    ['speaks HTTP at once', (socket: TLSSocket) => void socket.write(get), own],
    ['shows no TLS certificate', (socket: TLSSocket) => void socket.write(get), {}],
    ['sends a hello too long', (socket: TLSSocket) => void socket.write(Buffer.alloc(100_000, 0xff)), own],
    [
      'sends a hello of rubbish',
      (socket: TLSSocket) => void socket.write(Buffer.from([0, 0, 0, 5, 1, 0, 0, 0, 9])),
      own,
    ],
    ['speaks TLS 1.2', (socket: TLSSocket) => void socket.write(get), { ...own, maxVersion: 'TLSv1.2' as const }],
  ])('one who %s gets no byte', async (_, say, more) => {
    const server = await serve(anna, sourceOf([{ digest, bytes }]).source);
    expect((await talk(server.port, say, more)).received).toBe('');
    expect(server.connections()).toEqual({ members: 0, strangers: 0 });
  });

  test.each([
    ['of another mesh', () => createTestMesh('mesh one').join().credentials],
    [
      'of another mesh that lends its id',
      () => ({ ...createTestMesh('mesh two').join().credentials, meshId: 'mesh one' }),
    ],
    [
      'with the certificate of a member whose key it lacks',
      () => {
        const victim = mesh.join();
        const thief = newKey();
        return { ...victim.credentials, sign: (...about) => thief.sign(...about) };
      },
    ],
    [
      'who was revoked',
      () => {
        const member = mesh.join();
        mesh.revoke(member.peer);
        return member.credentials;
      },
    ],
    ['who signs for another mesh', () => ({ ...mesh.join().credentials, meshId: 'mesh two' })],
  ])('one %s is refused without a word', async (_, stranger) => {
    const refusals: string[] = [];
    const server = await serve(anna, sourceOf([{ digest, bytes }]).source, {
      onRefused: (_, reason) => refusals.push(reason),
    });
    const credentials = stranger();
    const { received } = await talk(
      server.port,
      (socket) =>
        introduce(socket, anna.peer, {
          credentials: { ...credentials, verify: (shown) => anna.credentials.verify(shown) },
          identity: otherIdentity,
        }),
      own,
    );
    expect(received).toBe('');
    expect(refusals).toHaveLength(1);
  });

  test('a member whose hello names another TLS key is refused', async () => {
    const server = await serve(anna, sourceOf([{ digest, bytes }]).source);
    const ben = mesh.join();
    const third = await createTlsIdentity();
    const { received } = await talk(
      server.port,
      (socket) => introduce(socket, anna.peer, { credentials: ben.credentials, identity: third }),
      own,
    );
    expect(received).toBe('');
  });

  test('a hello that was overheard is worth nothing on another connection', async () => {
    const server = await serve(anna, sourceOf([{ digest, bytes }]).source);
    const ben = mesh.join();
    let overheard = Buffer.alloc(0);
    await talk(
      server.port,
      async (socket) => {
        const write = socket.write.bind(socket);
        socket.write = ((chunk: Buffer) => {
          overheard = Buffer.concat([overheard, chunk]);
          return write(chunk);
        }) as typeof socket.write;
        await introduce(socket, anna.peer, { credentials: ben.credentials, identity: otherIdentity });
        socket.destroy();
      },
      own,
    );
    expect(overheard.length).toBeGreaterThan(100);
    const { received } = await talk(server.port, (socket) => void socket.write(overheard), own);
    expect(received).toBe('');
  });

  test('a member who sends HTTP along with its hello is refused', async () => {
    const server = await serve(anna, sourceOf([{ digest, bytes }]).source);
    const ben = mesh.join();
    const { received } = await talk(
      server.port,
      (socket) => {
        const write = socket.write.bind(socket);
        socket.write = ((hello: Buffer) => write(Buffer.concat([hello, Buffer.from(get)]))) as typeof socket.write;
        return introduce(socket, anna.peer, { credentials: ben.credentials, identity: otherIdentity });
      },
      own,
    );
    expect(received).toBe('');
  });

  test('revocation closes open connections, and neither a new one nor a resumed session brings a byte', async () => {
    const server = await serve(anna, sourceOf([{ digest, bytes }]).source);
    const ben = mesh.join();
    const client = clientOf(ben.credentials, server.port);
    expect((await readAll(client, anna.peer, digest)).equals(bytes)).toBe(true);
    const kept = talk(
      server.port,
      (socket) => introduce(socket, anna.peer, { credentials: ben.credentials, identity: otherIdentity }),
      own,
    );
    await until(() => server.connections().members === 2);
    mesh.revoke(ben.peer);
    const { received, session } = await kept;
    expect(received).toBe('');
    await until(() => server.connections().members === 0);
    await expect(client.read(anna.peer, digest, undefined)).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    const again = await talk(server.port, (socket) => void socket.write(get), { ...own, ...(session && { session }) });
    expect(again.received).toBe('');
  });

  test('a stranger that serves in the place of a member is sent no request', async () => {
    const foreign = createTestMesh('mesh one').join();
    let asked = 0;
    const { source } = sourceOf([{ digest, bytes }]);
    const server = await serve(foreign, { ...source, open: async () => void asked++ as undefined });
    const ben = mesh.join();
    await expect(clientOf(ben.credentials, server.port).read(anna.peer, digest, undefined)).rejects.toMatchObject({
      failure: 'refused',
    });
    expect(asked).toBe(0);
  });

  test('the server offers no session that could be resumed', async () => {
    const server = await serve(anna, sourceOf([{ digest, bytes }]).source);
    const ben = mesh.join();
    const say = async (socket: TLSSocket) => {
      await introduce(socket, anna.peer, { credentials: ben.credentials, identity: otherIdentity });
      setTimeout(() => socket.destroy(), 50);
    };
    const { session } = await talk(server.port, say, own);
    let reused: boolean | undefined;
    await talk(
      server.port,
      (socket) => {
        reused = socket.isSessionReused();
        socket.destroy();
      },
      { ...own, secureOptions: constants.SSL_OP_NO_TICKET, ...(session && { session }) },
    );
    expect(reused).toBe(false);
  });
});

describe('a member that speaks HTTP of its own', () => {
  const mesh = createTestMesh('mesh one');
  const [anna, ben] = [mesh.join(), mesh.join()];
  const { digest } = randomBlob(1_000);

  /** Proves to be Anna, and then answers whatever is asked with `head` and bytes without end. */
  async function openEndless(head: string): Promise<DataClient> {
    const server = createTlsServer({
      key: identity.key,
      cert: identity.cert,
      requestCert: true,
      rejectUnauthorized: false,
      minVersion: 'TLSv1.3',
    });
    const sockets = new Set<TLSSocket>();
    server.on('secureConnection', (socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      void (async () => {
        await welcome(socket, { credentials: anna.credentials, identity });
        socket.once('data', () => {
          socket.write(head);
          const more = (): void => {
            while (!socket.destroyed && socket.write(Buffer.from(`4000\r\n${'x'.repeat(0x4000)}\r\n`)));
          };
          socket.on('drain', more);
          more();
        });
      })().catch(() => socket.destroy());
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closers.push(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return clientOf(ben.credentials, (server.address() as AddressInfo).port);
  }

  test.each([
    ['a longer body', 'HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n'],
    ['a body without a length', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n'],
    ['a header without end', 'HTTP/1.1 200 OK\r\nx: '],
    ['an error without end', 'HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n'],
    ['something else', 'SSH-2.0-OpenSSH\r\n'],
  ])('%s instead of a blob is not read to its end', async (_, head) => {
    const client = await openEndless(head);
    const error = await client.read(anna.peer, digest, undefined).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ peer: anna.peer });
    await expect(client.call(anna.peer, 'echo', Buffer.alloc(0))).rejects.toMatchObject({ peer: anna.peer });
  });

  test('a batch without end is broken off after what was asked for', async () => {
    const client = await openEndless('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
    const reading = (async () => {
      for await (const _ of client.readMany(anna.peer, [digest]));
    })();
    await expect(reading).rejects.toMatchObject({ failure: 'lied' });
  });
});

/** Connections that misbehave below gRPC. Each case ends by itself and leaves nothing of its own behind. */
import assert from 'node:assert';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { codes } from '../../../protos/status.ts';
import type { Context } from '../context.ts';
import { digestOf, put, readName, writeName } from '../fixtures.ts';
import { create, toBinary } from '@bufbuild/protobuf';
import { ReadRequestSchema, WriteRequestSchema } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';

/** No case waits longer for the server to react; those that wait for nothing wait `pauseMs`. */
const reactionMs = 5_000;
const pauseMs = 50;
const idleStreams = 2_000;
/** What every HTTP/2 connection begins with (RFC 9113, section 3.4). */
const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

export interface Abuse {
  readonly name: string;
  run(context: Context, random: () => number): Promise<void>;
}

export const abuses: readonly Abuse[] = [
  {
    name: 'headers above any bound',
    run: (context) =>
      withSession(context, async (session) => {
        const large = Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`x-${index}`, 'v'.repeat(1000)]));
        await over(session.request({ ...grpcHeaders('/google.bytestream.ByteStream/Read'), ...large }));
      }),
  },
  {
    name: 'thousands of idle streams',
    run: (context) =>
      withSession(context, async (session) => {
        const streams = Array.from({ length: idleStreams }, () => quiet(session.request(writeHeaders)));
        await pause();
        for (const stream of streams) stream.close(http2.constants.NGHTTP2_CANCEL);
      }),
  },
  {
    name: 'a reader that never reads',
    run: async (context) => {
      const digest = await put(context, context.fresh(4 * 1024 * 1024));
      const request = framed(
        toBinary(ReadRequestSchema, create(ReadRequestSchema, { resourceName: readName(context, digest) })),
      );
      await withSession(context, async (session) => {
        const streams = Array.from({ length: 20 }, () =>
          quiet(session.request(grpcHeaders('/google.bytestream.ByteStream/Read'))),
        );
        for (const stream of streams) stream.pause().end(request);
        await pause();
      });
    },
  },
  {
    name: 'an upload that breaks off with its connection',
    run: async (context, random) => {
      const bytes = context.fresh(300_000);
      const message = create(WriteRequestSchema, {
        resourceName: writeName(context, digestOf(context.fn, bytes)),
        data: bytes.subarray(0, 200_000),
      });
      const frame = framed(toBinary(WriteRequestSchema, message));
      await withSession(context, async (session) => {
        const stream = quiet(session.request(writeHeaders));
        stream.write(frame.subarray(0, Math.floor(random() * frame.byteLength)));
        await pause();
      });
      // An upload that waits to be resumed ends when the blob is there.
      await put(context, bytes);
    },
  },
  {
    name: 'frames that lie about their length',
    run: (context) =>
      withSession(context, async (session) => {
        for (const frame of [
          Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]),
          Buffer.from([0, 0, 0, 0, 100, 1, 2, 3]),
          Buffer.from([1, 0, 0, 0, 3, 1, 2, 3]),
          Buffer.from([7, 0, 0, 0, 0]),
          Buffer.from([0]),
          Buffer.alloc(0),
        ]) {
          const stream = session.request(grpcHeaders('/google.bytestream.ByteStream/QueryWriteStatus'));
          stream.end(frame);
          refused(`a frame ${frame.toString('hex')}`, await over(stream));
        }
      }),
  },
  {
    name: 'requests that are not gRPC',
    run: (context) =>
      withSession(context, async (session) => {
        for (const headers of [
          { ':method': 'GET', ':path': '/' },
          { ':method': 'POST', ':path': '/a/b', 'content-type': 'text/plain' },
          { ':method': 'POST', ':path': '/google.bytestream.ByteStream/Read', 'content-type': 'application/json' },
          { ':method': 'POST', ':path': '/..//%00', 'content-type': 'application/grpc' },
          { ...grpcHeaders('/google.bytestream.ByteStream/Read'), 'grpc-timeout': 'soon' },
          { ...grpcHeaders('/google.bytestream.ByteStream/Read'), 'grpc-encoding': 'snappy' },
          { ...grpcHeaders('/google.bytestream.ByteStream/Read'), 'x-bin': '***' },
        ]) {
          const stream = session.request(headers);
          stream.end();
          refused(JSON.stringify(headers), await over(stream));
        }
      }),
  },
  {
    name: 'streams that are reset at once',
    run: (context) =>
      withSession(context, async (session) => {
        for (let index = 0; index < 300; index++)
          quiet(session.request(writeHeaders)).close(http2.constants.NGHTTP2_CANCEL);
        await pause();
      }),
  },
  {
    name: 'settings and pings without end',
    run: async (context) => {
      const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
      const ping = Buffer.concat([Buffer.from([0, 0, 8, 6, 0, 0, 0, 0, 0]), Buffer.alloc(8, 7)]);
      const flood = Array.from({ length: 5_000 }, () => [settings, ping]).flat();
      await overTcp(context.grpc, Buffer.concat([preface, ...flood]));
    },
  },
  {
    name: 'bytes that are not HTTP/2',
    run: async (context, random) => {
      for (const bytes of [
        Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n'),
        preface,
        Buffer.concat([preface, Buffer.from(Array.from({ length: 500 }, () => Math.floor(random() * 256)))]),
        Buffer.from(Array.from({ length: 500 }, () => Math.floor(random() * 256))),
        Buffer.alloc(0),
      ]) {
        await overTcp(context.grpc, bytes);
      }
    },
  },
  {
    name: 'HTTP requests that are cut or odd',
    run: async (context, random) => {
      if (!context.http) return;
      const { hash } = digestOf('sha256', context.fresh());
      for (const text of [
        `PUT /cas/${hash} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nshort`,
        `PUT /cas/${hash} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nff\r\nshort`,
        `GET /cas/${hash} HTTP/1.1\r\nhost: x\r\nrange: bytes=5-1,-,9999999999999999999-\r\n\r\n`,
        `GET /${'a/'.repeat(2000)} HTTP/1.1\r\nhost: x\r\n\r\n`,
        `BREW /cas/${hash} HTTP/1.1\r\nhost: x\r\n\r\n`,
        `GET /ac/${hash}\0 HTTP/1.1\r\n\r\n`,
        `PUT /ac/${hash} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 3\r\n\r\n{]}`,
        String.fromCharCode(...Array.from({ length: 300 }, () => Math.floor(random() * 256))),
      ]) {
        await overTcp(context.http, Buffer.from(text, 'latin1'));
      }
      const agent = new http.Agent({ keepAlive: false });
      const [hostname, port] = context.http.split(':');
      for (const path of ['/cas/', '/ac', '/cas/%ff', '//cas//', '/metrics?x=1', '/api/status/../..']) {
        const request = http.request({ hostname, port, path, agent } as http.RequestOptions);
        request.end();
        const [response] = (await once(request, 'response')) as [http.IncomingMessage];
        response.resume();
        await once(response, 'end');
        if ((response.statusCode ?? 500) >= 500) throw new Error(`GET ${path}: ${response.statusCode}`);
      }
    },
  },
];

const writeHeaders = grpcHeaders('/google.bytestream.ByteStream/Write');

function grpcHeaders(path: string): http2.OutgoingHttpHeaders {
  return { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' };
}

/** A message as gRPC frames it: no compression, length, bytes. */
function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.byteLength, 1);
  return Buffer.concat([head, message]);
}

async function withSession(context: Context, use: (session: http2.ClientHttp2Session) => Promise<void>): Promise<void> {
  const session = http2.connect(`http://${context.grpc}`, { settings: { initialWindowSize: 65_535 } });
  session.on('error', () => {});
  await Promise.race([once(session, 'connect'), rejectAfter(reactionMs, 'no connection')]);
  const closed = new Promise((resolve) => session.once('close', resolve));
  try {
    await use(session);
  } finally {
    session.destroy();
    await closed;
  }
}

function quiet(stream: http2.ClientHttp2Stream): http2.ClientHttp2Stream {
  stream.on('error', () => {});
  return stream;
}

interface Answer {
  /** Absent when the stream was reset without one. */
  readonly http?: number | undefined;
  readonly grpc?: number | undefined;
}

/** Waits until the server has ended the stream one way or the other. */
async function over(stream: http2.ClientHttp2Stream): Promise<Answer> {
  let answer: Answer = {};
  const note = (headers: http2.IncomingHttpHeaders) => {
    const grpc = headers['grpc-status'] === undefined ? answer.grpc : Number(headers['grpc-status']);
    answer = { http: headers[':status'] === undefined ? answer.http : Number(headers[':status']), grpc };
  };
  quiet(stream).on('response', note).on('trailers', note).resume();
  const closed = new Promise((resolve) => stream.once('close', resolve));
  if (!stream.writableEnded) stream.end();
  await Promise.race([
    closed,
    rejectAfter(reactionMs, `no end of a stream to ${String(stream.sentHeaders?.[':path'])}`),
  ]);
  return answer;
}

/** A refusal has a status that tells why: no success, no UNKNOWN, no server error of HTTP. */
function refused(what: string, { http, grpc }: Answer): void {
  const success = grpc === codes.OK || (grpc === undefined && http === 200);
  assert(!success && grpc !== codes.UNKNOWN && (http ?? 0) < 500, `${what}: HTTP ${http}, gRPC status ${grpc}`);
}

/** Sends bytes, waits a little for what comes, and goes away. */
async function overTcp(address: string, bytes: Buffer): Promise<void> {
  const [host, port] = address.split(':');
  const socket = net.connect(Number(port), host as string);
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.resume();
  socket.write(bytes);
  await Promise.race([closed, pause()]);
  socket.destroy();
  await closed;
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, pauseMs));
}

async function rejectAfter(ms: number, text: string): Promise<never> {
  await new Promise((resolve) => setTimeout(resolve, ms).unref());
  throw new Error(text);
}

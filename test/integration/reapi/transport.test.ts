/** The gRPC server as such, with handlers made for the purpose. */
import { once } from 'node:events';
import { type ClientHttp2Stream, connect, createServer, type IncomingHttpHeaders } from 'node:http2';
import { type AddressInfo, createConnection } from 'node:net';
import { gzipSync } from 'node:zlib';
import { create, type DescMethod, toBinary } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { type Route, serveCall } from '../../../node/reapi/grpc-call.ts';
import { frameMessage } from '../../../node/reapi/grpc-framing.ts';
import { type CallReport, connectGrpc, serveGrpc } from '../../../node/reapi/grpc.ts';
import { bindService, type CallContext, type ServiceHandlers } from '../../../node/reapi/handler.ts';
import { limits } from '../../../node/reapi/limits.ts';
import {
  ByteStream,
  QueryWriteStatusRequestSchema,
  QueryWriteStatusResponseSchema,
  ReadResponseSchema,
  WriteRequestSchema,
  WriteResponseSchema,
} from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { PreconditionFailureSchema } from '../../../protos/gen/google/rpc/error_details_pb.ts';
import { StatusError } from '../../../protos/status.ts';
import { until } from '../../support/until.ts';
import { codeOf } from './harness.ts';

type Handlers = ServiceHandlers<typeof ByteStream>;
const unused = async (): Promise<never> => {
  throw new StatusError('UNIMPLEMENTED', 'unused');
};

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const open of opened.splice(0).reverse()) await open.close();
});

async function serve(handlers: Partial<Handlers>, options: Partial<Parameters<typeof serveGrpc>[0]> = {}) {
  const reports: CallReport[] = [];
  const server = await serveGrpc({
    listen: ['127.0.0.1:0'],
    services: [
      bindService(ByteStream, {
        queryWriteStatus: unused,
        write: unused,
        async *read() {
          yield await unused();
        },
        ...handlers,
      }),
    ],
    onCall: (report) => reports.push(report),
    ...options,
  });
  opened.push(server);
  const address = server.addresses[0] as string;
  const connection = connectGrpc(address);
  opened.push(connection);
  return { server, address, reports, client: connection.client(ByteStream) };
}

const statusReply = (committedSize: bigint) => create(QueryWriteStatusResponseSchema, { committedSize });
const frame = (bytes: Uint8Array) => Buffer.concat(frameMessage([bytes]));
const writeFrame = (data: Uint8Array) => frame(toBinary(WriteRequestSchema, create(WriteRequestSchema, { data })));
const queryFrame = frame(
  toBinary(QueryWriteStatusRequestSchema, create(QueryWriteStatusRequestSchema, { resourceName: 'x' })),
);

/** A call made by hand on HTTP/2. */
function rawCalls(address: string) {
  const session = connect(`http://${address}`);
  opened.push(session);
  return (path: string, headers: Record<string, string> = {}): ClientHttp2Stream =>
    session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
}

async function statusOf(stream: ClientHttp2Stream): Promise<IncomingHttpHeaders> {
  let seen: IncomingHttpHeaders = {};
  stream.on('response', (headers) => {
    seen = { ...seen, ...headers };
  });
  stream.on('trailers', (trailers) => {
    seen = { ...seen, ...trailers };
  });
  stream.resume();
  await once(stream, 'end');
  return seen;
}

describe('statuses', () => {
  test('carry code, text in any script, details and trailers', async () => {
    const failure = create(PreconditionFailureSchema, { violations: [{ type: 'MISSING', subject: 'blobs/x/1' }] });
    const { client, reports } = await serve({
      async queryWriteStatus() {
        throw new StatusError('FAILED_PRECONDITION', '100 % of "blöbs" fehlen\n🙂', {
          details: [anyPack(PreconditionFailureSchema, failure)],
        });
      },
    });
    const error = await client.queryWriteStatus({}).catch((caught) => caught);
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION', reason: '100 % of "blöbs" fehlen\n🙂' });
    expect(error.details[0].typeUrl).toBe('type.googleapis.com/google.rpc.PreconditionFailure');
    expect(reports).toMatchObject([
      { service: 'google.bytestream.ByteStream', method: 'QueryWriteStatus', code: 'FAILED_PRECONDITION' },
    ]);
  });

  test('what a handler throws by accident is INTERNAL without a stack', async () => {
    const { client } = await serve({
      async queryWriteStatus() {
        throw new TypeError('undefined is not a function');
      },
    });
    const error = await client.queryWriteStatus({}).catch((caught) => caught);
    expect(error).toMatchObject({ code: 'INTERNAL', reason: 'undefined is not a function' });
  });

  test('after messages arrive as trailers', async () => {
    const { client } = await serve({
      async *read() {
        yield create(ReadResponseSchema, { data: Buffer.from('a') });
        throw new StatusError('DATA_LOSS', 'gone');
      },
    });
    const seen: string[] = [];
    const read = async () => {
      for await (const { data } of client.read({})) seen.push(Buffer.from(data).toString());
    };
    expect(await codeOf(read())).toBe('DATA_LOSS');
    expect(seen).toEqual(['a']);
  });
});

describe('requests that are not as they should be', () => {
  const handlers: Partial<Handlers> = { queryWriteStatus: async () => statusReply(1n) };
  const path = '/google.bytestream.ByteStream/QueryWriteStatus';

  test.each([
    ['of an unknown method', '/google.bytestream.ByteStream/Rename', queryFrame, '12'],
    ['of an unknown service', '/x.Y/Z', queryFrame, '12'],
    ['that do not parse', path, frame(Buffer.from('ffffff', 'hex')), '3'],
    ['that are two where one is due', path, Buffer.concat([queryFrame, queryFrame]), '3'],
    ['that are none', path, Buffer.alloc(0), '3'],
    ['that are cut off', path, queryFrame.subarray(0, -1), '3'],
    ['that announce too many bytes', path, Buffer.from('007fffffff00', 'hex'), '8'],
    ['compressed with something unknown', path, Buffer.concat([Buffer.of(1), queryFrame.subarray(1)]), '12'],
  ])('%s get a status, and the connection lives on', async (_what, to, body, status) => {
    const { address } = await serve(handlers);
    const call = rawCalls(address);
    const bad = call(to, { 'grpc-encoding': 'lzw' });
    bad.end(body);
    expect(await statusOf(bad)).toMatchObject({ 'grpc-status': status });
    const good = call(path);
    good.end(queryFrame);
    expect(await statusOf(good)).toMatchObject({ 'grpc-status': '0' });
  });

  test('a malformed time-out is refused', async () => {
    const { address } = await serve(handlers);
    const stream = rawCalls(address)(path, { 'grpc-timeout': '1 week' });
    stream.end(queryFrame);
    expect(await statusOf(stream)).toMatchObject({ 'grpc-status': '3' });
  });

  test('a second one is refused before the client is done', async () => {
    const { address } = await serve(handlers);
    const stream = rawCalls(address)(path);
    stream.write(Buffer.concat([queryFrame, queryFrame]));
    expect(await statusOf(stream)).toMatchObject({ 'grpc-status': '3' });
    stream.end();
  });

  test('what comes with a refused call is thrown away', async () => {
    const { address } = await serve(handlers);
    const stream = rawCalls(address)('/x.Y/Z');
    expect(await statusOf(stream)).toMatchObject({ 'grpc-status': '12' });
    for (let sent = 0; sent < 8; sent += 1) stream.write(Buffer.alloc(1_000_000));
    stream.end();
    await once(stream, 'close');
    expect(stream.rstCode).toBe(0);
  });

  test('what is no gRPC gets an HTTP status', async () => {
    const { address } = await serve(handlers);
    const call = rawCalls(address);
    const get = call(path, { ':method': 'GET' });
    get.end();
    expect(await statusOf(get)).toMatchObject({ ':status': 405 });
    const json = call(path, { 'content-type': 'application/json' });
    json.end('{}');
    expect(await statusOf(json)).toMatchObject({ ':status': 415 });
    const web = call(path, { 'content-type': 'application/grpc-web+proto' });
    web.end(queryFrame);
    expect(await statusOf(web)).toMatchObject({ ':status': 415 });
  });

  test('a peer that speaks no HTTP/2 is dropped', async () => {
    const { address, client } = await serve(handlers);
    const [host, port] = address.split(':') as [string, string];
    const socket = createConnection({ host, port: Number(port) });
    opened.push({ close: () => socket.destroy() });
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(20));
    socket.resume();
    socket.on('error', () => {});
    await once(socket, 'close');
    expect(await codeOf(client.queryWriteStatus({}))).toBe('OK');
  });

  test('gzip is understood', async () => {
    const { address } = await serve(handlers);
    const packed = Buffer.from(frame(gzipSync(queryFrame.subarray(5))));
    packed[0] = 1;
    const stream = rawCalls(address)(path, { 'grpc-encoding': 'gzip' });
    stream.end(packed);
    expect(await statusOf(stream)).toMatchObject({ 'grpc-status': '0' });
  });
});

describe('a call that ends early', () => {
  test('by the client aborts the handler and runs its clean-up', async () => {
    let aborted = false;
    let cleaned = false;
    const { client, reports } = await serve({
      async *read(_request, { signal }) {
        signal.addEventListener('abort', () => {
          aborted = true;
        });
        try {
          for (;;) yield create(ReadResponseSchema, { data: Buffer.alloc(10) });
        } finally {
          cleaned = true;
        }
      },
    });
    for await (const _ of client.read({})) break;
    await until(() => aborted && cleaned && reports.length === 1);
    expect(reports[0]?.code).toBe('CANCELLED');
  });

  test('by its deadline, although the handler does not listen', async () => {
    let context: CallContext | undefined;
    const { address, reports } = await serve({
      queryWriteStatus: (_request, given) => {
        context = given;
        return new Promise(() => {});
      },
    });
    // By hand, because a client of its own would end the call itself, perhaps before it was sent.
    const stream = rawCalls(address)('/google.bytestream.ByteStream/QueryWriteStatus', { 'grpc-timeout': '500m' });
    stream.end(queryFrame);
    expect(await statusOf(stream)).toMatchObject({ 'grpc-status': '4' });
    expect(context?.signal.aborted).toBe(true);
    expect(reports).toMatchObject([{ code: 'DEADLINE_EXCEEDED' }]);
  });

  test('by its answer: OK at once, no reset, and what still comes is discarded', async () => {
    const { address, reports } = await serve({
      async write(requests) {
        for await (const _ of requests) break;
        return create(WriteResponseSchema, { committedSize: 7n });
      },
    });
    const stream = rawCalls(address)('/google.bytestream.ByteStream/Write');
    let failure: Error | undefined;
    stream.on('error', (error) => {
      failure = error;
    });
    stream.write(writeFrame(Buffer.alloc(10)));
    expect(await statusOf(stream)).toMatchObject({ 'grpc-status': '0' });
    // The client may not have noticed yet, and sends more than any window holds.
    for (let sent = 0; sent < 20; sent += 1) stream.write(writeFrame(Buffer.alloc(1_000_000)));
    stream.end();
    await once(stream, 'close');
    expect(failure).toBeUndefined();
    expect(stream.rstCode).toBe(0);
    expect(reports).toMatchObject([{ code: 'OK' }]);
  });

  test('when the server closes', async () => {
    const started = Promise.withResolvers<CallContext>();
    const { client, server } = await serve({
      queryWriteStatus: (_request, context) => {
        started.resolve(context);
        return new Promise(() => {});
      },
    });
    const call = codeOf(client.queryWriteStatus({}));
    const { signal } = await started.promise;
    await server.close();
    expect(signal.aborted).toBe(true);
    expect(await call).not.toBe('OK');
  });
});

describe('backpressure', () => {
  test('a client that does not read stops the handler', async () => {
    const chunk = Buffer.alloc(64 * 1024);
    let produced = 0;
    const { address } = await serve({
      async *read() {
        for (;;) {
          produced += chunk.byteLength;
          yield { wire: [Buffer.from([0x52, 0x80, 0x80, 0x04]), chunk] };
        }
      },
    });
    const stream = rawCalls(address)('/google.bytestream.ByteStream/Read');
    stream.end(frame(Buffer.alloc(0)));
    stream.pause();
    let before = -1;
    await until(async () => {
      const stable = before === produced && produced > 0;
      before = produced;
      await new Promise((resolve) => setTimeout(resolve, 50));
      return stable;
    });
    expect(produced).toBeLessThan(limits.unsentBytesMax + 4 * 1024 * 1024);
    stream.close();
  });

  test('a handler that does not pull stops the client, and loses nothing', async () => {
    const go = Promise.withResolvers<void>();
    const { client } = await serve({
      async write(requests) {
        await go.promise;
        let total = 0n;
        for await (const { data } of requests) total += BigInt(data.byteLength);
        return create(WriteResponseSchema, { committedSize: total });
      },
    });
    let sent = 0;
    async function* source() {
      for (; sent < 200; sent += 1) yield { data: Buffer.alloc(100_000) };
    }
    const reply = client.write(source());
    let before = -1;
    await until(async () => {
      const stable = before === sent && sent > 0;
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 50));
      return stable;
    });
    expect(sent).toBeLessThan(100);
    go.resolve();
    expect((await reply).committedSize).toBe(20_000_000n);
  });

  test('requests without bytes fill a queue as well', async () => {
    const { address } = await serve({ write: () => new Promise(() => {}) });
    const stream = rawCalls(address)('/google.bytestream.ByteStream/Write');
    const empty = Buffer.alloc(5 * 10_000);
    let sent = 0;
    const pump = (): void => {
      while (sent < 20_000_000) {
        sent += empty.byteLength;
        if (!stream.write(empty)) return void stream.once('drain', pump);
      }
    };
    pump();
    let before = -1;
    await until(async () => {
      const stable = before === sent;
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return stable;
    });
    expect(sent).toBeLessThan(limits.streamWindowBytes + 4_000_000);
    stream.on('error', () => {});
    stream.close(8);
  });

  test('a thousand idle streams on one connection do not keep others from being served', async () => {
    let waiting = 0;
    const { address, reports, client } = await serve({
      queryWriteStatus: async () => statusReply(1n),
      async write(requests) {
        waiting += 1;
        for await (const _ of requests);
        return create(WriteResponseSchema, { committedSize: 0n });
      },
    });
    const call = rawCalls(address);
    const streams = Array.from({ length: 1000 }, () => call('/google.bytestream.ByteStream/Write'));
    await until(() => waiting === 1000);
    const query = call('/google.bytestream.ByteStream/QueryWriteStatus');
    query.end(queryFrame);
    expect(await statusOf(query)).toMatchObject({ 'grpc-status': '0' });
    expect(await codeOf(client.queryWriteStatus({}))).toBe('OK');
    for (const stream of streams) {
      stream.on('error', () => {});
      stream.close(8);
    }
    await until(() => reports.length === 1002);
  });
});

/** One method behind a server of its own, with the counts that all calls share. */
async function serveMethod(name: string, handler: Route['handler']) {
  const [method] = ByteStream.methods.filter((one) => one.name === name) as [DescMethod];
  const shared = { onEnd: () => {}, bufferedBytes: 0, unsentBytes: 0 };
  const server = createServer();
  server.on('stream', (stream, headers) => {
    serveCall(stream, headers, { service: 'x', method, handler, decodeParts: undefined }, shared);
  });
  opened.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { shared, call: rawCalls(`127.0.0.1:${(server.address() as AddressInfo).port}`) };
}

test('responses of all calls together are bounded, and counted down again', async () => {
  const { shared, call } = await serveMethod('Read', async function* () {
    for (;;) yield create(ReadResponseSchema, { data: Buffer.alloc(1_000_000) });
  });
  const idle = call('/');
  idle.on('error', () => {});
  idle.end(frame(Buffer.alloc(0)));
  idle.pause();
  await until(() => shared.unsentBytes > limits.unsentBytesMax);
  idle.close(8);
  await until(() => shared.unsentBytes === 0);

  shared.unsentBytes = limits.unsentBytesOfAllMax;
  const exceeds = call('/');
  exceeds.end(frame(Buffer.alloc(0)));
  expect(await statusOf(exceeds)).toMatchObject({ 'grpc-status': '8' });
  expect(shared.unsentBytes).toBe(limits.unsentBytesOfAllMax);
});

describe('a client that does nothing', () => {
  const turns = async (done: () => boolean) => {
    for (let turn = 0; turn < 100_000 && !done(); turn += 1) await new Promise(setImmediate);
    expect(done()).toBe(true);
  };
  const timers = () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    opened.push({ close: () => vi.useRealTimers() });
  };

  test('and is waited for loses its call, whether it should send or read', async () => {
    timers();
    let pulled = false;
    let produced = 0;
    let cleaned = false;
    const { address, reports } = await serve({
      async write(requests) {
        pulled = true;
        for await (const _ of requests);
        return create(WriteResponseSchema, { committedSize: 0n });
      },
      async *read() {
        try {
          for (; ; produced += 1) yield create(ReadResponseSchema, { data: Buffer.alloc(1_000_000) });
        } finally {
          cleaned = true;
        }
      },
    });
    const call = rawCalls(address);
    const write = statusOf(call('/google.bytestream.ByteStream/Write'));
    const read = call('/google.bytestream.ByteStream/Read');
    read.on('error', () => {});
    read.end(frame(Buffer.alloc(0)));
    read.pause();
    await turns(() => pulled && produced > 0);
    for (let before = -1; before !== produced; ) {
      before = produced;
      for (let turn = 0; turn < 5_000; turn += 1) await new Promise(setImmediate);
    }
    vi.advanceTimersByTime(limits.stalledMs);
    expect(await write).toMatchObject({ 'grpc-status': '14' });
    await turns(() => cleaned && reports.length === 2);
    expect(reports).toMatchObject([{ code: 'UNAVAILABLE' }, { code: 'UNAVAILABLE' }]);
  });

  test('on a connection without calls is disconnected in good order', async () => {
    timers();
    const { address } = await serve({
      async write() {
        return create(WriteResponseSchema, { committedSize: 7n });
      },
    });
    const session = connect(`http://${address}`);
    opened.push({ close: () => session.destroy() });
    let code: number | undefined;
    session.on('goaway', (goawayCode) => {
      code = goawayCode;
    });
    await once(session, 'remoteSettings');
    const call = session.request({ ':method': 'POST', ':path': '/google.bytestream.ByteStream/Write' });
    call.end();
    call.resume();
    let over = false;
    call.on('close', () => {
      over = true;
    });
    await turns(() => over);
    vi.advanceTimersByTime(limits.idleConnectionMs - 1);
    await new Promise(setImmediate);
    expect(session.closed).toBe(false);
    vi.advanceTimersByTime(1);
    await turns(() => session.closed);
    expect(code).toBe(0);
  });

  test('not even say that it speaks HTTP/2 is disconnected', async () => {
    timers();
    const { address } = await serve({});
    const [host, port] = address.split(':') as [string, string];
    const socket = createConnection({ host, port: Number(port) });
    opened.push({ close: () => socket.destroy() });
    let closed = false;
    socket.on('close', () => {
      closed = true;
    });
    socket.resume();
    await once(socket, 'connect');
    await turns(() => vi.getTimerCount() > 0);
    vi.advanceTimersByTime(limits.helloMs);
    await turns(() => closed);
  });
});

test('unfinished requests of all calls together are bounded, and counted down again', async () => {
  const { shared, call } = await serveMethod('QueryWriteStatus', async () => statusReply(1n));
  const leaving = call('/');
  leaving.on('error', () => {});
  leaving.write(queryFrame.subarray(0, -1));
  await until(() => shared.bufferedBytes === queryFrame.byteLength - 1);
  leaving.close(8);
  await until(() => shared.bufferedBytes === 0);

  const [fits, exceeds] = [call('/'), call('/')];
  fits.end(queryFrame);
  expect(await statusOf(fits)).toMatchObject({ 'grpc-status': '0' });
  shared.bufferedBytes = limits.bufferedRequestBytesMax;
  exceeds.end(queryFrame);
  expect(await statusOf(exceeds)).toMatchObject({ 'grpc-status': '8' });
  expect(shared.bufferedBytes).toBe(limits.bufferedRequestBytesMax);
});

describe('what a handler learns of its call', () => {
  test('headers, deadline and metadata, tolerating nonsense', async () => {
    const seen: unknown[] = [];
    const { client } = await serve({
      async queryWriteStatus(_request, context) {
        seen.push(
          context.header('x-org'),
          context.binaryHeader('x-raw-bin'),
          context.requestMetadata,
          (context.deadlineMs ?? 0) > Date.now(),
          context.peer.startsWith('127.0.0.1:'),
        );
        return statusReply(1n);
      },
    });
    const metadata = Buffer.from('ffff', 'hex');
    const headers = {
      'x-org': 'o1',
      'x-raw-bin': Buffer.from([0, 255]),
      'build.bazel.remote.execution.v2.requestmetadata-bin': metadata,
    };
    await client.queryWriteStatus({}, { headers, timeoutMs: 10_000 });
    expect(seen).toEqual(['o1', Buffer.from([0, 255]), undefined, true, true]);
  });
});

test('draining lets calls end and takes no further ones', async () => {
  const go = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  const { client, server, address } = await serve({
    async queryWriteStatus() {
      started.resolve();
      await go.promise;
      return statusReply(5n);
    },
  });
  const call = client.queryWriteStatus({});
  await started.promise;
  const drained = server.drain();
  const late = connectGrpc(address);
  opened.push(late);
  expect(await codeOf(late.client(ByteStream).queryWriteStatus({}))).toBe('UNAVAILABLE');
  go.resolve();
  expect((await call).committedSize).toBe(5n);
  await drained;
});

test('the client says why its own stream of requests failed', async () => {
  const { client } = await serve({
    async write(requests) {
      for await (const _ of requests);
      return create(WriteResponseSchema);
    },
  });
  async function* broken() {
    yield { data: Buffer.of(1) };
    throw new StatusError('NOT_FOUND', 'the file went away');
  }
  await expect(client.write(broken())).rejects.toMatchObject({ code: 'NOT_FOUND', reason: 'the file went away' });
});

/**
 * A proxy that passes every REAPI call through, except for one planted fault.
 *
 * With it the suite proves that it can fail: a server that does one thing wrong must break the rule about that thing.
 */
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescMessage, DescMethod, MessageShape } from '@bufbuild/protobuf';
import * as grpc from '@grpc/grpc-js';
import { once } from 'node:events';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Fetch, Push } from '../../../protos/gen/build/bazel/remote/asset/v1/remote_asset_pb.ts';
import {
  ActionCache,
  Capabilities,
  ContentAddressableStorage,
  Execution,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { ByteStream } from '../../../protos/gen/google/bytestream/bytestream_pb.ts';
import { Operations } from '../../../protos/gen/google/longrunning/operations_pb.ts';
import { type Code, codeName, codes } from '../../../protos/status.ts';
import { type Client, connect, methodPath } from '../client.ts';

const services = [ActionCache, ByteStream, Capabilities, ContentAddressableStorage, Execution, Fetch, Operations, Push];
const maxMessageBytes = 256 * 1024 * 1024;

/** How a call ends. */
export interface Ending {
  code: Code;
  message: string;
  metadata: grpc.Metadata;
}

/** One call on its way through. What a hook leaves out passes unchanged. */
export interface CallFault<I, O> {
  /** Changes a request message in place, or drops it by resolving to false. `upstream` reaches the real server. */
  request?(message: I, upstream: Client): unknown;
  /** Changes a response message in place, or drops it by returning false. */
  response?(message: O): unknown;
  /** Changes the ending in place; may say more messages before it. */
  ending?(ending: Ending, say: (message: O) => void): void;
  /** Changes the metadata of the request in place. */
  metadata?(metadata: grpc.Metadata): void;
  /** The client went away. */
  cancelled?(): void;
}

/** What is planted: for some methods, how each call of them goes wrong. */
export interface Fault {
  readonly calls: ReadonlyMap<string, () => CallFault<never, never>>;
  /** Answers an HTTP request in the server's place; false lets it pass. */
  readonly http?: (request: http.IncomingMessage, response: http.ServerResponse) => boolean;
}

/** A fault of one method. `begin` is called for each call, so that a fault can remember within it. */
export function fault<I extends DescMessage, O extends DescMessage>(
  method: DescMethod & { input: I; output: O },
  begin: () => CallFault<MessageShape<I>, MessageShape<O>>,
): Fault {
  return { calls: new Map([[methodPath(method), begin as unknown as () => CallFault<never, never>]]) };
}

export function faults(...all: readonly Fault[]): Fault {
  const answer = all.find((one) => one.http)?.http;
  return { calls: new Map(all.flatMap((one) => [...one.calls])), ...(answer ? { http: answer } : {}) };
}

export interface FaultyProxy extends AsyncDisposable {
  readonly grpc: string;
  readonly http: string;
}

export async function startProxy(upstream: { grpc: string; http: string }, planted: Fault): Promise<FaultyProxy> {
  const client = connect(upstream.grpc);
  const raw = new grpc.Client(upstream.grpc, grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
    'grpc.enable_retries': 0,
    'grpc.use_local_subchannel_pool': 1,
  });
  const server = new grpc.Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
  });
  for (const method of services.flatMap((service) => service.methods)) {
    const path = methodPath(method);
    const handler = (call: grpc.ServerDuplexStream<Buffer, Buffer>) =>
      pass({ raw, client }, method, planted.calls.get(path), call);
    server.register(path, handler, identity, identity, 'bidi');
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  const web = http.createServer((request, response) => {
    if (planted.http?.(request, response) === true) return;
    const [hostname, webPort] = upstream.http.split(':');
    const options = { hostname, port: webPort, method: request.method, path: request.url, headers: request.headers };
    const onward = http.request(options as http.RequestOptions, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  web.listen(0, '127.0.0.1');
  await once(web, 'listening');
  return {
    grpc: `127.0.0.1:${port}`,
    http: `127.0.0.1:${(web.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.forceShutdown();
      raw.close();
      client.close();
      web.closeAllConnections();
      await new Promise((resolve) => web.close(resolve));
    },
  };
}

function identity(bytes: Buffer): Buffer {
  return bytes;
}

/** One call through the proxy: messages both ways in order, with backpressure, then the ending. */
function pass(
  upstream: { readonly raw: grpc.Client; readonly client: Client },
  method: DescMethod,
  begin: (() => CallFault<never, never>) | undefined,
  call: grpc.ServerDuplexStream<Buffer, Buffer>,
): void {
  const planted = begin?.();
  const metadata = call.metadata.clone();
  planted?.metadata?.(metadata);
  const deadline = call.getDeadline();
  const onward = upstream.raw.makeBidiStreamRequest<Buffer, Buffer>(methodPath(method), identity, identity, metadata, {
    deadline,
  });
  let over = false;
  onward.once('status', () => {
    over = true;
  });
  // grpc-js says "cancelled" of calls that ended by themselves as well.
  const cancel = () => {
    if (over) return;
    planted?.cancelled?.();
    onward.cancel();
  };
  call.on('cancelled', cancel);
  call.on('error', cancel);
  const ended = new Promise<void>((resolve) => onward.once('status', () => resolve()));
  let inOrder = Promise.resolve();
  call.on('data', (bytes: Buffer) => {
    call.pause();
    inOrder = inOrder.then(async () => {
      const changed = await changedRequest(method.input, bytes, planted, upstream.client);
      if (changed && !over && !onward.write(changed)) await Promise.race([drained(onward), ended]);
      call.resume();
    });
  });
  call.on('end', () => {
    inOrder = inOrder.then(() => void onward.end());
  });
  const say = (message: Buffer) => {
    if (call.write(message)) return;
    onward.pause();
    call.once('drain', () => onward.resume());
  };
  onward.on('data', (bytes: Buffer) => {
    if (!planted?.response) return say(bytes);
    const message = fromBinary(method.output, bytes);
    if (planted.response(message as never) !== false) say(Buffer.from(toBinary(method.output, message)));
  });
  onward.on('error', () => {});
  onward.on('status', (status: grpc.StatusObject) => {
    const ending: Ending = { code: codeName(status.code), message: status.details, metadata: status.metadata };
    planted?.ending?.(ending, ((message: MessageShape<DescMessage>) => {
      say(Buffer.from(toBinary(method.output, message)));
    }) as never);
    if (ending.code === 'OK') call.end(ending.metadata);
    else call.emit('error', { code: codes[ending.code], details: ending.message, metadata: ending.metadata });
  });
}

function drained(stream: NodeJS.EventEmitter): Promise<void> {
  return new Promise((resolve) => stream.once('drain', resolve));
}

/** What goes on upstream; bytes that are no message pass as they are, for it is the server that must refuse them. */
async function changedRequest(
  schema: DescMessage,
  bytes: Buffer,
  planted: CallFault<never, never> | undefined,
  upstream: Client,
): Promise<Buffer | undefined> {
  if (!planted?.request) return bytes;
  let message: MessageShape<DescMessage>;
  try {
    message = fromBinary(schema, bytes);
  } catch {
    return bytes;
  }
  const kept = (await planted.request(message as never, upstream)) !== false;
  return kept ? Buffer.from(toBinary(schema, message)) : undefined;
}

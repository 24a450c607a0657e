/**
 * The reference the node is held against: a bare node:http2 server that speaks gRPC framing and answers every call of a path
 * with prepared bytes, after reading the request. No decoding, no store, no checks: the floor of what Node can do.
 */
import { createServer } from 'node:http2';
import type { AddressInfo } from 'node:net';

/** By path: the framed answer (base64) and how many times it is sent. */
export interface CannedAnswer {
  readonly path: string;
  readonly frame: string;
  readonly times: number;
}

const canned = new Map<string, { frame: Buffer; times: number }>();
const server = createServer({ settings: { initialWindowSize: 8 * 1024 * 1024 } });
server.on('session', (session) => session.setLocalWindowSize(64 * 1024 * 1024));
server.on('stream', (stream, headers) => {
  const answer = canned.get(String(headers[':path']));
  stream.on('error', () => {});
  stream.resume();
  stream.on('end', () => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': answer ? '0' : '12' }));
    let left = answer?.times ?? 0;
    const push = () => {
      while (left-- > 0) if (!stream.write(answer?.frame)) return void stream.once('drain', push);
      stream.end();
    };
    push();
  });
});
process.on('message', (answer: CannedAnswer) => {
  canned.set(answer.path, { frame: Buffer.from(answer.frame, 'base64'), times: answer.times });
  process.send?.('ok');
});
process.on('disconnect', () => process.exit(0));
server.listen(0, '127.0.0.1', () => process.send?.({ port: (server.address() as AddressInfo).port }));

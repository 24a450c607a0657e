/** The cheapest gRPC client there is: bare node:http2 and prepared frames, so that what is measured is the server. */
import type { IncomingHttpHeaders } from 'node:http';
import { type ClientHttp2Session, connect } from 'node:http2';

/** Length-prefixed gRPC message, uncompressed. */
export function frame(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(message.byteLength + 5);
  framed[0] = 0;
  framed.writeUInt32BE(message.byteLength, 1);
  framed.set(message, 5);
  return framed;
}

export function openSession(address: string): ClientHttp2Session {
  const session = connect(`http://${address}`, { settings: { initialWindowSize: 8 * 1024 * 1024 } });
  // A lost connection fails its calls; here it needs no second report.
  session.on('error', () => {});
  session.on('connect', () => session.setLocalWindowSize(64 * 1024 * 1024));
  return session;
}

/** One call; resolves to the number of body bytes received and the last body chunk, rejects on a status other than 0. */
export function call(
  session: ClientHttp2Session,
  path: string,
  messages: Iterable<Uint8Array>,
  onData?: (chunk: Buffer) => void,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    let receivedBytes = 0;
    let status: string | undefined;
    let message = '';
    const note = (headers: IncomingHttpHeaders) => {
      if (headers['grpc-status'] !== undefined) status = String(headers['grpc-status']);
      if (headers['grpc-message'] !== undefined) message = String(headers['grpc-message']);
    };
    stream.on('response', note);
    stream.on('trailers', note);
    stream.on('data', (chunk: Buffer) => {
      receivedBytes += chunk.byteLength;
      onData?.(chunk);
    });
    stream.on('error', reject);
    stream.on('close', () => {
      if (status === '0') resolve(receivedBytes);
      else reject(new Error(`${path}: grpc-status ${status ?? 'missing'} ${decodeURIComponent(message)}`));
    });
    const iterator = messages[Symbol.iterator]();
    const push = () => {
      for (;;) {
        const next = iterator.next();
        if (next.done) return void stream.end();
        if (!stream.write(next.value)) return void stream.once('drain', push);
      }
    };
    push();
  });
}

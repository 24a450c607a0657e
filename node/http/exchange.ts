/** One request and its response, with the bounds and errors that all handlers share. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Code, StatusError, toStatusError } from '../../protos/status.ts';
import * as limits from './limits.ts';

export interface Exchange {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Aborted when the client is gone or the server closes. */
  readonly signal: AbortSignal;
}

/** What is refused with a status of its own beside those that follow from the code. */
export class HttpError extends StatusError {
  readonly status: number;
  constructor(status: number, code: Code, reason: string) {
    super(code, reason);
    this.status = status;
  }
}

const statuses: Partial<Record<Code, number>> = {
  INVALID_ARGUMENT: 400,
  OUT_OF_RANGE: 400,
  UNAUTHENTICATED: 401,
  PERMISSION_DENIED: 403,
  NOT_FOUND: 404,
  FAILED_PRECONDITION: 409,
  CANCELLED: 499,
  UNAVAILABLE: 503,
  DEADLINE_EXCEEDED: 504,
  RESOURCE_EXHAUSTED: 507,
};

/** Answers with the error in a sentence; a response already under way is broken off, so that nobody takes it for whole. */
export function sendError({ response, method }: Exchange, thrown: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const error = toStatusError(thrown);
  const status = error instanceof HttpError ? error.status : (statuses[error.code] ?? 500);
  if (status === 503) response.setHeader('retry-after', limits.retryAfterSeconds);
  if (status === 401) response.setHeader('www-authenticate', 'Bearer');
  sendText(response, status, `${error.reason}\n`, method);
}

export function sendText(
  response: ServerResponse,
  status: number,
  text: string,
  method: string,
  type = 'text/plain; charset=utf-8',
): void {
  sendBytes(response, status, Buffer.from(text), method, type);
}

/** The whole body at once; HEAD gets its length only. */
export function sendBytes(
  response: ServerResponse,
  status: number,
  bytes: Uint8Array,
  method: string,
  type: string,
): void {
  response.writeHead(status, { 'content-type': type, 'content-length': bytes.byteLength });
  response.end(method === 'HEAD' ? undefined : bytes);
}

/** The request's body as it comes; ending early leaves the connection usable. */
export async function* bodyOf({ request, signal }: Exchange): AsyncGenerator<Uint8Array> {
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    signal.throwIfAborted();
    yield chunk as Uint8Array;
  }
}

/** Content-Length. Throws 411 when it is absent, 413 when it is above `maxBytes`. */
export function lengthOf({ request }: Exchange, maxBytes: number): number {
  const text = request.headers['content-length'];
  if (text === undefined)
    throw new HttpError(411, 'INVALID_ARGUMENT', 'send a Content-Length: the body has to be bounded');
  const length = Number(text);
  if (length > maxBytes) throw tooLarge(maxBytes);
  return length;
}

export function tooLarge(maxBytes: number): HttpError {
  return new HttpError(413, 'INVALID_ARGUMENT', `the body is larger than ${maxBytes} bytes`);
}

/** `zstd` or nothing; throws 415 for other encodings. */
export function encodingOf({ request }: Exchange): 'zstd' | 'identity' {
  const encoding = request.headers['content-encoding']?.toLowerCase() ?? 'identity';
  if (encoding === 'identity' || encoding === 'zstd') return encoding;
  throw new HttpError(415, 'INVALID_ARGUMENT', `Content-Encoding ${encoding} is not known; zstd is`);
}

export function acceptsZstd({ request }: Exchange): boolean {
  const accepted = String(request.headers['accept-encoding'] ?? '');
  return accepted.split(',').some((one) => /^\s*zstd\s*(;\s*q=(1|0\.\d*[1-9]\d*)\S*\s*)?$/i.test(one));
}

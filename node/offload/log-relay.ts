/**
 * Live output of an action that another member runs. Who waits for the action asks for what is new, one question at a
 * time, and only while a client of its own reads the stream; who runs it answers when there is news. So nothing is sent
 * that nobody reads, and a slow reader slows down only itself.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { NodeId } from '../../mesh/core/ids.ts';
import { type LogRequest, type LogResponse, LogParcelSchema } from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import type { LogWriter } from '../execution/log-streams.ts';
import { fromWireKey, toWireKey } from '../peers/result-finder.ts';
import type { ActionKey } from '../storage/action-cache.ts';
import { actionName } from './keys.ts';
import * as limits from './limits.ts';
import type { Tail } from './tail.ts';

export const logChannel = 'logs';

/** A run whose output can be followed. */
export interface Followable {
  readonly stdout: Tail;
  readonly stderr: Tail;
  /** Settles at the next write, and when the run ends. */
  changed(): Promise<void>;
  readonly ended: boolean;
}

export interface LogRelay {
  /** A parcel of a member. Throws INVALID_ARGUMENT for nonsense. */
  onParcel(from: NodeId, body: Uint8Array): void;
  /** Writes what `node` tells about the action until the run is over there or `signal` is aborted. Never rejects. */
  follow(
    node: NodeId,
    key: ActionKey,
    into: { readonly stdout: LogWriter; readonly stderr: LogWriter },
    signal: AbortSignal,
  ): Promise<void>;
}

export interface LogRelayOptions {
  readonly send: (to: NodeId, body: Uint8Array) => void;
  /** A run under way here. */
  readonly runOf: (key: ActionKey) => Followable | undefined;
}

export function createLogRelay({ send, runOf }: LogRelayOptions): LogRelay {
  const waiting = new Map<string, (response: LogResponse) => void>();
  let questions = 0;

  async function answer(to: NodeId, request: LogRequest): Promise<void> {
    if (!request.key) return;
    const run = runOf(fromWireKey(request.key));
    const [out, err] = [Number(request.stdoutOffset), Number(request.stderrOffset)];
    if (run && !run.ended && run.stdout.endOffset <= out && run.stderr.endOffset <= err) await news(run);
    const stdout = run?.stdout.read(out, limits.logAnswerBytesMax);
    const stderr = run?.stderr.read(err, limits.logAnswerBytesMax);
    const response = {
      key: request.key,
      running: run !== undefined && !run.ended,
      stdoutOffset: BigInt(stdout?.offset ?? out),
      stderrOffset: BigInt(stderr?.offset ?? err),
      ...(stdout && { stdout: stdout.bytes }),
      ...(stderr && { stderr: stderr.bytes }),
    };
    send(to, toBinary(LogParcelSchema, create(LogParcelSchema, { message: { case: 'response', value: response } })));
  }

  async function news(run: Followable): Promise<void> {
    if (questions >= limits.logQuestionsMax) return;
    questions += 1;
    await orAfter(run.changed(), limits.logHoldMs);
    questions -= 1;
  }

  async function ask(node: NodeId, key: ActionKey, offsets: readonly [number, number], signal: AbortSignal) {
    const name = `${node} ${actionName(key)}`;
    const told = Promise.withResolvers<LogResponse | undefined>();
    const onAbort = (): void => told.resolve(undefined);
    signal.addEventListener('abort', onAbort, { once: true });
    waiting.set(name, told.resolve);
    const [stdoutOffset, stderrOffset] = [BigInt(offsets[0]), BigInt(offsets[1])];
    const value = { key: toWireKey(key), stdoutOffset, stderrOffset };
    send(node, toBinary(LogParcelSchema, create(LogParcelSchema, { message: { case: 'request', value } })));
    const response = await orAfter(told.promise, limits.logSilenceMs);
    signal.removeEventListener('abort', onAbort);
    if (waiting.get(name) === told.resolve) waiting.delete(name);
    return response;
  }

  return {
    onParcel(from, body) {
      const { message } = fromBinary(LogParcelSchema, body);
      if (message.case === 'request') void answer(from, message.value).catch(() => {});
      if (message.case !== 'response' || !message.value.key) return;
      waiting.get(`${from} ${actionName(fromWireKey(message.value.key))}`)?.(message.value);
    },

    async follow(node, key, { stdout, stderr }, signal) {
      let [out, err] = [0, 0];
      while (!signal.aborted) {
        const response = await ask(node, key, [out, err], signal);
        if (!response || signal.aborted) continue;
        const known = out + err;
        out = write(stdout, out, Number(response.stdoutOffset), response.stdout);
        err = write(stderr, err, Number(response.stderrOffset), response.stderr);
        if (!response.running) return;
        // It was answered at once, without news: because too many ask, or for no reason at all.
        if (out + err === known) await pause(limits.logPauseMs, signal);
      }
    },
  };
}

/** Returns how far the output is known. */
function write(into: LogWriter, known: number, offset: number, bytes: Uint8Array): number {
  // An answer to an earlier question: it is asked again.
  if (offset < known) return known;
  if (offset > known) into.write(Buffer.from(`\n[potluck: ${offset - known} bytes of this log were not kept]\n`));
  into.write(bytes);
  return offset + bytes.byteLength;
}

async function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<void>();
  const onAbort = (): void => aborted.resolve();
  signal.addEventListener('abort', onAbort, { once: true });
  await orAfter(aborted.promise, delayMs);
  signal.removeEventListener('abort', onAbort);
}

/** `undefined` when the time is over first. */
async function orAfter<T>(work: Promise<T>, delayMs: number): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), delayMs).unref();
  return await Promise.race([work, late.promise]).finally(() => clearTimeout(timer));
}

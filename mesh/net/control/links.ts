/**
 * Links to members: frames go out on one long-lived stream of ours per member, and come in on the one the member opened.
 * A link is made when there is something to say. What cannot be said within `frameAgeMs` is dropped: the machines above
 * take it for a loss, as they must be able to.
 */
import type { Stream } from '@libp2p/interface';
import type { Control } from '../../../protos/gen/potluck/mesh/v1/control_pb.ts';
import type { NodeId } from '../../core/ids.ts';
import type { Host } from '../host/host.ts';
import { type ControlBody, decodeControl, encodeControl } from './codec.ts';
import { createFrameReader } from './frames.ts';
import * as limits from './limits.ts';

export const controlProtocol = '/potluck/control/1.0.0';

export interface LinksOptions {
  readonly host: Pick<Host, 'open' | 'connect' | 'isConnected' | 'cut'>;
  /** Milliseconds of a clock that never goes back. */
  readonly nowMs: () => number;
  /** Frames of one member come in order. Throwing says that the frame breaks the protocol. */
  readonly onFrame: (from: NodeId, body: Control['message']) => void;
  readonly onRoundTrip: (peer: NodeId, ms: number) => void;
  /** The stream to a member is open. */
  readonly onOpen: (peer: NodeId) => void;
  /** A member spoke nonsense; its connection is cut. */
  readonly onNonsense: (peer: NodeId, reason: string) => void;
}

export interface Links {
  /** Queues a frame; connects when there is no connection. */
  send(to: NodeId, body: ControlBody): void;
  /** Queues frames, one message in all. More than one go out behind everything else, one at a time. */
  sendFrames(to: NodeId, frames: readonly Uint8Array[]): void;
  /** A member is connected now: what waits for it goes out. */
  connected(peer: NodeId): void;
  /** Takes a stream that a member opened. */
  accept(stream: Stream, from: NodeId): void;
  /** The shortest of the last echoes, milliseconds; `undefined` before the first. */
  roundTripMs(peer: NodeId): number | undefined;
  /** Frames that were dropped because a member did not take them. */
  dropped(): number;
  /** Members with an open stream of ours. */
  open(): number;
  /** Resolves when every member with an open link has answered an echo that was sent last, at the latest after so long. */
  settle(timeoutMs: number): Promise<void>;
  /** Lets what was sent arrive, as far as that takes no longer than `partingMs`. */
  close(): Promise<void>;
}

interface Waiting {
  readonly bytes: Uint8Array;
  readonly sinceMs: number;
}

interface Link {
  readonly peer: NodeId;
  stream: Stream | undefined;
  readonly waiting: Waiting[];
  waitingBytes: number;
  /** Parts of large messages. */
  behind: Waiting[];
  behindBytes: number;
  /** Opening or writing. */
  busy: boolean;
  echo: { readonly number: number; readonly sentMs: number } | undefined;
  /** Since when echoes stay unanswered. */
  silentSinceMs: number | undefined;
  echoAtMs: number;
  echoPauseMs: number;
  /** Of the newest echoes, oldest first. */
  readonly roundTripsMs: number[];
}

export function createLinks(options: LinksOptions): Links {
  const { host, nowMs } = options;
  const links = new Map<NodeId, Link>();
  const closing = new AbortController();
  let dropped = 0;
  let echoes = 0;
  let dueMs = nowMs() + limits.echoMsMin;
  let echoTimer = setTimeout(echoAll, limits.echoMsMin).unref();

  function linkTo(peer: NodeId): Link {
    let link = links.get(peer);
    if (!link) {
      link = {
        peer,
        stream: undefined,
        waiting: [],
        waitingBytes: 0,
        behind: [],
        behindBytes: 0,
        busy: false,
        echo: undefined,
        silentSinceMs: undefined,
        echoAtMs: Number.POSITIVE_INFINITY,
        echoPauseMs: limits.echoMsMin,
        roundTripsMs: [],
      };
      links.set(peer, link);
    }
    return link;
  }

  function send(to: NodeId, body: ControlBody): void {
    sendFrames(to, [encodeControl(body)]);
  }

  function sendFrames(to: NodeId, frames: readonly Uint8Array[]): void {
    if (closing.signal.aborted) return;
    const link = linkTo(to);
    const bytes = frames.reduce((sum, frame) => sum + frame.byteLength, 0);
    const isTooMuch =
      frames.length === 1
        ? link.waiting.length >= limits.framesWaiting || link.waitingBytes + bytes > limits.bytesWaiting
        : link.behindBytes + bytes > limits.partsBytesWaiting;
    if (isTooMuch || frames.some((frame) => frame.byteLength > limits.frameBytesMax)) {
      dropped += frames.length;
      return;
    }
    const wasIdle = !hasWork(link);
    const sinceMs = nowMs();
    if (frames.length === 1) {
      link.waitingBytes += bytes;
      link.waiting.push({ bytes: frames[0] as Uint8Array, sinceMs });
    } else {
      link.behindBytes += bytes;
      for (const frame of frames) link.behind.push({ bytes: frame, sinceMs });
    }
    // After a failure the next try comes by itself.
    if (!link.busy && (link.stream || wasIdle)) void work(link);
  }

  function hasWork({ waiting, behind }: Link): boolean {
    return waiting.length > 0 || behind.length > 0;
  }

  /** Opens the stream if need be, then writes as fast as the member takes. One at a time per link. */
  async function work(link: Link): Promise<void> {
    link.busy = true;
    try {
      while (hasWork(link)) {
        link.stream ??= await openStream(link);
        const stream = link.stream;
        const frames = takeFrames(link);
        if (frames && !stream.send(frames)) {
          await stream.onDrain({ signal: AbortSignal.timeout(limits.stuckMs) });
        }
      }
    } catch (error) {
      link.stream?.abort(error instanceof Error ? error : new Error(String(error)));
      link.stream = undefined;
      dropOld(link);
      // Two who meet do not notice at the same moment: what is still news is tried again.
      if (hasWork(link)) setTimeout(() => resume(link), limits.retryMs).unref();
    } finally {
      link.busy = false;
    }
  }

  function resume(link: Link): void {
    if (!link.busy && hasWork(link) && !closing.signal.aborted) void work(link);
  }

  function dropOld(link: Link): void {
    const oldestMs = nowMs() - limits.frameAgeMs;
    const old = link.waiting.findIndex(({ sinceMs }) => sinceMs >= oldestMs);
    const gone = link.waiting.splice(0, old < 0 ? link.waiting.length : old);
    dropped += gone.length;
    for (const { bytes } of gone) link.waitingBytes -= bytes.byteLength;
    if (link.behind[0] && link.behind[0].sinceMs < oldestMs && !link.stream) dropBehind(link);
  }

  function dropBehind(link: Link): void {
    dropped += link.behind.length;
    link.behind = [];
    link.behindBytes = 0;
  }

  /** Everything that waits and is no old news, and one part of what is behind it, as one write. */
  function takeFrames(link: Link): Uint8Array | undefined {
    dropOld(link);
    const part = link.behind.shift();
    link.behindBytes -= part?.bytes.byteLength ?? 0;
    const frames: Uint8Array[] = [];
    for (const { bytes } of part ? [...link.waiting, part] : link.waiting) {
      const header = Buffer.allocUnsafe(4);
      header.writeUInt32BE(bytes.byteLength);
      frames.push(header, bytes);
    }
    link.waiting.length = 0;
    link.waitingBytes = 0;
    return frames.length > 0 ? Buffer.concat(frames) : undefined;
  }

  async function openStream(link: Link): Promise<Stream> {
    const { peer } = link;
    if (!host.isConnected(peer)) await host.connect(peer, { signal: closing.signal });
    const stream = await host.open(peer, controlProtocol, { signal: AbortSignal.timeout(limits.openMs) });
    stream.addEventListener('close', () => {
      if (link.stream === stream) link.stream = undefined;
      // The far end has lost the first parts of what was under way.
      dropBehind(link);
      link.echo = undefined;
      link.silentSinceMs = undefined;
    });
    link.echoPauseMs = limits.echoMsMin;
    queueMicrotask(() => {
      options.onOpen(peer);
      echo(link);
    });
    return stream;
  }

  function echoAll(): void {
    const roundMs = nowMs();
    const stoodStill = roundMs - dueMs > limits.standstillMs;
    let isQuiet = true;
    for (const link of links.values()) {
      // After this node itself stood still, answers may lie unread.
      if (stoodStill && link.silentSinceMs !== undefined) link.silentSinceMs = roundMs;
      if (link.silentSinceMs !== undefined && roundMs - link.silentSinceMs > limits.silentMs) giveUp(link);
      if (link.echoPauseMs < limits.echoMsMax || link.silentSinceMs !== undefined) isQuiet = false;
      if (link.stream && roundMs >= link.echoAtMs) echo(link);
      else if (!link.stream && !link.busy && !hasWork(link) && !host.isConnected(link.peer)) {
        links.delete(link.peer);
      }
    }
    const pauseMs = isQuiet ? limits.quietLookMs : limits.echoMsMin;
    dueMs = nowMs() + pauseMs;
    echoTimer = setTimeout(echoAll, pauseMs).unref();
  }

  /** A connection whose far end has another address now, or is gone, would look open for a quarter of an hour. */
  function giveUp(link: Link): void {
    link.silentSinceMs = undefined;
    host.cut(link.peer, 'no answer to echoes');
  }

  function echo(link: Link): void {
    link.silentSinceMs ??= nowMs();
    echoes = (echoes + 1) >>> 0;
    link.echo = { number: echoes, sentMs: nowMs() };
    link.echoAtMs = nowMs() + link.echoPauseMs;
    link.echoPauseMs = Math.min(limits.echoMsMax, 2 * link.echoPauseMs);
    send(link.peer, { case: 'echo', value: { number: echoes } });
  }

  function onEcho(peer: NodeId, number: number): void {
    const link = links.get(peer);
    if (link) link.silentSinceMs = undefined;
    if (link?.echo?.number !== number) return;
    const ms = Math.max(0, nowMs() - link.echo.sentMs);
    link.echo = undefined;
    link.roundTripsMs.push(ms);
    if (link.roundTripsMs.length > limits.roundTripsKept) link.roundTripsMs.shift();
    options.onRoundTrip(peer, Math.min(...link.roundTripsMs));
  }

  function onBody(from: NodeId, body: Control['message']): void {
    if (body.case === 'echo') send(from, { case: 'echoReply', value: { number: body.value.number } });
    else if (body.case === 'echoReply') onEcho(from, body.value.number);
    else options.onFrame(from, body);
  }

  return {
    send,
    sendFrames,
    connected(peer) {
      const link = links.get(peer);
      if (link) resume(link);
    },
    accept(stream, from) {
      const nonsense = (reason: string): void => {
        stream.abort(new Error(reason));
        options.onNonsense(from, reason);
        host.cut(from, reason);
      };
      const frames = createFrameReader(limits.frameBytesMax);
      stream.addEventListener('message', ({ data }) => {
        try {
          for (const frame of frames.push(data.subarray())) onBody(from, decodeControl(frame));
        } catch (error) {
          nonsense(error instanceof Error ? error.message : String(error));
        }
      });
    },
    roundTripMs(peer) {
      const { roundTripsMs = [] } = links.get(peer) ?? {};
      return roundTripsMs.length > 0 ? Math.min(...roundTripsMs) : undefined;
    },
    dropped: () => dropped,
    open: () => [...links.values()].filter(({ stream }) => stream).length,
    async settle(timeoutMs) {
      const endMs = nowMs() + timeoutMs;
      const open = [...links.values()].filter((link) => link.stream || hasWork(link));
      for (const link of open) echo(link);
      const isSettled = (): boolean => open.every(({ echo: asked }) => asked === undefined);
      while (!isSettled() && nowMs() < endMs) await new Promise((resolve) => setTimeout(resolve, limits.settlePollMs));
    },
    async close() {
      clearTimeout(echoTimer);
      closing.abort();
      const late = AbortSignal.timeout(limits.partingMs);
      const streams = [...links.values()].flatMap(({ stream }) => stream ?? []);
      await Promise.all(streams.map((stream) => stream.close({ signal: late }).catch((error) => stream.abort(error))));
      links.clear();
    },
  };
}

/** Requests on the data plane: from one machine's question to the last byte of the other's answer. */
import type { Part, TransferOutcome } from '../mesh/core/fetch/types.ts';
import type { NodeId } from '../mesh/core/ids.ts';
import type { Flow } from './bandwidth.ts';
import type { Engine } from './engine.ts';
import type { NodeState } from './machine.ts';
import { connectTimeoutUs } from './network.ts';

/** What a machine has of a part: the right bytes, others, or nothing. */
export type Has = 'good' | 'bad' | 'absent';

/** A request at the serving side, as the network sees it. */
export interface Request {
  readonly from: number;
  readonly to: number;
  readonly parts: readonly Part[];
  answered(answer: RequestAnswer): void;
}

export type RequestAnswer =
  | {
      readonly kind: 'serve';
      readonly parts: readonly { readonly part: Part; readonly has: Has }[];
      readonly sent: (bytes: number) => void;
    }
  | { readonly kind: 'busy'; readonly tryNodes: readonly NodeId[]; readonly retryAfterMs: number };

/** What the reading side hears: any number of `progress`, then the parts, then how it ended. */
export interface Reader {
  progress(receivedBytes: number): void;
  part(part: Part, has: Has): void;
  ended(outcome: TransferOutcome): void;
}

export interface Holding {
  readonly index: number;
  state(): NodeState;
  request(request: Request): void;
}

export interface ConnectionPorts {
  readonly engine: Engine;
  /** Whether messages pass from one to the other. */
  open(from: number, to: number): boolean;
  latencyUs(reader: number, holder: number): number;
  flow(from: number, to: number, bytes: number, done: () => void): Flow;
  /** Bytes left a machine for another; once per request. */
  onSent(holder: number, reader: number, parts: readonly Part[], bytes: number): void;
}

export interface Connections {
  /** Asks a machine for parts; returns how to stop it. */
  request(reader: number, holder: Holding, parts: readonly Part[], to: Reader): () => void;
  /** Connections that break now. */
  break(of: (reader: number, holder: number) => boolean): void;
}

const progressUs = 100_000;
/** Each part has a head of its own. */
const headBytes = 200;

export function createConnections(ports: ConnectionPorts): Connections {
  const { engine } = ports;
  const connections = new Set<{ readonly reader: number; readonly holder: number; break(): void }>();

  function request(reader: number, holder: Holding, parts: readonly Part[], to: Reader): () => void {
    let over = false;
    let flow: Flow | undefined;
    let sent: ((sentBytes: number) => void) | undefined;
    const latencyUs = (): number => ports.latencyUs(reader, holder.index);
    const connection = {
      reader,
      holder: holder.index,
      break() {
        stop();
        engine.after(latencyUs(), () => to.ended({ kind: 'broken' }));
      },
    };

    function close(): void {
      over = true;
      connections.delete(connection);
    }

    function account(): void {
      if (!flow) return;
      const moved = flow.receivedBytes();
      ports.onSent(holder.index, reader, parts, moved);
      sent?.(moved);
    }

    function stop(): void {
      if (over) return;
      close();
      account();
      flow?.stop();
    }

    function tick(): void {
      engine.after(progressUs, () => {
        if (over || !flow) return;
        to.progress(flow.receivedBytes());
        tick();
      });
    }

    function answer(answered: RequestAnswer): void {
      if (over) return;
      if (answered.kind === 'busy') {
        close();
        const { tryNodes, retryAfterMs } = answered;
        engine.after(latencyUs(), () => to.ended({ kind: 'busy', tryNodes, retryAfterMs }));
        return;
      }
      ({ sent } = answered);
      let bytes = headBytes * parts.length;
      for (const { part, has } of answered.parts) if (has !== 'absent') bytes += part.lengthBytes;
      flow = ports.flow(holder.index, reader, bytes, () => {
        if (over) return;
        close();
        account();
        engine.after(latencyUs(), () => {
          for (const { part, has } of answered.parts) to.part(part, has);
          to.ended({ kind: 'done' });
        });
      });
      tick();
    }

    connections.add(connection);
    const reachable = ports.open(reader, holder.index) && ports.open(holder.index, reader);
    if (!reachable || holder.state() === 'suspended' || holder.state() === 'down') {
      engine.after(holder.state() === 'down' && reachable ? latencyUs() : connectTimeoutUs, () => {
        if (!over) connection.break();
      });
      return stop;
    }
    engine.after(latencyUs(), () => {
      if (!over) holder.request({ from: holder.index, to: reader, parts, answered: answer });
    });
    return stop;
  }

  return {
    request,
    break(of) {
      for (const connection of [...connections]) if (of(connection.reader, connection.holder)) connection.break();
    },
  };
}

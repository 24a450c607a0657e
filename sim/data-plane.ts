/**
 * What a simulated machine does about bytes: carries out the transfers that its peer orders, and serves those of others.
 * A receiver checks what it reads, so wrong bytes never become visible; a liar sends other bytes than it says.
 */
import type { Part, PartOutcome, TransferOutcome } from '../mesh/core/fetch/types.ts';
import type { BlobKey, NodeId } from '../mesh/core/ids.ts';
import type { SharingEffect, SharingEvent } from '../mesh/core/sharing-types.ts';
import type { Has, Reader, Request } from './connections.ts';
import type { Engine } from './engine.ts';

export type DataEffect = Extract<
  SharingEffect,
  { readonly kind: 'transfer' | 'cancelTransfer' | 'assemble' | 'discard' | 'serve' | 'refuse' }
>;

export interface DataPorts {
  readonly engine: Engine;
  /** See SimMachine. */
  readonly live: <A extends unknown[]>(act: (...args: A) => void) => (...args: A) => void;
  /** Only called while the machine is awake. */
  readonly deliver: (event: SharingEvent) => void;
  /** Puts a blob on the disk. */
  store(blob: BlobKey, sizeBytes: number, done: (outcome: 'stored' | 'noRoom') => void): void;
  /** Whether the bytes of a stored blob are right; undefined when it is not here. */
  holds(blob: BlobKey): boolean | undefined;
  sizeOf(blob: BlobKey): number;
  liar(): boolean;
  request(from: NodeId, parts: readonly Part[], to: Reader): () => void;
  nodeAt(index: number): NodeId;
}

export interface DataPlane {
  perform(effect: DataEffect): void;
  /** A request of another machine arrived. */
  request(request: Request): void;
  /** The process is gone. */
  end(): void;
}

export function createDataPlane(ports: DataPorts): DataPlane {
  const { engine, live, deliver } = ports;
  /** Ranges at hand of blobs that are still arriving, by offset: whether the bytes are right. */
  const arriving = new Map<BlobKey, Map<number, boolean>>();
  const stops = new Map<number, () => void>();
  const requests = new Map<number, Request>();
  let nextUpload = 0;

  function transfer({ transfer: id, from, parts }: Extract<DataEffect, { kind: 'transfer' }>): void {
    const report = (part: Part, outcome: PartOutcome): void =>
      deliver({ kind: 'part', transfer: id, blob: part.blob, outcome });
    let storing = 0;
    let over: TransferOutcome | undefined;
    const end = (): void => {
      if (over && storing === 0 && stops.delete(id)) deliver({ kind: 'ended', transfer: id, outcome: over });
    };
    const stop = ports.request(from, parts, {
      progress: live((receivedBytes: number) => {
        if (stops.has(id)) deliver({ kind: 'progress', transfer: id, receivedBytes });
      }),
      part: live((part: Part, has: Has) => {
        if (!stops.has(id)) return;
        if (has === 'absent') return report(part, 'absent');
        if (!part.whole) {
          const ranges = arriving.get(part.blob) ?? new Map<number, boolean>();
          arriving.set(part.blob, ranges);
          if (!ranges.has(part.offset)) ranges.set(part.offset, has === 'good');
          return report(part, 'arrived');
        }
        if (has === 'bad') return report(part, 'wrong');
        storing += 1;
        ports.store(part.blob, part.lengthBytes, (outcome) => {
          storing -= 1;
          if (stops.has(id)) report(part, outcome);
          else if (outcome === 'stored') deliver({ kind: 'stored', blob: part.blob, sizeBytes: part.lengthBytes });
          end();
        });
      }),
      ended: live((outcome: TransferOutcome) => {
        over = outcome;
        end();
      }),
    });
    stops.set(id, stop);
  }

  function assemble(blob: BlobKey): void {
    const ranges = [...(arriving.get(blob) ?? new Map<number, boolean>([[0, false]])).values()];
    arriving.delete(blob);
    const ended = (outcome: 'stored' | 'wrong' | 'noRoom'): void => deliver({ kind: 'assembled', blob, outcome });
    if (ranges.includes(false))
      engine.after(
        1_000,
        live(() => ended('wrong')),
      );
    else ports.store(blob, ports.sizeOf(blob), ended);
  }

  function has(part: Part): Has {
    const good = ports.holds(part.blob) ?? (part.whole ? undefined : arriving.get(part.blob)?.get(part.offset));
    if (good === undefined) return 'absent';
    return good && !ports.liar() ? 'good' : 'bad';
  }

  return {
    perform(effect) {
      switch (effect.kind) {
        case 'transfer':
          return transfer(effect);
        case 'cancelTransfer':
          stops.get(effect.transfer)?.();
          stops.delete(effect.transfer);
          return;
        case 'assemble':
          return assemble(effect.blob);
        case 'discard':
          arriving.delete(effect.blob);
          return;
        case 'serve': {
          const { upload } = effect;
          const request = requests.get(upload);
          requests.delete(upload);
          const sent = live((sentBytes: number) => deliver({ kind: 'sent', upload, sentBytes }));
          request?.answered({ kind: 'serve', parts: request.parts.map((part) => ({ part, has: has(part) })), sent });
          return;
        }
        case 'refuse': {
          const request = requests.get(effect.upload);
          requests.delete(effect.upload);
          request?.answered({ kind: 'busy', tryNodes: effect.tryNodes, retryAfterMs: effect.retryAfterMs });
          return;
        }
        default:
          effect satisfies never;
      }
    },
    request(request) {
      nextUpload += 1;
      requests.set(nextUpload, request);
      deliver({ kind: 'asked', upload: nextUpload, to: ports.nodeAt(request.to), parts: request.parts });
    },
    end() {
      for (const stop of stops.values()) stop();
      stops.clear();
      requests.clear();
      arriving.clear();
    },
  };
}

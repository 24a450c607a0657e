/**
 * Which requests of other nodes are served now: within this node's upload budget, a few for one large blob at once, and
 * the rest are told who else has it by now.
 */
import type { BlobKey, NodeId } from '../ids.ts';
import type { Machine } from '../machine.ts';
import * as limits from './limits.ts';
import type { Part, UploadEffect, UploadEvent, UploadsConfig } from './types.ts';

export interface Uploads extends Machine<UploadEvent, UploadEffect> {
  active(): number;
}

interface Upload {
  readonly to: NodeId;
  readonly parts: readonly Part[];
  readonly bytes: number;
}

export function createUploads(config: UploadsConfig, nowMs: number): Uploads {
  const { bytesPerSecond, uploadsMax } = config;
  const burstBytes = Math.trunc((bytesPerSecond * limits.uploadBurstMs) / 1_000);
  const active = new Map<number, Upload>();
  /** Who got, or is getting, a large blob from here; the last one last. Least recently asked blobs go first. */
  const served = new Map<BlobKey, Set<NodeId>>();
  let budgetBytes = burstBytes;
  let filledAtMs = nowMs;
  let effects: UploadEffect[] = [];

  function fill(now: number): void {
    const added = Math.trunc(((now - filledAtMs) * bytesPerSecond) / 1_000);
    if (added <= 0) return;
    filledAtMs = now;
    budgetBytes = Math.min(burstBytes, budgetBytes + added);
  }

  function count(test: (upload: Upload) => boolean): number {
    let found = 0;
    for (const upload of active.values()) if (test(upload)) found += 1;
    return found;
  }

  function remember(blob: BlobKey, to: NodeId): void {
    const nodes = served.get(blob) ?? new Set();
    served.delete(blob);
    served.set(blob, nodes);
    nodes.delete(to);
    nodes.add(to);
    for (const oldest of nodes) {
      if (nodes.size <= limits.rememberedNodes) break;
      nodes.delete(oldest);
    }
    for (const oldest of served.keys()) {
      if (served.size <= limits.rememberedBlobs) break;
      served.delete(oldest);
    }
  }

  function asked(upload: number, to: NodeId, parts: readonly Part[]): void {
    const bytes = parts.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    const [large] = parts.filter(({ whole, lengthBytes }) => !whole || lengthBytes >= limits.rememberedBytes);
    const crowd = large ? count((other) => other.to !== to && other.parts.some(({ blob }) => blob === large.blob)) : 0;
    const crowded = crowd >= limits.uploadsPerBlob;
    const greedy = count((other) => other.to === to) >= limits.uploadsPerNode;
    if (crowded || greedy || active.size >= uploadsMax || budgetBytes <= 0) {
      const others = [...(large ? (served.get(large.blob) ?? []) : [])].filter((node) => node !== to);
      // A node that serves nothing at all never will.
      const owedMs =
        bytesPerSecond > 0 ? Math.ceil((Math.max(0, -budgetBytes) * 1_000) / bytesPerSecond) : limits.busyMsMax;
      effects.push({
        kind: 'refuse',
        upload,
        tryNodes: others.slice(-limits.tryNodesMax),
        retryAfterMs: Math.min(limits.busyMsMax, Math.max(limits.refusalMsMin, owedMs)),
      });
      return;
    }
    budgetBytes -= bytes;
    active.set(upload, { to, parts, bytes });
    if (large) remember(large.blob, to);
    effects.push({ kind: 'serve', upload });
  }

  return {
    active: () => active.size,
    step(event, now) {
      effects = [];
      fill(now);
      switch (event.kind) {
        case 'asked':
          asked(event.upload, event.to, event.parts);
          break;
        case 'sent': {
          const upload = active.get(event.upload);
          if (!upload) break;
          active.delete(event.upload);
          // What was not sent after all may be sent to somebody else.
          budgetBytes = Math.min(burstBytes, budgetBytes + Math.max(0, upload.bytes - event.sentBytes));
          break;
        }
        case 'gone':
          served.delete(event.blob);
          break;
        case 'absent':
          for (const nodes of served.values()) nodes.delete(event.node);
          break;
        default:
          event satisfies never;
      }
      return effects;
    },
  };
}

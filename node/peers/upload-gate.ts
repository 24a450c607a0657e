/** The upload gate of the mesh's machine (mesh/core/fetch/uploads.ts) as the data plane asks it. */
import type { UploadEffect, UploadEvent } from '../../mesh/core/fetch/types.ts';
import type { Passed, Refused, UploadGate } from '../../mesh/net/data/server.ts';

export interface MachineGate extends UploadGate {
  /** The machine's answer. */
  perform(effect: UploadEffect): void;
}

/** @param tell - hands the machine an event; its answer may come before this returns */
export function createUploadGate(tell: (event: Extract<UploadEvent, { kind: 'asked' | 'sent' }>) => void): MachineGate {
  const asked = new Map<number, (answer: Passed | Refused) => void>();
  let next = 1;
  return {
    async ask(peer, parts) {
      const upload = next++;
      const { promise, resolve } = Promise.withResolvers<Passed | Refused>();
      asked.set(upload, resolve);
      tell({ kind: 'asked', upload, to: peer, parts });
      return await promise;
    },
    perform(effect) {
      const { upload } = effect;
      const resolve = asked.get(upload);
      asked.delete(upload);
      if (effect.kind === 'serve') resolve?.({ sent: (sentBytes) => tell({ kind: 'sent', upload, sentBytes }) });
      else resolve?.({ refused: true, tryPeers: effect.tryNodes, retryAfterMs: effect.retryAfterMs });
    },
  };
}

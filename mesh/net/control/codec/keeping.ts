/** Promises between nodes to keep blobs. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type * as wire from '../../../../protos/gen/potluck/mesh/v1/control_pb.ts';
import type { KeepingMessage } from '../../../core/keeping/types.ts';
import * as limits from '../limits.ts';
import { bounded, BrokenRule, duration, text } from './checks.ts';

export function keepingOf(message: KeepingMessage): MessageInitShape<typeof wire.KeepingSchema> {
  const { seq } = message;
  if (message.kind === 'keep') {
    return { message: { case: 'keep', value: { seq, blobs: [...message.blobs], forMs: message.forMs } } };
  }
  return { message: { case: 'kept', value: { seq, forMs: [...message.forMs] } } };
}

export function keepingIn({ message }: wire.Keeping): KeepingMessage {
  switch (message.case) {
    case 'keep': {
      const { seq, blobs, forMs } = message.value;
      return { kind: 'keep', seq, blobs: bounded(blobs, limits.blobsMax).map(text), forMs: duration(forMs) };
    }
    case 'kept':
      return {
        kind: 'kept',
        seq: message.value.seq,
        forMs: bounded(message.value.forMs, limits.blobsMax).map(duration),
      };
    case undefined:
      throw new BrokenRule('a keeping message that is none');
    default:
      return message satisfies never;
  }
}

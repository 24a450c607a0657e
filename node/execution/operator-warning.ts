/** Which failed runs the operator of this machine should hear of, and in what words. */
import type { Code } from '../../protos/status.ts';
import type { ExecutionEvent } from './executor.ts';

/** What a client did wrong is told to the client alone. */
const clientCodes: ReadonlySet<Code> = new Set(['INVALID_ARGUMENT', 'FAILED_PRECONDITION', 'CANCELLED']);

/** A sentence, or `undefined` when there is nothing to tell. */
export function operatorWarning(event: ExecutionEvent): string | undefined {
  if (event.kind !== 'run-ended' || event.outcome !== 'error' || !event.error) return undefined;
  if (clientCodes.has(event.error.code)) return undefined;
  const { hash, sizeBytes } = event.action;
  const next = event.retried ? 'it is tried again' : 'its client was told';
  return `action ${hash}/${sizeBytes} could not be run (${event.error.message}); ${next}`;
}

/** What went wrong with a peer, told apart by what follows from it. */
import { type Code, StatusError } from '../../../protos/status.ts';

/**
 * - `unreachable`: no connection, or it broke; the next holder may be asked at once.
 * - `refused`: one end does not believe the other's membership.
 * - `busy`: it has no upload to spare; `tryPeers` may have the blob too.
 * - `missing`: it does not hold the blob.
 * - `stalled`: nothing came for too long.
 * - `lied`: what it sent cannot be what was asked for.
 */
export type PeerFailure = 'unreachable' | 'refused' | 'busy' | 'missing' | 'stalled' | 'lied';

const codes: Readonly<Record<PeerFailure, Code>> = {
  unreachable: 'UNAVAILABLE',
  refused: 'PERMISSION_DENIED',
  busy: 'RESOURCE_EXHAUSTED',
  missing: 'NOT_FOUND',
  stalled: 'DEADLINE_EXCEEDED',
  lied: 'DATA_LOSS',
};

export class PeerError extends StatusError {
  readonly failure: PeerFailure;
  readonly peer: string;
  readonly tryPeers: readonly string[];
  /** When a busy member wants to be asked again. */
  readonly retryAfterMs: number | undefined;

  constructor(
    failure: PeerFailure,
    peer: string,
    reason: string,
    options: { cause?: unknown; tryPeers?: readonly string[]; retryAfterMs?: number } = {},
  ) {
    super(codes[failure], `peer ${peer}: ${reason}`, options);
    this.failure = failure;
    this.peer = peer;
    this.tryPeers = options.tryPeers ?? [];
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** What the owner can say about guests, to a running node or on its data directory, and what is answered. */
import { StatusError } from '../../protos/status.ts';
import type { MachineReading } from '../../sandbox/idleness/reading.ts';
import type { LendConfig } from '../config/config.ts';
import { type Lending, openLending } from './lending.ts';

/** What commands say, and what a desktop's scripts may say when a screen is locked or unlocked. */
export type OwnerRequest =
  | { readonly do: 'pause' }
  | { readonly do: 'resume' }
  | { readonly do: 'lend'; readonly when?: Lending['when']; readonly slots?: number }
  | { readonly do: 'owner'; readonly presence: 'back' | 'away' };

/** In `/api/status` as `owner`. Fields are only ever added. */
export interface OwnerStatus {
  readonly when: Lending['when'];
  readonly paused: boolean;
  /** Guests at once, at most, when they are welcome; `null`: as many as the node has slots. */
  readonly slots: number | null;
  readonly guestsWelcome: boolean;
  /** Why they are not; a sentence. */
  readonly reason: string | null;
  /** The last look at the machine; `null` while nobody has to know. What is absent in it could not be told; input that there never was is `null`. */
  readonly reading: MachineReading | null;
}

const names: ReadonlySet<string> = new Set<OwnerRequest['do']>(['pause', 'resume', 'lend', 'owner']);

export function isOwnerRequest(request: { readonly do: string }): request is OwnerRequest {
  return names.has(request.do);
}

/** What a request changes for good. Throws INVALID_ARGUMENT for what it cannot mean. */
export function lendingChange(request: Exclude<OwnerRequest, { do: 'owner' }>): Partial<Lending> {
  if (request.do !== 'lend') return { paused: request.do === 'pause' };
  const { when, slots } = request;
  if (when !== undefined && !['idle', 'always', 'never'].includes(when)) {
    throw new StatusError('INVALID_ARGUMENT', `"${String(when)}" is not one of idle, always, never`);
  }
  if (slots !== undefined && !(Number.isSafeInteger(slots) && slots >= 0)) {
    throw new StatusError('INVALID_ARGUMENT', 'slots must be a whole number');
  }
  return { ...(when !== undefined && { when }), ...(slots !== undefined && { slots }) };
}

/** Without a running node: what is said holds from its next start on. Throws FAILED_PRECONDITION for a signal. */
export function handleOffline(request: OwnerRequest, dataDir: string, lend: LendConfig): OwnerStatus {
  if (request.do === 'owner') throw new StatusError('FAILED_PRECONDITION', 'no node runs here that could be told');
  const { when, paused, slots } = openLending(dataDir, lend, () => {}).change(lendingChange(request));
  return { when, paused, slots: slots ?? null, guestsWelcome: false, reason: 'no node runs here', reading: null };
}

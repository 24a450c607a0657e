/**
 * The one error family: canonical gRPC codes, a text for people, typed details.
 *
 * Everything that can go wrong in operation is a `StatusError`; broken invariants are `assert`.
 */
import type { Any } from '@bufbuild/protobuf/wkt';

/** google.rpc.Code by name. */
export const codes = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

export type Code = keyof typeof codes;

const names = Object.fromEntries(Object.entries(codes).map(([name, value]) => [value, name])) as Record<number, Code>;

/** The name of a numeric code; codes outside the standard are UNKNOWN. */
export function codeName(code: number): Code {
  return names[code] ?? 'UNKNOWN';
}

export class StatusError extends Error {
  override readonly name = 'StatusError';
  readonly code: Code;
  /** The message without the code in front. */
  readonly reason: string;
  readonly details: readonly Any[];

  constructor(code: Code, reason: string, options: { cause?: unknown; details?: readonly Any[] } = {}) {
    super(`${code}: ${reason}`, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.reason = reason;
    this.details = options.details ?? [];
  }
}

/** The door through which foreign exceptions enter: keeps a StatusError, maps aborts and full disks, else INTERNAL. */
export function toStatusError(error: unknown, doing?: string): StatusError {
  if (error instanceof StatusError) return error;
  const prefix = doing === undefined ? '' : `${doing}: `;
  if (error instanceof Error) {
    if (error.name === 'AbortError') return new StatusError('CANCELLED', `${prefix}cancelled`, { cause: error });
    if (error.name === 'TimeoutError')
      return new StatusError('DEADLINE_EXCEEDED', `${prefix}timed out`, { cause: error });
    const errno = (error as NodeJS.ErrnoException).code;
    if (errno === 'ENOSPC' || errno === 'EDQUOT') {
      return new StatusError('RESOURCE_EXHAUSTED', `${prefix}the disk is full (${error.message})`, { cause: error });
    }
    if (errno === 'EMFILE' || errno === 'ENFILE') {
      return new StatusError('RESOURCE_EXHAUSTED', `${prefix}too many open files (${error.message})`, { cause: error });
    }
    return new StatusError('INTERNAL', `${prefix}${error.message}`, { cause: error });
  }
  return new StatusError('INTERNAL', `${prefix}${String(error)}`);
}

/** What a socket brings, in one piece of memory that is filled again and again: whoever listens copies what it keeps. */
import * as limits from './limits.ts';

export interface Inbox {
  /** The option of this name of `tls.connect`. */
  readonly onread: { readonly buffer: Uint8Array; callback(length: number, buffer: Uint8Array): boolean };
  /** From now on `take` gets what comes; false asks for a pause, though a little more may come. */
  listen(take: (bytes: Uint8Array) => boolean): void;
}

export function createInbox(): Inbox {
  let listener: (bytes: Uint8Array) => boolean = () => false;
  return {
    onread: {
      buffer: Buffer.allocUnsafeSlow(limits.inboxBytes),
      callback: (length, buffer) => listener(buffer.subarray(0, length)),
    },
    listen(take) {
      listener = take;
    },
  };
}

/**
 * What a mesh driver needs of the world. Production and the simulator supply these; nothing else differs between them.
 *
 * Ports answer by callback and never before the call that asked returned, so that one thread of control drives a peer.
 */

/** Files of one directory that belong to one log. */
export interface LogFiles {
  /** Adds text at the end of a file, which is made when absent. Not durable until `sync`. `done(false)`: no room. */
  append(name: string, text: string, done: (ok: boolean) => void): void;
  /** Calls `done(true)` once everything appended to the file before this call, and its name, survive a power cut. */
  sync(name: string, done: (ok: boolean) => void): void;
  /** Replaces a whole file in one durable step: write aside, sync, rename, sync the directory. */
  replace(name: string, text: string, done: (ok: boolean) => void): void;
}

export interface Clock {
  /** Milliseconds of a clock that never goes back and that counts time spent suspended. */
  nowMs(): number;
  /** How much of it was spent suspended. A paused virtual machine sees neither. */
  suspendedMs(): number;
}

export interface Alarm {
  /** Calls the driver back once at or after `atMs` of the clock; a later call replaces an earlier one. */
  set(atMs: number): void;
}

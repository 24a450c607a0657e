/**
 * The contract of every machine in mesh/core.
 *
 * - A machine owns no socket, timer, file, promise, clock or source of randomness; `nowMs` is the only time it knows, read
 *   by the driver at each step from a clock that includes suspend. A gap in it is delivered as an event first.
 * - Effects of one batch run in order, except that a `send` with `after: id` waits until the `persist` of that id is
 *   durable: a machine promises nothing it could forget.
 * - Answers come back as events carrying the same id. A missing answer is a timer, never an exception.
 * - `wakeAt` replaces timers; the driver keeps only the earliest and delivers a wake event.
 * - Machines order transfers; the driver moves bytes and reports. Bytes never pass through a machine.
 * - Collections are iterated in insertion or sorted order, never in an order that depends on arrival of promises.
 */
export interface Machine<Event, Effect> {
  /** Applies one event. No I/O, no promises, no clock. */
  step(event: Event, nowMs: number): readonly Effect[];
}

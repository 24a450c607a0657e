/**
 * A machine that runs one process: its clock, what waits while it stands still, and the production driver with the
 * production peer on top. It can be paused, suspended, and lose its process.
 */
import type { NodeId } from '../mesh/core/ids.ts';
import {
  type Driven,
  type Driver,
  type EventOf,
  type MessageOf,
  type RecordOf,
  startDriver,
  type WorkOf,
} from '../node/mesh/driver.ts';
import type { LogFiles } from '../node/mesh/ports.ts';
import { createClock, type SimClock } from './clock.ts';
import type { SimDisk } from './disk.ts';
import type { Engine } from './engine.ts';

export type NodeState = 'up' | 'paused' | 'suspended' | 'down';

export interface SimMachine<P extends Driven> {
  readonly clock: SimClock;
  readonly state: () => NodeState;
  /** How often its process ended. */
  readonly life: () => number;
  /** Undefined while the machine is down. */
  readonly peer: () => P | undefined;
  readonly driver: () => Driver<P> | undefined;
  /** Wraps a callback into this life of the machine: dropped after a crash, put off while it stands still. */
  readonly live: <A extends unknown[]>(act: (...args: A) => void) => (...args: A) => void;
  /** Hands the peer an event, once the machine is awake. */
  readonly deliver: (event: EventOf<P>) => void;
  /** Hands it a message: one that finds the machine asleep is lost. */
  receive(event: EventOf<P>): void;
  /** Starts the process from the log. */
  boot(
    log: SimDisk,
    ports: { readonly send: (to: NodeId, message: MessageOf<P>) => void; readonly work: (effect: WorkOf<P>) => void },
    create: (restored: readonly RecordOf<P>[], nowMs: number) => P,
  ): void;
  /** The process is gone, and with it everything that was not on a disk. */
  end(): void;
  standStill(as: 'paused' | 'suspended'): void;
  /** Ends a pause or a suspend: what waited happens first, then `awake`, then the peer's alarm. */
  goOn(awake: () => void): void;
}

/** Messages that a machine's sockets hold while it is paused; more are lost, as a full receive buffer loses its connection. */
const backlogMax = 20_000;

export function createMachine<P extends Driven>(engine: Engine, startMs: number): SimMachine<P> {
  const clock = createClock(engine, startMs);
  let state: NodeState = 'down';
  let life = 0;
  let started: { readonly peer: P; readonly driver: Driver<P> } | undefined;
  let backlog: (() => void)[] = [];
  let suspendedAtUs = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let armedUs = Number.POSITIVE_INFINITY;

  function live<A extends unknown[]>(act: (...args: A) => void): (...args: A) => void {
    const mine = life;
    return (...args) => {
      if (mine !== life || state === 'down') return;
      if (state === 'up') act(...args);
      else backlog.push(() => act(...args));
    };
  }

  function arm(): void {
    const atUs = clock.globalUs(wakeAtMs);
    if (wakeAtMs === Number.POSITIVE_INFINITY || atUs >= armedUs) return;
    armedUs = atUs;
    const mine = life;
    engine.at(atUs, () => {
      if (mine !== life || armedUs !== atUs) return;
      armedUs = Number.POSITIVE_INFINITY;
      if (state === 'up') ring();
    });
  }

  function ring(): void {
    if (clock.nowMs() < wakeAtMs) {
      arm();
      return;
    }
    wakeAtMs = Number.POSITIVE_INFINITY;
    started?.driver.wake();
  }

  function filesOf(log: SimDisk): LogFiles {
    return {
      append: (name, text, done) => log.append(name, text, live(done)),
      sync: (name, done) => log.sync(name, live(done)),
      replace: (name, text, done) => log.replace(name, text, live(done)),
    };
  }

  return {
    clock,
    state: () => state,
    life: () => life,
    peer: () => started?.peer,
    driver: () => started?.driver,
    live,
    deliver: (event) => live(() => started?.driver.deliver(event))(),
    receive(event) {
      if (state === 'up' || (state === 'paused' && backlog.length < backlogMax)) this.deliver(event);
    },
    boot(log, { send, work }, create) {
      state = 'up';
      const alarm = {
        set(atMs: number): void {
          wakeAtMs = atMs;
          arm();
        },
      };
      started = startDriver<P>(
        { clock, alarm, files: filesOf(log), send, work },
        { text: log.read('peer.log'), truncate: (length) => log.truncate('peer.log', length) },
        create,
      );
    },
    end() {
      life += 1;
      backlog = [];
      started = undefined;
      armedUs = Number.POSITIVE_INFINITY;
      wakeAtMs = Number.POSITIVE_INFINITY;
      state = 'down';
    },
    standStill(as) {
      if (as === 'paused') clock.stop();
      else suspendedAtUs = clock.nowUs();
      state = as;
    },
    goOn(awake) {
      if (state === 'paused') clock.go();
      else clock.addSuspended(clock.nowUs() - suspendedAtUs);
      state = 'up';
      const waiting = backlog;
      backlog = [];
      for (const act of waiting) act();
      armedUs = Number.POSITIVE_INFINITY;
      awake();
      arm();
    },
  };
}

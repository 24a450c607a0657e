/**
 * Drives one machine: reads the clock at every step, keeps what the machine said until the disk has it, and hands the rest
 * to the ports. This is the only place where the mesh's machines meet the world, in production and in the simulator alike.
 */
import type { NodeId } from '../../mesh/core/ids.ts';
import type { Machine } from '../../mesh/core/machine.ts';
import type { Peer } from '../../mesh/core/peer.ts';
import { createDurableLog, readLog, retryMs } from './durable-log.ts';
import type { Alarm, Clock, LogFiles } from './ports.ts';

const logName = 'peer.log';
/** Time suspended that is worth an event of its own; below it nothing has expired. */
const gapMsMin = 100;

/** A machine that writes, sends and wakes; its events include `wake`, `gap` and `persisted` (see mesh/core/machine.ts). */
export interface Driven {
  step(event: never, nowMs: number): readonly { readonly kind: string }[];
  /** Records from which an equal machine can be restored, fewer than were ever written. */
  checkpoint(nowMs: number): readonly object[];
}

export type EventOf<P extends Driven> = Parameters<P['step']>[0];
type EffectOf<P extends Driven> = ReturnType<P['step']>[number];
export type RecordOf<P extends Driven> = ReturnType<P['checkpoint']>[number];
export type MessageOf<P extends Driven> =
  Extract<EffectOf<P>, { readonly kind: 'send' }> extends {
    readonly message: infer M;
  }
    ? M
    : never;
/** What a driver does not do itself: run actions, move blobs, answer clients. */
export type WorkOf<P extends Driven> = Exclude<EffectOf<P>, { readonly kind: 'persist' | 'send' | 'wakeAt' }>;
export type WorkEffect = WorkOf<Peer>;

export interface DriverPorts<P extends Driven = Peer> {
  readonly clock: Clock;
  readonly alarm: Alarm;
  readonly files: LogFiles;
  send(to: NodeId, message: MessageOf<P>): void;
  work(effect: WorkOf<P>): void;
}

export interface Driver<P extends Driven = Peer> {
  /** Hands the machine an event. */
  deliver(event: EventOf<P>): void;
  /** The alarm went off. */
  wake(): void;
  /** Messages held back until the disk has what they promise. */
  heldBack(): number;
}

/** The events that a driver makes itself. */
type OwnEvent =
  | { readonly kind: 'wake' }
  | { readonly kind: 'gap'; readonly gapMs: number }
  | { readonly kind: 'persisted'; readonly id: number };

/** The effects that a driver performs itself, as it sees them. */
type DriverEffect<P extends Driven> =
  | { readonly kind: 'persist'; readonly id: number; readonly record: RecordOf<P> }
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: MessageOf<P>; readonly after?: number }
  | { readonly kind: 'wakeAt'; readonly atMs: number };

type Stepped<P extends Driven> = Machine<OwnEvent | EventOf<P>, DriverEffect<P> | WorkOf<P>>;

/**
 * Starts a machine from the text of its log. `create` gets its records, oldest first; `truncate` is told the length of the
 * good part when a crash left a torn tail.
 */
export function startDriver<P extends Driven = Peer>(
  ports: DriverPorts<P>,
  log: { readonly text: string; truncate(length: number): void },
  create: (restored: readonly RecordOf<P>[], nowMs: number) => P,
): { readonly peer: P; readonly driver: Driver<P> } {
  const { clock, alarm } = ports;
  const { records, goodLength } = readLog(log.text);
  if (goodLength < log.text.length) log.truncate(goodLength);
  const created = create(records as RecordOf<P>[], clock.nowMs());
  const peer = created as unknown as Stepped<P>;
  const heldBack: { readonly to: NodeId; readonly message: MessageOf<P>; readonly after: number }[] = [];
  let durableTo = 0;
  let suspendedMs = clock.suspendedMs();
  let retryAtMs = Number.POSITIVE_INFINITY;
  let wakeAtMs = Number.POSITIVE_INFINITY;

  const durable = createDurableLog({
    files: ports.files,
    name: logName,
    sizeBytes: goodLength,
    durableTo: onDurable,
    failed: () => {
      retryAtMs = clock.nowMs() + retryMs;
      setAlarm();
    },
    checkpoint: () => created.checkpoint(clock.nowMs()),
  });

  function setAlarm(): void {
    alarm.set(Math.min(wakeAtMs, retryAtMs));
  }

  function onDurable(id: number): void {
    lookForGap();
    durableTo = id;
    while (heldBack[0] && heldBack[0].after <= durableTo) {
      const { to, message } = heldBack.shift() as (typeof heldBack)[number];
      ports.send(to, message);
    }
    step({ kind: 'persisted', id });
  }

  /** After a suspend nothing happens before the peer has heard of it. */
  function lookForGap(): void {
    const gapMs = clock.suspendedMs() - suspendedMs;
    if (gapMs < gapMsMin) return;
    suspendedMs += gapMs;
    step({ kind: 'gap', gapMs });
  }

  function deliver(event: OwnEvent | EventOf<P>): void {
    lookForGap();
    step(event);
  }

  function step(event: OwnEvent | EventOf<P>): void {
    for (const effect of peer.step(event, clock.nowMs())) perform(effect);
    durable.flush();
  }

  function perform(any: DriverEffect<P> | WorkOf<P>): void {
    const effect = any as DriverEffect<P>;
    switch (effect.kind) {
      case 'persist':
        durable.append(effect.id, effect.record);
        return;
      case 'send':
        if (effect.after === undefined || effect.after <= durableTo) ports.send(effect.to, effect.message);
        else holdBack(effect.to, effect.message, effect.after);
        return;
      case 'wakeAt':
        wakeAtMs = effect.atMs;
        setAlarm();
        return;
      default:
        ports.work(any as WorkOf<P>);
    }
  }

  /** Kept in order of what they wait for, which is nearly the order they come in. */
  function holdBack(to: NodeId, message: MessageOf<P>, after: number): void {
    let at = heldBack.length;
    while (at > 0 && (heldBack[at - 1] as (typeof heldBack)[number]).after > after) at -= 1;
    heldBack.splice(at, 0, { to, message, after });
  }

  return {
    peer: created,
    driver: {
      deliver,
      wake() {
        if (clock.nowMs() >= retryAtMs) {
          retryAtMs = Number.POSITIVE_INFINITY;
          durable.flush();
        }
        deliver({ kind: 'wake' });
        setAlarm();
      },
      heldBack: () => heldBack.length,
    },
  };
}

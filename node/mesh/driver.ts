/**
 * Drives one peer: reads the clock at every step, keeps what the peer said until the disk has it, and hands the rest to
 * the ports. This is the only place where the mesh's machines meet the world, in production and in the simulator alike.
 */
import type { NodeId } from '../../mesh/core/ids.ts';
import type { Peer, PeerEffect, PeerEvent, PeerMessage, PeerRecord } from '../../mesh/core/peer.ts';
import { createDurableLog, readLog, retryMs } from './durable-log.ts';
import type { Alarm, Clock, LogFiles } from './ports.ts';

const logName = 'peer.log';
/** Time suspended that is worth an event of its own; below it nothing has expired. */
const gapMsMin = 100;

/** What a driver does not do itself: run actions, move blobs, answer clients. */
export type WorkEffect = Exclude<PeerEffect, { readonly kind: 'persist' | 'send' | 'wakeAt' }>;

export interface DriverPorts {
  readonly clock: Clock;
  readonly alarm: Alarm;
  readonly files: LogFiles;
  send(to: NodeId, message: PeerMessage): void;
  work(effect: WorkEffect): void;
}

export interface Driver {
  /** Hands the peer an event. */
  deliver(event: PeerEvent): void;
  /** The alarm went off. */
  wake(): void;
  /** Messages held back until the disk has what they promise. */
  heldBack(): number;
}

/**
 * Starts a peer from the text of its log. `create` gets its records, oldest first; `truncate` is told the length of the
 * good part when a crash left a torn tail.
 */
export function startDriver(
  ports: DriverPorts,
  log: { readonly text: string; truncate(length: number): void },
  create: (restored: readonly PeerRecord[], nowMs: number) => Peer,
): { readonly peer: Peer; readonly driver: Driver } {
  const { clock, alarm } = ports;
  const { records, goodLength } = readLog(log.text);
  if (goodLength < log.text.length) log.truncate(goodLength);
  const peer = create(records as PeerRecord[], clock.nowMs());
  const heldBack: { readonly to: NodeId; readonly message: PeerMessage; readonly after: number }[] = [];
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
    checkpoint: () => peer.checkpoint(clock.nowMs()),
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

  function deliver(event: PeerEvent): void {
    lookForGap();
    step(event);
  }

  function step(event: PeerEvent): void {
    for (const effect of peer.step(event, clock.nowMs())) perform(effect);
    durable.flush();
  }

  function perform(effect: PeerEffect): void {
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
        ports.work(effect);
    }
  }

  /** Kept in order of what they wait for, which is nearly the order they come in. */
  function holdBack(to: NodeId, message: PeerMessage, after: number): void {
    let at = heldBack.length;
    while (at > 0 && (heldBack[at - 1] as (typeof heldBack)[number]).after > after) at -= 1;
    heldBack.splice(at, 0, { to, message, after });
  }

  return {
    peer,
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

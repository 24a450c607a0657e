/**
 * Watches over the owner of this machine: tells the mesh's machine how much is lent to guests, and whether the owner needs
 * it now. What then happens to guests is decided there.
 *
 * Sensors are read only while somebody listens and something is lent: a node that is alone watches nobody.
 */
import { createIdleness, type Idleness, type Unrest } from '../../mesh/core/offload/idleness.ts';
import { StatusError } from '../../protos/status.ts';
import { openMachineSensors } from '../../sandbox/idleness/sensors.ts';
import type { MachineReading, MachineSensors } from '../../sandbox/idleness/reading.ts';
import type { LendConfig } from '../config/config.ts';
import type { Clock } from '../execution/clock.ts';
import { type Lending, openLending } from './lending.ts';
import { sampleMs } from './limits.ts';
import { lendingChange, type OwnerRequest, type OwnerStatus } from './requests.ts';

/** Events of the mesh's machine. */
export type OwnerEvent =
  | {
      readonly kind: 'slots';
      readonly slots: number;
      /** Whether guests are welcome at all. */
      readonly guests: boolean;
      /** Guests at once, at most. */
      readonly guestSlots: number;
      readonly capabilities: readonly string[];
    }
  | { readonly kind: 'owner'; readonly present: boolean };

export interface OwnerWatch {
  /** Tells how it is now, and every change until disposed. */
  attach(deliver: (event: OwnerEvent) => void): Disposable;
  /** Takes effect before it returns. Throws INVALID_ARGUMENT for what is no request. */
  handle(request: OwnerRequest): OwnerStatus;
  status(): OwnerStatus;
  close(): void;
}

export interface OwnerWatchOptions {
  readonly dataDir: string;
  /** What holds until a command says otherwise. */
  readonly lend: LendConfig;
  readonly slots: number;
  /** Where actions are not isolated no guest is let in. */
  readonly isolated: boolean;
  /** Sorted `name=value`. */
  readonly capabilities: readonly string[];
  readonly clock: Clock;
  readonly onLog: (level: 'info' | 'warning', message: string) => void;
  readonly openSensors?: () => MachineSensors;
}

export function createOwnerWatch(options: OwnerWatchOptions): OwnerWatch {
  const { slots, isolated, capabilities, clock } = options;
  const lending = openLending(options.dataDir, options.lend, (text) => options.onLog('warning', text));
  /** And what each was told last. */
  const listeners = new Map<(event: OwnerEvent) => void, readonly OwnerEvent[]>();
  let machine: { readonly when: Lending['when']; readonly idleness: Idleness } | undefined;
  let sensors: MachineSensors | undefined;
  let reading: MachineReading | undefined;
  let cancelTimer = (): void => {};

  const guestSlots = (): number => Math.min(slots, lending.current().slots ?? slots);
  const lends = (): boolean => refusal(lending.current()) === undefined;

  function refusal({ paused, when }: Lending): string | undefined {
    if (slots === 0) return 'this node runs no actions (slots: 0)';
    if (!isolated) return 'actions are not isolated here; see "potluck doctor"';
    if (paused) return 'paused; "potluck resume" ends that';
    if (when === 'never') return 'its owner lends nothing (potluck lend --when idle)';
    return guestSlots() === 0 ? 'its owner lends no slots (potluck lend --slots)' : undefined;
  }

  function idleness(): Idleness {
    const { when } = lending.current();
    if (machine?.when !== when) machine = { when, idleness: createIdleness(when === 'always' ? 'always' : 'idle') };
    return machine.idleness;
  }

  function events(): readonly OwnerEvent[] {
    const guests = lends();
    return [
      { kind: 'slots', slots, guests, guestSlots: guests ? guestSlots() : 0, capabilities },
      { kind: 'owner', present: !(guests && idleness().idle(clock.nowMs())) },
    ];
  }

  function tell(): void {
    const now = events();
    for (const [deliver, before] of [...listeners]) {
      listeners.set(deliver, now);
      for (const [index, event] of now.entries()) {
        if (JSON.stringify(event) !== JSON.stringify(before[index])) deliver(event);
      }
    }
  }

  /** Looks at the machine, if anybody has to know. */
  function look(): void {
    cancelTimer();
    if (listeners.size === 0 || !lends()) {
      sensors?.[Symbol.dispose]();
      sensors = undefined;
      reading = undefined;
    } else {
      sensors ??= (options.openSensors ?? openMachineSensors)();
      reading = sensors.read();
      idleness().sample(reading, clock.nowMs());
      cancelTimer = clock.setTimer(sampleMs, look);
    }
    tell();
  }

  function handle(request: OwnerRequest): void {
    switch (request.do) {
      case 'pause':
      case 'resume':
      case 'lend':
        return void lending.change(lendingChange(request));
      case 'owner':
        if (request.presence === 'back') return idleness().back(clock.nowMs());
        if (request.presence === 'away') return idleness().away(clock.nowMs());
        throw new StatusError('INVALID_ARGUMENT', 'the owner is "back" or "away"');
      default:
        request satisfies never;
    }
  }

  function status(): OwnerStatus {
    const current = lending.current();
    const unrest = listeners.size === 0 ? undefined : idleness().unrest(clock.nowMs());
    const reason = refusal(current) ?? (listeners.size === 0 ? unwatched : unrest && sentences[unrest]) ?? null;
    const { when, paused } = current;
    return { when, paused, slots: guestSlots(), guestsWelcome: reason === null, reason, reading: reading ?? null };
  }

  return {
    attach(deliver) {
      listeners.set(deliver, []);
      look();
      return {
        [Symbol.dispose]: () => {
          listeners.delete(deliver);
          look();
        },
      };
    },
    handle(request) {
      handle(request);
      look();
      return status();
    },
    status,
    close() {
      listeners.clear();
      look();
    },
  };
}

const unwatched = 'nobody else is in the mesh';

const sentences: Readonly<Record<Unrest, string>> = {
  signal: 'its owner said to be back',
  heat: 'this machine is too hot',
  memory: 'memory is short',
  input: 'somebody uses this machine',
  battery: 'this machine runs on battery',
  'metered network': 'traffic costs money here',
  processors: 'the processors are in use',
  settling: 'not idle for long enough yet',
  'no reading': 'not idle for long enough yet',
};

/**
 * When somebody last touched a Linux machine. /dev/input is closed to ordinary users, and what a desktop knows is told over
 * D-Bus, so this looks at what everybody may read:
 *
 * - terminals (of consoles, windows, and logins over the network): the kernel keeps when each was last read from;
 * - USB keyboards and mice: their count of transfers rises with each report and rests otherwise;
 * - keyboards and touch pads inside a laptop: the count of their interrupts;
 * - a desktop none of whose devices can be seen so (Bluetooth, remote): logind's idle hint, through loginctl.
 *
 * A machine without a desktop and without such devices, a server, has terminals only. A desktop of which none of these
 * tells anything is one whose input is not known.
 */
import type { SystemFiles } from './files.ts';
import { devicesLookMs, inputProgramMs, slowLookMs } from './limits.ts';
import { type Ask, remembered } from './program.ts';

export interface InputSensor extends Disposable {
  /** Since the last sign of a person; infinite where there was none since boot; `undefined` when it cannot be known. */
  read(): number | undefined;
}

export interface InputOptions {
  readonly files: SystemFiles;
  readonly ask: Ask;
  /** Milliseconds since the epoch: what files are dated with. */
  readonly wallMs: () => number;
}

const usb = '/sys/bus/usb/devices';
const irqs = '/sys/kernel/irq';
const i2c = '/sys/bus/i2c/devices';

export function inputSensor({ files, ask, wallMs }: InputOptions): InputSensor {
  const counts = new Map<string, string>();
  let counters: readonly string[] = [];
  let terminals: readonly string[] = [];
  const devicesDue = every(devicesLookMs);
  const terminalsDue = every(slowLookMs);
  let desktop = false;
  // Whoever started this node may still be there.
  let movedAtMs = wallMs();
  const hint = remembered(() => idleHint(ask, wallMs), inputProgramMs, wallMs);

  function list(): void {
    counters = [...usbCounters(files), ...interruptCounters(files)];
    desktop = hasDesktop(files);
  }

  /** Notes the counts; whether one that was known before has changed. */
  function moved(): boolean {
    let changed = false;
    for (const path of counters) {
      const count = files.text(path) ?? '';
      const before = counts.get(path);
      counts.set(path, count);
      if (before !== undefined && before !== count) changed = true;
    }
    return changed;
  }

  return {
    read() {
      const nowMs = wallMs();
      if (devicesDue(nowMs)) list();
      if (terminalsDue(nowMs)) terminals = listTerminals(files);
      if (moved()) movedAtMs = nowMs;
      const signs = terminals.map((path) => files.readAtMs(path) ?? 0);
      if (counters.length > 0) signs.push(movedAtMs);
      else if (desktop) {
        const hinted = hint.get();
        if (hinted === undefined) return undefined;
        signs.push(hinted);
      }
      return Math.max(0, nowMs - Math.max(Number.NEGATIVE_INFINITY, ...signs));
    },
    [Symbol.dispose]: () => hint[Symbol.dispose](),
  };
}

/** Whether so much time went by; the wall clock may jump either way. */
function every(intervalMs: number): (nowMs: number) => boolean {
  let lastMs = Number.NEGATIVE_INFINITY;
  return (nowMs) => {
    if (Math.abs(nowMs - lastMs) < intervalMs) return false;
    lastMs = nowMs;
    return true;
  };
}

/** Those of windows and logins, and the console that is shown. */
function listTerminals(files: SystemFiles): string[] {
  const shown = files.text('/sys/class/tty/tty0/active');
  return [
    ...files.names('/dev/pts').flatMap((name) => (/^\d+$/.test(name) ? [`/dev/pts/${name}`] : [])),
    ...(shown ? [`/dev/${shown}`] : []),
  ];
}

/** Of keyboards and mice (interface class 3, protocols 1 and 2); a power supply with a data cable is a HID device too. */
function usbCounters(files: SystemFiles): string[] {
  const devices = new Set<string>();
  for (const name of files.names(usb)) {
    const device = name.split(':')[0];
    if (device === undefined || device === name) continue;
    const of = (field: string) => files.text(`${usb}/${name}/${field}`);
    if (of('bInterfaceClass') === '03' && ['01', '02'].includes(of('bInterfaceProtocol') ?? '')) devices.add(device);
  }
  return [...devices].map((device) => `${usb}/${device}/urbnum`).filter((path) => files.text(path) !== undefined);
}

/** Of the controller of built-in keyboards, and of touch pads on an I2C bus. */
function interruptCounters(files: SystemFiles): string[] {
  const pads = files
    .names(i2c)
    .filter((name) => files.linkName(`${i2c}/${name}/driver`)?.startsWith('i2c_hid'))
    .map((name) => name.replace(/^i2c-/, ''));
  const actions = new Set(['i8042', ...pads]);
  return files
    .names(irqs)
    .filter((number) => (files.text(`${irqs}/${number}/actions`) ?? '').split(',').some((name) => actions.has(name)))
    .map((number) => `${irqs}/${number}/per_cpu_count`);
}

function hasDesktop(files: SystemFiles): boolean {
  const sessions = '/run/systemd/sessions';
  return (
    files.names('/tmp/.X11-unix').length > 0 ||
    files.names(sessions).some((name) => /^TYPE=(x11|wayland|mir)$/m.test(files.text(`${sessions}/${name}`) ?? ''))
  );
}

/** Until when somebody was at a desktop, in milliseconds since the epoch: now, unless all are idle. @see loginctl(1) */
async function idleHint(ask: Ask, wallMs: () => number): Promise<number | undefined> {
  const list = await ask('loginctl', ['list-sessions', '--no-legend']);
  const ids = (list ?? '').split('\n').flatMap((line) => /^\s*([\w-]+)/.exec(line)?.[1] ?? []);
  if (ids.length === 0) return undefined;
  const told = await ask('loginctl', ['show-session', ...ids, '-p', 'Type', '-p', 'IdleHint', '-p', 'IdleSinceHint']);
  if (told === undefined) return undefined;
  const desktops = told.split('\n\n').filter((text) => /^Type=(x11|wayland|mir)$/m.test(text));
  if (desktops.length === 0) return undefined;
  const until = desktops.map((text) => {
    const sinceMicros = Number(/^IdleSinceHint=(\d+)$/m.exec(text)?.[1] ?? '0');
    return /^IdleHint=yes$/m.test(text) ? sinceMicros / 1_000 : wallMs();
  });
  return Math.max(...until);
}

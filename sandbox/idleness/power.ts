/** Battery and heat of a Linux machine. @see the kernel's ABI for sysfs-class-power and sysfs-class-thermal */
import { join } from 'node:path';
import type { SystemFiles } from './files.ts';

const supplies = '/sys/class/power_supply';
const thermal = '/sys/class/thermal';

/** A machine without a battery of its own is on mains; `undefined` where the kernel knows of no power supplies at all. */
export function onBattery(files: SystemFiles): boolean | undefined {
  const names = files.names(supplies);
  if (names.length === 0) return undefined;
  const of = (name: string, field: string) => files.text(join(supplies, name, field));
  // The battery of a mouse is no battery of the machine.
  const batteries = names.filter((name) => of(name, 'type') === 'Battery' && of(name, 'scope') !== 'Device');
  if (batteries.length === 0) return false;
  if (batteries.some((name) => of(name, 'status') === 'Discharging')) return true;
  const mains = names.filter((name) => of(name, 'type') === 'Mains');
  return mains.length > 0 && mains.every((name) => of(name, 'online') === '0');
}

/** Whether the kernel slows a processor down, or a zone is at the point where it would. */
export function isHot(files: SystemFiles): boolean | undefined {
  const names = files.names(thermal);
  if (names.length === 0) return undefined;
  return names.some((name) => {
    const dir = join(thermal, name);
    if (name.startsWith('cooling_device')) {
      return files.text(join(dir, 'type')) === 'Processor' && (files.number(join(dir, 'cur_state')) ?? 0) > 0;
    }
    const now = files.number(join(dir, 'temp'));
    return now !== undefined && tripPoints(files, dir).some((point) => now >= point);
  });
}

/** Where the kernel acts on the processors, in thousandths of a degree. */
function tripPoints(files: SystemFiles, dir: string): number[] {
  const types = files.names(dir).filter((name) => /^trip_point_\d+_type$/.test(name));
  return (
    types
      .filter((name) => ['passive', 'hot', 'critical'].includes(files.text(join(dir, name)) ?? ''))
      .map((name) => files.number(join(dir, name.replace(/type$/, 'temp'))) ?? 0)
      // Firmware without such a point says 0 or less.
      .filter((point) => point > 0)
  );
}

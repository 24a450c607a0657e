/** Memory of a Linux machine. @see proc_meminfo(5), and the kernel's text on pressure stall information */
import type { SystemFiles } from './files.ts';
import { pressurePercentMax } from './limits.ts';

export function freeMemoryBytes(files: SystemFiles): number | undefined {
  const kibibytes = /^MemAvailable: +(\d+) kB$/m.exec(files.text('/proc/meminfo') ?? '')?.[1];
  return kibibytes === undefined ? undefined : Number(kibibytes) * 1_024;
}

/** `undefined` for kernels that do not measure it. */
export function isMemoryPressed(files: SystemFiles): boolean | undefined {
  const percent = /^some avg10=([\d.]+)/m.exec(files.text('/proc/pressure/memory') ?? '')?.[1];
  return percent === undefined ? undefined : Number(percent) >= pressurePercentMax;
}

/** What a node tells the others about its machine. What cannot be found out is left at the cautious side. */
import { randomInt } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, networkInterfaces, totalmem } from 'node:os';
import { join } from 'node:path';
import type { MachineAttributes } from '../../mesh/core/membership/records.ts';
import { createDurably, readIfThere, removeDurably } from '../../mesh/net/identity/durable-file.ts';
import { parseHostPort, subnetOf } from '../../mesh/net/host/addresses.ts';

export interface Facts {
  readonly site: string;
  /** host:port of the data plane; '' without one. */
  readonly dataAddress: string;
  readonly storeGeneration: number;
}

export function attributesOf({ site, dataAddress, storeGeneration }: Facts): MachineAttributes {
  const host = parseHostPort(dataAddress)?.host ?? '';
  return {
    site,
    subnet: subnetOf(host),
    dataAddress,
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    power: onBattery() ? 'battery' : 'mains',
    wired: isWired(host),
    coordinator: 'eligible',
    storeGeneration,
  };
}

/**
 * The number that names the disk under a data directory, drawn when it is first asked for; and drawn anew when the machines'
 * log is gone, so that nobody takes the votes and promises which went with it for those of this disk.
 */
export function storeGenerationOf(dataDir: string, { logIsGone }: { readonly logIsGone: boolean }): number {
  const path = join(dataDir, 'mesh', 'store-generation');
  if (logIsGone) removeDurably(path);
  createDurably(path, Buffer.from(String(randomInt(1, 2 ** 47))));
  const number = Number(Buffer.from(readIfThere(path) ?? '').toString());
  return Number.isSafeInteger(number) && number > 0 ? number : 1;
}

/** Linux tells; elsewhere a machine counts as plugged in. */
function onBattery(): boolean {
  const dir = '/sys/class/power_supply';
  try {
    return readdirSync(dir).some(
      (name) =>
        read(join(dir, name, 'type')) === 'Battery' &&
        read(join(dir, name, 'scope')) !== 'Device' &&
        read(join(dir, name, 'status')) === 'Discharging',
    );
  } catch {
    return false;
  }
}

/** Whether the interface with this address, or every one when no address is given, is none of Wi-Fi. */
function isWired(host: string): boolean {
  const interfaces = Object.entries(networkInterfaces()).filter(([, all]) =>
    all?.some(({ address, internal }) => (host === '' ? !internal : address === host)),
  );
  return interfaces.every(([name]) => !existsSync(join('/sys/class/net', name, 'wireless')) && !/^wl/.test(name));
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

/** Whether traffic costs money, as NetworkManager knows or guesses it (a telephone's hot spot says so). */
import type { SystemFiles } from './files.ts';
import type { Ask } from './program.ts';

/** Of the connections that carry a default route; `undefined` without NetworkManager. @see nmcli(1) */
export async function isMetered(files: SystemFiles, ask: Ask): Promise<boolean | undefined> {
  if (files.names('/run/NetworkManager').length === 0) return undefined;
  const ways = defaultInterfaces(files);
  const told = await ask('nmcli', ['-t', '-f', 'GENERAL.DEVICE,GENERAL.METERED', 'device', 'show']);
  if (told === undefined) return undefined;
  let device = '';
  for (const line of told.split('\n')) {
    const [field, value = ''] = line.split(/:(.*)/s);
    if (field === 'GENERAL.DEVICE') device = value;
    // "yes" and "yes (guessed)"
    if (field === 'GENERAL.METERED' && value.startsWith('yes') && ways.includes(device)) return true;
  }
  return false;
}

function defaultInterfaces(files: SystemFiles): string[] {
  const routes = (files.text('/proc/net/route') ?? '').split('\n').slice(1);
  return routes.map((line) => line.split('\t')).flatMap(([name, to]) => (name && to === '00000000' ? [name] : []));
}

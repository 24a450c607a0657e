/**
 * What an action sees of this machine: the installed system, read-only, and a small /etc of its own.
 *
 * Nothing of /home, /root, /run, /var, /srv or /mnt is there, and of /etc only what compilers, linkers and language
 * runtimes read. Users, hosts and the time zone are the same on every machine.
 */
import { cp, lstat, mkdir, readdir, readlink, realpath, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

const systemDirectories = [
  '/usr',
  '/bin',
  '/sbin',
  '/lib',
  '/lib32',
  '/lib64',
  '/libx32',
  '/opt',
  '/nix/store',
  '/gnu/store',
];

/** Copied from /etc as far as they exist. */
const etcEntries = [
  'alternatives',
  'clang',
  'crypto-policies',
  'debian_version',
  'fonts',
  'ld.so.cache',
  'ld.so.conf',
  'ld.so.conf.d',
  'magic',
  'mime.types',
  'os-release',
  'perl',
  'pki/ca-trust/extracted',
  'pki/tls/cert.pem',
  'pki/tls/certs',
  'protocols',
  'services',
  'ssl/certs',
  'ssl/openssl.cnf',
  'terminfo',
];
const etcPatterns = /^(java|python)[-\d.]/;
/** Installing software changes these; /etc is copied anew then. */
const etcWitnesses = ['/etc/ld.so.cache', '/etc/alternatives'];

export const sandboxUser = { name: 'potluck', uid: 1000, gid: 1000 } as const;

const etcFiles: Readonly<Record<string, string>> = {
  passwd: `root:x:0:0:root:/root:/usr/sbin/nologin\n${sandboxUser.name}:x:${sandboxUser.uid}:${sandboxUser.gid}::/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n`,
  group: `root:x:0:\n${sandboxUser.name}:x:${sandboxUser.gid}:\nnogroup:x:65534:\n`,
  hosts: '127.0.0.1 localhost potluck\n::1 localhost\n',
  hostname: 'potluck\n',
  'nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files\n',
};

export interface SystemView {
  /** bubblewrap options that show the system; up to date with what is installed now. */
  arguments(): Promise<readonly string[]>;
}

/**
 * @param directory - where copies of /etc are made
 * @param hiddenPaths - covered when they lie below something visible
 */
export async function createSystemView(directory: string, hiddenPaths: readonly string[]): Promise<SystemView> {
  const system: string[] = [];
  const visible: string[] = [];
  for (const path of systemDirectories) {
    const found = await lstat(path).catch(() => undefined);
    if (found?.isSymbolicLink()) system.push('--symlink', await readlink(path), path);
    else if (found?.isDirectory()) {
      system.push('--ro-bind', path, path);
      visible.push(path);
    }
  }
  for (const path of hiddenPaths) {
    const real = await realpath(path).catch(() => undefined);
    if (real && visible.some((above) => real.startsWith(`${above}/`))) {
      system.push('--size', '4096', '--tmpfs', real, '--remount-ro', real);
    }
  }

  let version = '';
  let made = 0;
  let etc: Promise<string> | undefined;
  return {
    async arguments() {
      const found = await Promise.all(etcWitnesses.map((path) => stat(path).catch(() => undefined)));
      const now = found.map((entry) => entry?.mtimeMs ?? 0).join(' ');
      if (!etc || now !== version) {
        version = now;
        etc = copyEtc(join(directory, String(made++)));
      }
      return [...system, '--ro-bind', await etc, '/etc'];
    },
  };
}

/** Entries that are missing or unreadable are left out: a program that needs one says so. */
async function copyEtc(to: string): Promise<string> {
  await mkdir(to, { recursive: true, mode: 0o755 });
  const matching = (await readdir('/etc').catch(() => [])).filter((name) => etcPatterns.test(name));
  for (const name of [...etcEntries, ...matching]) {
    const target = join(to, name);
    await mkdir(dirname(target), { recursive: true, mode: 0o755 });
    await cp(join('/etc', name), target, { recursive: true, verbatimSymlinks: true }).catch(() => undefined);
  }
  for (const [name, text] of Object.entries(etcFiles)) await writeFile(join(to, name), text, { mode: 0o644 });
  return to;
}

/**
 * What an action sees of this machine: the installed system, read-only, and a small /etc of its own.
 *
 * Nothing of /home, /root, /run, /var, /srv or /mnt is there, and of /etc only what compilers, linkers and language
 * runtimes read. Users, hosts and the time zone are the same on every machine.
 */
import { chmod, cp, lstat, readdir, readlink, realpath, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectory } from './staging.ts';

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

/** Shown as they are, where they are directories: hundreds of files that all may read, which are slow to copy. */
const etcMounts = ['alternatives', 'fonts', 'ssl/certs'];
const etcMountPattern = /^java[-\d.]/;
/** Copied from /etc as far as they exist. */
const etcEntries = [
  'clang',
  'crypto-policies',
  'debian_version',
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
  'ssl/openssl.cnf',
  'terminfo',
];
const etcPattern = /^python[-\d.]/;
const etcDirectories = ['.', 'pki', 'pki/ca-trust', 'pki/tls', 'ssl'];
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
  let etc: Promise<readonly string[]> | undefined;
  return {
    async arguments() {
      const found = await Promise.all(etcWitnesses.map((path) => stat(path).catch(() => undefined)));
      const now = found.map((entry) => entry?.mtimeMs ?? 0).join(' ');
      if (!etc || now !== version) {
        version = now;
        etc = makeEtc(join(directory, String(made++)));
      }
      return [...system, ...(await etc)];
    },
  };
}

/** Its mounts. Entries that are missing or unreadable are left out: a program that needs one says so. */
async function makeEtc(copy: string): Promise<string[]> {
  const mounts = ['--ro-bind', copy, '/etc'];
  for (const name of etcDirectories) await makeDirectory(join(copy, name));
  const found = await readdir('/etc').catch(() => []);
  const copied = [...etcEntries, ...found.filter((name) => etcPattern.test(name))];
  for (const name of [...etcMounts, ...found.filter((name) => etcMountPattern.test(name))]) {
    const path = join('/etc', name);
    if (!(await isDirectory(path))) copied.push(name);
    else {
      await makeDirectory(join(copy, name));
      mounts.push('--ro-bind', path, path);
    }
  }
  await Promise.all(
    copied.map(async (name) => {
      await cp(join('/etc', name), join(copy, name), { recursive: true, verbatimSymlinks: true }).catch(
        () => undefined,
      );
    }),
  );
  for (const [name, text] of Object.entries(etcFiles)) {
    await writeFile(join(copy, name), text);
    await chmod(join(copy, name), 0o644);
  }
  return mounts;
}

async function isDirectory(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined))?.isDirectory() === true;
}

/** What `potluck doctor` looks at. Each check says what it found and, where something is wrong, what to do. */
import { execFile } from 'node:child_process';
import { mkdtemp, open, readFile, rm, stat, statfs, unlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { createSandbox } from '../../sandbox/create-sandbox.ts';
import type { NodeConfig } from '../config/config.ts';
import { parseListenAddress } from '../reapi/listen-address.ts';
import { formatBytes, formatDuration } from './format.ts';

export interface Finding {
  readonly check: string;
  /** `warning`: works, but worse than it could. `problem`: something will fail. */
  readonly verdict: 'ok' | 'warning' | 'problem';
  readonly found: string;
  readonly fix?: string;
}

/** Of one fsync, in the median; slower disks make uploads wait. */
const slowSyncMs = 20;
const syncSamples = 9;
/** Below this many open files a large build runs out. */
const openFilesMin = 4096;
/** Clocks of the machine and of the file system may differ by this much. */
const clockSkewMaxMs = 2_000;
/** This program did not exist before. */
const earliestMs = Date.UTC(2026, 0, 1);
const commandTimeoutMs = 10_000;

/** All findings, in the order they are shown. A check that breaks is a finding too. */
export async function examine(config: NodeConfig): Promise<Finding[]> {
  const findings: Finding[] = [checkNode()];
  const dir = await nearestDirectory(config.dataDir);
  const checks: readonly [string, () => Promise<Finding | Finding[]>][] = [
    ['data directory', () => checkDataDir(config.dataDir, dir)],
    ['disk space', () => checkSpace(config, dir)],
    ['disk sync', () => checkSync(dir)],
    ['isolation', () => checkIsolation(config, dir)],
    ['user namespaces', checkNamespaces],
    ['open files', checkOpenFiles],
    ['addresses', () => checkAddresses(config)],
    ['clock', () => checkClock(dir)],
    ['mesh', async () => (await import('./mesh-checks.ts')).checkMesh(config)],
  ];
  for (const [check, work] of checks) {
    try {
      findings.push(...[await work()].flat());
    } catch (error) {
      const found = `could not be checked: ${error instanceof Error ? error.message : String(error)}`;
      findings.push({ check, verdict: 'warning', found });
    }
  }
  return findings;
}

function checkNode(): Finding {
  const { platform, arch, versions } = process;
  const found = `Node.js ${versions.node} on ${platform}-${arch}`;
  if (platform === 'linux' || platform === 'darwin') return { check: 'program', verdict: 'ok', found };
  return {
    check: 'program',
    verdict: 'warning',
    found,
    fix: 'Potluck is made for Linux and macOS; here it is untried.',
  };
}

/** The directory itself, or what its nearest existing parent is while it was not made yet. */
async function nearestDirectory(path: string): Promise<string> {
  const stats = await stat(path).catch(() => undefined);
  return stats || dirname(path) === path ? path : nearestDirectory(dirname(path));
}

async function checkDataDir(dataDir: string, dir: string): Promise<Finding> {
  const check = 'data directory';
  const made = dir === dataDir ? dataDir : `${dataDir} (to be made in ${dir})`;
  const stats = await stat(dir);
  if (!stats.isDirectory()) {
    return { check, verdict: 'problem', found: `${dir} is no directory`, fix: 'Choose another with --data-dir.' };
  }
  try {
    await withScratch(dir, () => Promise.resolve());
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const fix = `Make it writable for the user who runs the node, or choose another with --data-dir.`;
    return { check, verdict: 'problem', found: `${made} cannot be written (${code})`, fix };
  }
  if (dir === dataDir && (stats.mode & 0o022) !== 0) {
    const found = `${dataDir} can be written by other users, who could change cached results`;
    return { check, verdict: 'warning', found, fix: `chmod go-w ${dataDir}` };
  }
  return { check, verdict: 'ok', found: made };
}

async function checkSpace({ cacheSizeBytes }: NodeConfig, dir: string): Promise<Finding> {
  const check = 'disk space';
  const { bavail, bsize } = await statfs(dir);
  const free = bavail * bsize;
  const found = `${formatBytes(free)} free, the cache may take ${formatBytes(cacheSizeBytes)}`;
  // Half: what the cache holds already is not free any more.
  if (free >= cacheSizeBytes / 2) return { check, verdict: 'ok', found };
  const fix = 'The disk may be full before the cache is; free some space or lower --cache-size.';
  return { check, verdict: 'warning', found, fix };
}

async function checkSync(dir: string): Promise<Finding> {
  const check = 'disk sync';
  const medianMs = await withScratch(dir, async (scratch) => {
    const samplesMs: number[] = [];
    await using file = await open(join(scratch, 'sync'), 'w');
    for (let sample = 0; sample < syncSamples; sample++) {
      await file.write(Buffer.alloc(4096, sample));
      const startMs = performance.now();
      await file.sync();
      samplesMs.push(performance.now() - startMs);
    }
    return samplesMs.sort((a, b) => a - b)[Math.floor(syncSamples / 2)] ?? 0;
  });
  const found = `fsync takes ${medianMs < 10 ? `${medianMs.toFixed(1)} ms` : formatDuration(medianMs)}`;
  if (medianMs <= slowSyncMs) return { check, verdict: 'ok', found };
  const fix = 'Uploads wait for it. Use a faster disk, or --durability fast if a power cut may cost the newest blobs.';
  return { check, verdict: 'warning', found, fix };
}

async function checkIsolation(config: NodeConfig, dir: string): Promise<Finding[]> {
  const description = await withScratch(dir, async (workDir) => {
    const sandbox = await createSandbox({
      workDir,
      blobs: noBlobs,
      ...(config.bwrapPath === undefined ? {} : { bubblewrapPath: config.bwrapPath }),
    });
    try {
      return sandbox.describe();
    } finally {
      await sandbox.close();
    }
  });
  const { isolation, isolationReason, limitsInForce } = description;
  const isolated = isolation !== 'none';
  return [
    {
      check: 'isolation',
      verdict: isolated ? 'ok' : 'warning',
      found: `${isolation}: ${isolationReason}`,
      ...(isolated ? {} : { fix: bubblewrapFix() }),
    },
    {
      check: 'action limits',
      verdict: limitsInForce.length > 0 ? 'ok' : 'warning',
      found: limitsInForce.length > 0 ? limitsInForce.join('; ') : 'only the time limit can be enforced here',
    },
  ];
}

/** The sandbox is asked what it can do, not to do it. */
const noBlobs: Parameters<typeof createSandbox>[0]['blobs'] = {
  get: () => Promise.resolve(undefined),
  missing: (digests) => Promise.resolve([...digests]),
  copyTo: () => Promise.resolve(false),
  linkTo: () => Promise.resolve(false),
  putFile: () => Promise.reject(new Error('no store')),
  putAll: () => Promise.reject(new Error('no store')),
};

function bubblewrapFix(): string {
  if (process.platform !== 'linux') return 'Isolation needs Linux; here actions run as ordinary processes of yours.';
  return 'Install bubblewrap: apt-get install bubblewrap, dnf install bubblewrap, or pacman -S bubblewrap; then restart the node.';
}

/** Kernel switches that keep unprivileged programs from making the namespaces bubblewrap needs. */
async function checkNamespaces(): Promise<Finding | Finding[]> {
  if (process.platform !== 'linux') return [];
  const check = 'user namespaces';
  const switches = [
    { file: '/proc/sys/user/max_user_namespaces', off: '0', fix: 'sysctl user.max_user_namespaces=10000' },
    { file: '/proc/sys/kernel/unprivileged_userns_clone', off: '0', fix: 'sysctl kernel.unprivileged_userns_clone=1' },
    {
      file: '/proc/sys/kernel/apparmor_restrict_unprivileged_userns',
      off: '1',
      fix: 'sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap',
    },
  ];
  for (const { file, off, fix } of switches) {
    const value = await readFile(file, 'utf8').catch(() => '');
    if (value.trim() === off) {
      return { check, verdict: 'warning', found: `restricted by ${file} = ${off}`, fix: `As root: ${fix}` };
    }
  }
  const made = await promisify(execFile)('unshare', ['--user', '--map-root-user', 'true'], {
    timeout: commandTimeoutMs,
  }).then(
    () => true,
    (error: NodeJS.ErrnoException) => (error.code === 'ENOENT' ? undefined : false),
  );
  if (made === undefined) return { check, verdict: 'ok', found: 'no kernel switch forbids them' };
  if (made) return { check, verdict: 'ok', found: 'this user can make them' };
  const fix = 'In a container, allow unshare (for Docker: --security-opt seccomp=unconfined, or run it privileged).';
  return { check, verdict: 'warning', found: 'this user cannot make them', fix };
}

async function checkOpenFiles(): Promise<Finding | Finding[]> {
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const allowed = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1]);
  if (!(allowed > 0)) return [];
  const check = 'open files';
  const found = `${allowed} allowed`;
  if (allowed >= openFilesMin) return { check, verdict: 'ok', found };
  return { check, verdict: 'warning', found, fix: `Raise it to ${openFilesMin} or more: ulimit -n ${openFilesMin}` };
}

async function checkAddresses(config: NodeConfig): Promise<Finding[]> {
  const wanted = [...config.listen, ...(config.http === undefined ? [] : [config.http])];
  return Promise.all(
    wanted.map(async (text): Promise<Finding> => {
      const check = 'address';
      const { host, port, path } = parseListenAddress(text);
      if (path !== undefined || port === 0) return { check, verdict: 'ok', found: text };
      const code = await tryListening(host, port);
      if (code === undefined) return { check, verdict: 'ok', found: `${text} is free` };
      if (code === 'EADDRINUSE' && (await isPotluck(config)))
        return { check, verdict: 'ok', found: `${text}: a Potluck node serves` };
      if (code === 'EADDRINUSE') {
        const fix = 'Stop what listens there, or choose another with --listen and --http.';
        return { check, verdict: 'problem', found: `${text} is in use by another program`, fix };
      }
      return {
        check,
        verdict: 'problem',
        found: `${text} cannot be listened on (${code})`,
        fix: 'Choose another with --listen and --http.',
      };
    }),
  );
}

export function tryListening(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

async function isPotluck(config: NodeConfig): Promise<boolean> {
  const { askStatus } = await import('./node-status.ts');
  return askStatus(config).then(
    () => true,
    () => false,
  );
}

async function checkClock(dir: string): Promise<Finding> {
  const check = 'clock';
  const nowMs = Date.now();
  const found = new Date(nowMs).toISOString();
  if (nowMs < earliestMs) return { check, verdict: 'problem', found, fix: 'Set the clock of this machine.' };
  const skewMs = await withScratch(dir, async (scratch) => {
    const path = join(scratch, 'clock');
    const beforeMs = Date.now();
    await writeFile(path, '');
    const { mtimeMs } = await stat(path);
    await unlink(path);
    return Math.max(beforeMs - mtimeMs, mtimeMs - Date.now(), 0);
  });
  if (skewMs <= clockSkewMaxMs) return { check, verdict: 'ok', found };
  const fix = 'The data directory is on a file system whose clock differs; a local disk is the better place.';
  return { check, verdict: 'warning', found: `${found}, but files are stamped ${formatDuration(skewMs)} off`, fix };
}

/** Gives `work` a directory of its own below `dir`, removed afterwards. */
async function withScratch<T>(dir: string, work: (scratch: string) => Promise<T>): Promise<T> {
  const scratch = await mkdtemp(join(dir, '.potluck-doctor-'));
  try {
    return await work(scratch);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

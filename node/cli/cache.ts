/** `potluck cache stats|gc|verify`: looks after a data directory. */
import { loadConfig } from '../config/load.ts';
import type { NodeConfig } from '../config/config.ts';
import { parseSize } from '../config/quantities.ts';
import type { Store, StoreStats } from '../storage/open-store.ts';
import { settingValues, valueOf } from './args.ts';
import { type Command, jsonFlag, type ParsedArgs, settingFlags } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { count, formatBytes, formatTable } from './format.ts';
import { createProgress, print, printError } from './terminal.ts';

const settingsRead = settingFlags('data-dir', 'cache-size');

export const cacheStats: Command = {
  name: 'cache stats',
  summary: 'show what the cache holds',
  description: 'Counts the blobs and action results in a data directory; a node may be serving from it meanwhile.',
  flags: { ...settingsRead, ...jsonFlag },
  examples: [
    { about: 'for a person', line: 'potluck cache stats' },
    { about: 'bytes in use, for a script', line: 'potluck cache stats --json | jq .usedBytes' },
  ],
  async run(args) {
    const { dataDir } = await configOf(args);
    const { readStoreStats } = await import('../storage/open-store.ts');
    const stats = await readStoreStats(dataDir);
    if (!stats) throw new CliError(`there is no cache in ${dataDir}; --data-dir names another place`);
    if (args.switches.has('json')) print(JSON.stringify({ dataDir, ...fromBeside(stats) }));
    else for (const line of formatTable(statsRows(dataDir, stats))) print(line);
    return exitCodes.ok;
  },
};

export const cacheGc: Command = {
  name: 'cache gc',
  summary: 'evict the least recently used blobs',
  description:
    'Makes room by evicting what was used longest ago. A serving node does this by itself and holds its data directory: stop it first.',
  flags: {
    to: { value: 'SIZE', about: 'evict until at most this much is in use', fallback: '90 % of --cache-size' },
    ...settingsRead,
    ...jsonFlag,
  },
  examples: [
    { about: 'keep the newest 10 GB', line: 'potluck cache gc --to 10GB' },
    { about: 'empty the cache', line: 'potluck cache gc --to 0' },
  ],
  async run(args) {
    const to = valueOf(args, 'to');
    const target = to === undefined ? undefined : parseSize(to);
    if (target && 'problem' in target) throw new CliError(`--to: "${to}" ${target.problem}`, exitCodes.usage);
    return withStore(args, async (store, { dataDir }, signal) => {
      const evicted = await store.gc({ signal, ...(target ? { targetBytes: target.value } : {}) });
      const { usedBytes } = store.stats();
      if (args.switches.has('json')) print(JSON.stringify({ dataDir, ...evicted, usedBytes }));
      else {
        print(
          `Evicted ${count(evicted.evictedBlobs, 'blob')} (${formatBytes(evicted.evictedBytes)}); ${formatBytes(usedBytes)} are in use.`,
        );
      }
      return exitCodes.ok;
    });
  },
};

export const cacheVerify: Command = {
  name: 'cache verify',
  summary: 'read and hash every blob, drop bad ones',
  description:
    'Reads the whole cache and compares every blob with its digest. Bad blobs are dropped, and clients will upload or make them anew; files that belong to no blob are removed. Exit status 1 says that something bad was found. The node must be stopped.',
  flags: { ...settingsRead, ...jsonFlag },
  examples: [{ about: 'after a crash of the disk or the machine', line: 'potluck cache verify' }],
  async run(args) {
    return withStore(args, async (store, { dataDir }, signal) => {
      using progress = createProgress();
      const report = await store.verify({
        signal,
        onProgress: ({ doneBlobs, totalBlobs, doneBytes }) =>
          progress.update(`verifying: ${doneBlobs} of ${count(totalBlobs, 'blob')}, ${formatBytes(doneBytes)}`),
      });
      progress[Symbol.dispose]();
      if (args.switches.has('json')) print(JSON.stringify({ dataDir, ...report }));
      else {
        for (const key of report.dropped) printError(`dropped: ${key}`);
        print(
          `${count(report.blobs, 'blob')} (${formatBytes(report.bytes)}) read, ${report.dropped.length} bad, ${count(report.strayFiles, 'stray file')} removed.`,
        );
      }
      return report.dropped.length === 0 ? exitCodes.ok : exitCodes.failed;
    });
  },
};

function configOf(args: ParsedArgs): Promise<NodeConfig> {
  return loadConfig({
    flags: settingValues(args, settingsRead),
    file: valueOf(args, 'config'),
    env: process.env,
    platform: process.platform,
  });
}

/** Opens the store alone; Ctrl-C ends the work in good order. */
async function withStore(
  args: ParsedArgs,
  work: (store: Store, config: NodeConfig, signal: AbortSignal) => Promise<number>,
): Promise<number> {
  const config = await configOf(args);
  const { openStore, readStoreStats } = await import('../storage/open-store.ts');
  if (!(await readStoreStats(config.dataDir))) {
    throw new CliError(`there is no cache in ${config.dataDir}; --data-dir names another place`);
  }
  const abort = new AbortController();
  const onSignal = (): void => abort.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  const store = await openStore({
    dataDir: config.dataDir,
    sizeLimitBytes: config.cacheSizeBytes,
    onWarning: (text) => printError(`potluck: ${text}`),
  });
  try {
    return await work(store, config, abort.signal);
  } catch (error) {
    if (!abort.signal.aborted) throw error;
    printError('potluck: stopped');
    return exitCodes.interrupted;
  } finally {
    await store.close();
  }
}

/** Counters, pins and the limit belong to the process that serves; from beside they cannot be seen. */
function fromBeside({ counters: _c, pinnedBlobs: _p, sizeLimitBytes: _s, ...rest }: StoreStats) {
  return rest;
}

function statsRows(dataDir: string, stats: StoreStats): string[][] {
  return [
    ['Data directory', dataDir],
    ['In use', formatBytes(stats.usedBytes)],
    ['Blobs', `${stats.blobs.toLocaleString('en-US')} (${formatBytes(stats.blobBytes)})`],
    ['  in the index', `${stats.smallBlobs.toLocaleString('en-US')} (${formatBytes(stats.smallBlobBytes)})`],
    ['  as lists of others', `${stats.chunkedBlobs.toLocaleString('en-US')} (${formatBytes(stats.chunkedBlobBytes)})`],
    ['Action results', stats.results.toLocaleString('en-US')],
    ['Index', formatBytes(stats.indexBytes)],
  ];
}

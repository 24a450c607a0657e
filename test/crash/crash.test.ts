/**
 * kill -9 at random instants. `POTLUCK_CRASH_ROUNDS` kills in each of the two phases (default 3); 50 make a hundred.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { openStore } from '../../node/storage/open-store.ts';
import { namedBlob, namedChunks } from './content.ts';

const rounds = Number(process.env['POTLUCK_CRASH_ROUNDS'] ?? 3);
const timeoutMs = 60_000 + rounds * 20_000;

interface Acknowledged {
  readonly blobs: readonly { readonly name: string; readonly sizeBytes: number }[];
  /** Names of blobs of chunks. */
  readonly lists: readonly string[];
  readonly results: readonly { readonly name: string; readonly exitCode: number }[];
}

/** Runs a writer, kills it somewhere, and returns what it had acknowledged by then. */
async function runAndKill(
  base: string,
  sizeLimitBytes: number,
  runName: string,
  when: 'starting' | 'writing',
): Promise<Acknowledged> {
  const journalPath = join(base, `journal-${runName}`);
  const journal = await open(journalPath, 'a');
  const child = fork(new URL('writer.ts', import.meta.url), [join(base, 'data'), String(sizeLimitBytes), runName], {
    stdio: ['ignore', journal.fd, 'inherit', 'ipc'],
    execArgv: [],
  });
  const exited = once(child, 'exit');
  const acknowledged = once(child, 'message');
  // The instant of death is the random input of this test.
  if (when === 'starting') {
    await Promise.race([acknowledged, sleep(Math.random() * 600)]);
  } else {
    await Promise.race([acknowledged, exited]);
    await sleep(Math.random() ** 2 * 700);
  }
  expect(child.exitCode, 'the writer ended by itself').toBeNull();
  child.kill('SIGKILL');
  await exited;
  await journal.close();
  // A line without its end was cut by the kill.
  const lines = (await readFile(journalPath, 'utf8')).split('\n').slice(0, -1);
  const parsed = lines.map((line) => line.split(' ') as [string, string, string]);
  return {
    blobs: parsed.flatMap(([kind, name, size]) => (kind === 'blob' ? [{ name, sizeBytes: Number(size) }] : [])),
    lists: parsed.flatMap(([kind, name]) => (kind === 'list' ? [name] : [])),
    results: parsed.flatMap(([kind, name, exit]) => (kind === 'result' ? [{ name, exitCode: Number(exit) }] : [])),
  };
}

test.each([
  { phase: 'with room for all', sizeLimitBytes: 1024 ** 4, isAllKept: true },
  { phase: 'while blobs are evicted', sizeLimitBytes: 16 * 1024 ** 2, isAllKept: false },
])('nothing acknowledged is lost and nothing is wrong after kill -9 $phase', { timeout: timeoutMs }, async (phase) => {
  const { sizeLimitBytes, isAllKept } = phase;
  const base = await mkdtemp(join(tmpdir(), 'potluck-crash-'));
  onTestFinished(() => rm(base, { recursive: true }));
  let acknowledgedCount = 0;
  for (let round = 0; round < rounds; round++) {
    const acknowledged = await runAndKill(
      base,
      sizeLimitBytes,
      `run${round}`,
      round % 4 === 1 ? 'starting' : 'writing',
    );
    acknowledgedCount += acknowledged.blobs.length + acknowledged.lists.length + acknowledged.results.length;

    const warnings: string[] = [];
    const onWarning = (text: string): void => void warnings.push(text);
    const store = await openStore({ dataDir: join(base, 'data'), sizeLimitBytes, onWarning });
    for (const { name, sizeBytes } of acknowledged.blobs) {
      const { digest, bytes } = namedBlob(name, sizeBytes);
      const held = await store.blobs.get(digest);
      if (isAllKept || held) expect(held && Buffer.compare(held, bytes), name).toBe(0);
    }
    for (const name of new Set(acknowledged.lists)) {
      const { whole } = namedChunks(name);
      const held = await store.blobs.get(whole.digest);
      if (isAllKept || held) expect(held && Buffer.compare(held, whole.bytes), name).toBe(0);
    }
    for (const { name, exitCode } of acknowledged.results) {
      const result = await store.actions.get({ instance: 'crash', action: namedBlob(name, 20).digest });
      if (isAllKept || result) expect(result?.exitCode, name).toBe(exitCode);
    }
    expect((await store.verify()).dropped).toEqual([]);
    // Everything a dead writer left behind has been cleared away by now.
    expect((await store.verify()).strayFiles).toBe(0);
    expect(store.stats().usedBytes).toBeLessThanOrEqual(sizeLimitBytes);
    expect(warnings).toEqual([]);
    // Room for the next run, so that rounds cost the same.
    if (isAllKept) await store.gc({ targetBytes: 0 });
    await store.close();
  }
  expect(acknowledgedCount, 'acknowledgements over all rounds').toBeGreaterThan(0);
  console.log(`${rounds} kills ${phase.phase}: ${acknowledgedCount} acknowledgements checked`);
});

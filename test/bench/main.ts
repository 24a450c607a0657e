/**
 * `npm run bench [-- reapi actions]`: figures of a whole node beside a reference measured in the same run.
 * Numbers of one machine mean little; the ratios carry over. docs/performance.md keeps a run.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startNode } from '../support/node-process.ts';
import { benchActions } from './actions.ts';
import { type Row, formatRows } from './measure.ts';
import { benchReapi } from './reapi.ts';

const known = ['reapi', 'actions'];
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  console.error(`no benchmark is called ${unknown.join(', ')}; there are: ${known.join(', ')}`);
  process.exit(2);
}
const wants = (name: string) => wanted.length === 0 || wanted.includes(name);

/** Resident memory of a process in MiB; NaN where /proc does not tell. */
async function residentMiB(pid: number | undefined): Promise<number> {
  try {
    const text = await readFile(`/proc/${pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+)/.exec(text)?.[1]) / 1024;
  } catch {
    return Number.NaN;
  }
}

const scratchDir = await mkdtemp(join(tmpdir(), 'potluck-bench-'));
try {
  await using node = await startNode({ dataDir: join(scratchDir, 'data') });
  const status = (await node.status()) as { execution: { isolation: string } };
  const { isolation } = status.execution;
  const atRest = await residentMiB(node.child.pid);
  let peak = atRest;
  const sampler = setInterval(() => void residentMiB(node.child.pid).then((now) => (peak = Math.max(peak, now))), 100);
  const rows: Row[] = [];
  const notes: string[] = [];
  if (wants('actions')) {
    const measured = await benchActions(node.grpc, isolation);
    rows.push(...measured.rows);
    notes.push(...measured.notes);
  }
  if (wants('reapi')) rows.push(...(await benchReapi(node.grpc, scratchDir)));
  clearInterval(sampler);
  console.log(formatRows(rows));
  console.log();
  for (const note of notes) console.log(note);
  console.log(
    `isolation: ${isolation}; resident memory: ${atRest.toFixed(0)} MiB at rest, ${peak.toFixed(0)} MiB at most under load`,
  );
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  await rm(scratchDir, { recursive: true, force: true });
}

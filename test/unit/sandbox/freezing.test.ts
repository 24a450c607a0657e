import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type Process, processTree } from '../../../sandbox/processes.ts';
import type { StatusError } from '../../../protos/status.ts';
import { createRunControl } from '../../../sandbox/run-control.ts';
import { until } from '../../support/until.ts';
import { isolatedSandbox, noBubblewrap, processesWith, testSandbox } from './support.ts';

const isolated = await isolatedSandbox();
const plain = await testSandbox({ bubblewrapPath: noBubblewrap });

/** Processor time of all that run under a marker in their command line, in ticks; they and their children. */
function running(marker: string): Process[] {
  const seen = new Map<number, Process>();
  for (const pid of processesWith(marker)) for (const one of processTree(pid)) seen.set(one.pid, one);
  return [...seen.values()].filter(({ state }) => state !== 'Z');
}

function ticks(marker: string): number {
  const used = running(marker).map(({ pid }) => readTicks(pid));
  return used.reduce((sum, one) => sum + one, 0);
}

function readTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

let made = 0;
const newMarker = () => `freezing-${process.pid}-${made++}`;

/** The ways of freezing: own actions by SIGSTOP, guests by their control group where there is one. */
const kinds = [
  ...(isolated ? [{ name: 'an isolated action', made: isolated, guest: false }] : []),
  ...(isolated ? [{ name: 'a guest', made: isolated, guest: true }] : []),
  { name: 'an unisolated action', made: plain, guest: false },
];

describe.skipIf(process.platform !== 'linux').for(kinds)('$name', ({ made: on, guest }) => {
  test('stands still while frozen, and goes on afterwards', async () => {
    const marker = newMarker();
    const control = createRunControl();
    const script = `: ${marker}; i=0; while [ ! -e stop ] && [ $i -lt 150000 ]; do i=$((i+1)); done; echo done`;
    const run = on.sh(script, { guest, options: { control } });
    await until(() => ticks(marker) > 2);
    await control.freeze();
    const before = ticks(marker);
    await sleep(150);
    expect(ticks(marker)).toBe(before);
    await control.thaw();
    expect((await run).stdout).toBe('done\n');
    expect(control.frozenMs).toBeGreaterThan(0);
  });

  test('takes those along that fork all the time', async () => {
    const marker = newMarker();
    const control = createRunControl();
    const abort = new AbortController();
    // One chain in which each process is replaced by its child, and one parent that never stops having children.
    const script = `: ${marker}; f() { sleep 0.002; f & }; f; while :; do sleep 0.01 & sleep 0.003; done`;
    const run = on.sh(script, { guest, options: { control, signal: abort.signal } }).catch((error: unknown) => error);
    await until(() => running(marker).length > 3);
    await sleep(50);
    await control.freeze();
    const pids = () => running(marker).map(({ pid }) => pid);
    const frozen = pids();
    await sleep(150);
    expect(pids()).toEqual(frozen);
    abort.abort();
    expect(await run).toMatchObject({ code: 'CANCELLED' });
    expect(running(marker)).toEqual([]);
  });

  test('its time limit stands still too, and holds afterwards', async () => {
    const control = createRunControl();
    const phases: string[] = [];
    const onPhase = (phase: string) => phases.push(phase);
    const run = on.sh('sleep 0.2; echo in time', { guest, timeoutMs: 1_500, options: { control, onPhase } });
    await until(() => phases.includes('running'));
    await control.freeze();
    await sleep(1_600);
    await control.thaw();
    expect(await run).toMatchObject({ kind: 'exited', stdout: 'in time\n' });

    const other = createRunControl();
    const late = on.sh('sleep 30', { guest, timeoutMs: 200, options: { control: other } });
    await other.freeze();
    await sleep(300);
    await other.thaw();
    // A guest on a machine that is busy gets no verdict: it may have had no processor.
    const kind = await late.then(
      (ended) => ended.kind,
      ({ code }: StatusError) => code,
    );
    expect(guest ? ['timed-out', 'RESOURCE_EXHAUSTED'] : ['timed-out']).toContain(kind);
  });

  test('is not started before the thaw when it was frozen before', async () => {
    const control = createRunControl();
    await control.freeze();
    const phases: string[] = [];
    const onPhase = (phase: string) => phases.push(phase);
    const marker = newMarker();
    const run = on.sh(`echo ${marker}`, { guest, options: { control, onPhase } });
    await until(() => phases.includes('running'));
    await sleep(50);
    expect(processesWith(marker)).toEqual([]);
    await control.thaw();
    expect((await run).stdout).toBe(`${marker}\n`);
  });

  test('can be killed while frozen; whoever runs next is not frozen', async () => {
    const marker = newMarker();
    const control = createRunControl();
    const abort = new AbortController();
    const run = on.sh(`: ${marker}; sleep 60 & sleep 60; :`, { guest, options: { control, signal: abort.signal } });
    await until(() => running(marker).length > 2);
    await control.freeze();
    abort.abort();
    await expect(run).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(running(marker)).toEqual([]);
    const next = await Promise.all(Array.from({ length: 4 }, () => on.sh('echo runs', { guest })));
    expect(next.map(({ stdout }) => stdout)).toEqual(Array.from({ length: 4 }, () => 'runs\n'));
  });
});

test.skipIf(!isolated)('what a killed node left frozen goes when a node starts', async () => {
  const marker = newMarker();
  const script = fileURLToPath(new URL('killed-node.ts', import.meta.url));
  const node = spawn(process.execPath, [script, marker], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: process.env.PATH },
  });
  const [directory] = (await once(node.stdout, 'data')) as [Buffer];
  const ended = once(node, 'exit');
  node.kill('SIGKILL');
  await ended;
  await testSandbox();
  await until(() => processesWith(`${marker}-guest`).length === 0);
  rmSync(directory.toString().trim(), { recursive: true, force: true });
});

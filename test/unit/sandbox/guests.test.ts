import { availableParallelism } from 'node:os';
import { describe, expect, test } from 'vitest';
import { createGuestDisk } from '../../../sandbox/guest-disk.ts';
import { until } from '../../support/until.ts';
import { isolatedSandbox, noBubblewrap, type TestRun, type TestSandbox, testSandbox } from './support.ts';

const MiB = 2 ** 20;
const small = await isolatedSandbox({ guests: { memoryBytes: 48 * MiB, diskBytes: 8 * MiB } });

test('without isolation no guest is let in', async () => {
  const plain = await testSandbox({ bubblewrapPath: noBubblewrap });
  expect(plain.sandbox.describe().guestLimitsInForce).toEqual([]);
  await expect(plain.sh('echo stranger', { guest: true })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
});

describe.skipIf(!small)('a guest', () => {
  const sh = (script: string, run?: Partial<TestRun>) => (small as TestSandbox).sh(script, run);
  const limits = () => (small as TestSandbox).sandbox.describe().guestLimitsInForce;

  /** nice, and the scheduling policy; see proc_pid_stat(5) */
  const classOf = "sed 's/.*) //' /proc/self/stat | cut -d' ' -f17,39; cat /proc/self/oom_score_adj";

  test('runs in the idle class, and is the first to go when memory is short', async () => {
    const [own, guest] = [await sh(classOf), await sh(classOf, { guest: true })];
    expect(own.stdout).toMatch(/^\d+ 0\n0\n/);
    expect(guest.stdout).toBe('19 5\n1000\n');
    expect(limits().join()).toContain('idle class');
  });

  test('cannot leave its class again', async () => {
    const escape = 'chrt --other -p 0 $$ || echo refused; renice -n -5 $$ || echo refused';
    const { stdout } = await sh(`(${escape}) 2>/dev/null; ${classOf}`, { guest: true });
    expect(stdout).toContain('refused\nrefused\n19 5\n');
  });

  test('that takes more memory than guests have is this machine refusing, not the action failing', async (context) => {
    if (!limits().some((text) => /^memory [\d.]+ GiB together/.test(text))) {
      return context.skip('no control group for memory was delegated here');
    }
    await expect(sh('tail /dev/zero', { guest: true })).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    expect((await sh('echo fine', { guest: true })).stdout).toBe('fine\n');
  });

  test('shares that memory with the other guests', async (context) => {
    if (!limits().some((text) => /^memory [\d.]+ GiB together/.test(text))) {
      return context.skip('no control group for memory was delegated here');
    }
    // Each alone has room. What tail holds it keeps until somebody reads it.
    const hold = 'head -c 30000000 /dev/zero | tail -c 30000000';
    const abort = new AbortController();
    const options = { signal: abort.signal };
    const guests = [0, 1].map(() =>
      sh(`mkfifo f; sleep 600 <f & ${hold} >f`, { guest: true, timeoutMs: 600_000, options }),
    );
    await expect(Promise.race(guests)).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    abort.abort();
    await Promise.allSettled(guests);
    expect((await sh(`${hold} | wc -c`, { guest: true })).stdout).toBe('30000000\n');
  });

  test('that writes more than guests may have on the disk is ended', async () => {
    const run = sh('head -c 33554432 /dev/zero >big; sleep 60', { guest: true });
    await expect(run).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  });
});

test.skipIf(!small)(
  'a guest that runs out of time on a crowded machine gets no verdict; an own action does',
  async () => {
    const loops = Array.from({ length: 2 * availableParallelism() }, () => 'while :; do :; done &').join(' ');
    const run = (guest: boolean) => (small as TestSandbox).sh(`${loops} wait`, { guest, timeoutMs: 700 });
    await expect(run(true)).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    expect(await run(false)).toMatchObject({ kind: 'timed-out' });
  },
);

test('of several guests the largest goes, and nobody is let in while there is too much', async () => {
  const used = new Map([
    ['/a', 10],
    ['/b', 70],
    ['/c', 30],
  ]);
  const disk = createGuestDisk(100, async (roots) => roots.map((root) => used.get(root) ?? 0));
  const gone: string[] = [];
  const shares = ['/a', '/b', '/c'].map((root) => disk.admit(root, () => gone.push(root)));
  await until(() => gone.length > 0);
  expect(gone).toEqual(['/b']);
  expect(shares.map(({ problem }) => problem?.code)).toEqual([undefined, 'RESOURCE_EXHAUSTED', undefined]);
  expect(() => disk.admit('/d', () => {})).toThrow('of 0 MiB for all of them together');
  shares[1]?.[Symbol.dispose]();
  for (const share of [shares[0], shares[2], disk.admit('/d', () => {})]) share?.[Symbol.dispose]();
});

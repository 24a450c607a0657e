import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { claimOwnership, type OwnerSlot } from '../../../../node/storage/owner.ts';

function slotOf(owner: string | undefined): OwnerSlot {
  let current = owner;
  return {
    dataDir: '/data',
    read: () => current,
    write: (next) => void (current = next),
    exclusively: (action) => action(),
  };
}

test('a slot is taken once, and again by nobody while its owner lives', () => {
  const slot = slotOf(undefined);
  expect(claimOwnership(slot)).toBeUndefined();
  expect(() => claimOwnership(slot)).toThrow(`another potluck node (pid ${process.pid}) uses /data`);
});

test('an owner whose process id was given to another process is dead', () => {
  const owner = JSON.stringify({ pid: process.ppid, started: 'another time' });
  expect(claimOwnership(slotOf(owner))).toBe(owner);
});

test('an owner that was killed is dead before its parent has waited for it', async (context) => {
  if (!existsSync('/proc/self/stat')) context.skip('no /proc here');
  // The shell becomes a program that waits for no child.
  const parent = spawn('sh', ['-c', 'sleep 1000 & echo $!; exec sleep 1000'], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void parent.kill('SIGKILL'));
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(String(line));
  const statOf = (): string[] => readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ');
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const owner = JSON.stringify({ pid, started: `${bootId}/${statOf()[21]}` });
  expect(() => claimOwnership(slotOf(owner))).toThrow(`pid ${pid}`);
  while (readFileSync(`/proc/${parent.pid}/comm`, 'utf8') !== 'sleep\n') await pause(5);
  process.kill(pid, 'SIGKILL');
  while (statOf()[2] !== 'Z') await pause(5);
  expect(claimOwnership(slotOf(owner))).toBe(owner);
});

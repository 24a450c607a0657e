/** Which runner is chosen, and why; what a sandbox finds and leaves in its directory. */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { noBubblewrap, testSandbox } from './support.ts';

const directory = mkdtempSync(join(tmpdir(), 'potluck-create-'));
chmodSync(directory, 0o755);
afterAll(() => rmSync(directory, { recursive: true }));

test('without bubblewrap actions run unisolated, and the description says why and what to do', async () => {
  const { isolation, isolationReason, limitsInForce } = (
    await testSandbox({ bubblewrapPath: noBubblewrap })
  ).sandbox.describe();
  expect(isolation).toBe('none');
  if (process.platform === 'linux') expect(isolationReason).toContain('apt-get install bubblewrap');
  expect(limitsInForce).toEqual(['wall time']);
});

test.skipIf(process.platform !== 'linux')('a bubblewrap that does not work is found out, and quoted', async () => {
  const program = join(directory, 'bwrap');
  writeFileSync(program, '#!/bin/sh\necho "bwrap: No permissions to create new namespace" >&2\nexit 1\n', {
    mode: 0o755,
  });
  const t = await testSandbox({ bubblewrapPath: program });
  expect(t.sandbox.isolation).toBe('none');
  expect(t.sandbox.describe().isolationReason).toContain('No permissions to create new namespace');
  expect(await t.sh('echo works all the same')).toMatchObject({ exitCode: 0, stdout: 'works all the same\n' });
});

test('what an earlier process left behind is removed', async () => {
  const workDir = join(directory, 'work');
  mkdirSync(join(workDir, 'actions/7/root/locked'), { recursive: true });
  mkdirSync(join(workDir, 'trash/1-2'), { recursive: true });
  writeFileSync(join(workDir, 'actions/7/root/file'), 'left');
  chmodSync(join(workDir, 'actions/7/root/locked'), 0);
  const t = await testSandbox({ workDir, bubblewrapPath: noBubblewrap });
  expect(readdirSync(join(workDir, 'actions'))).toEqual([]);
  // Closing again is no more than waiting for the first.
  await Promise.all([t.sandbox.close(), t.sandbox.close()]);
  expect(readdirSync(workDir)).toEqual(['trash']);
  expect(readdirSync(join(workDir, 'trash'))).toEqual([]);
});

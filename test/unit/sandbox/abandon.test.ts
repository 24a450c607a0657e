/** A sandbox that cannot be killed does not hold up the node. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import { processesWith, testSandbox } from './support.ts';

vi.mock('../../../sandbox/limits.ts', async (original) => ({ ...(await original<object>()), killWaitMs: 300 }));

const directory = mkdtempSync(join(tmpdir(), 'potluck-abandon-'));
chmodSync(directory, 0o755);
afterAll(() => rmSync(directory, { recursive: true }));

test.skipIf(process.platform !== 'linux')('an action that outlives its kill is reported all the same', async () => {
  // Stands in for a process that no signal reaches: what it writes down as the first process of the sandbox is another.
  const program = join(directory, 'bwrap');
  const script = 'case "$*" in *immortal*) echo \'"child-pid": 4000000000\' >&3; exec sleep 3611;; esac; echo works';
  writeFileSync(program, `#!/bin/sh\necho '"child-pid": 4000000000' >&3\n${script}\n`, { mode: 0o755 });
  const t = await testSandbox({ bubblewrapPath: program });
  expect(t.sandbox.isolation).toBe('bubblewrap');
  const stop = new AbortController();
  const run = t.sh('immortal', {
    options: { signal: stop.signal, onPhase: (phase) => phase === 'running' && setTimeout(() => stop.abort(), 50) },
  });
  await expect(run).rejects.toMatchObject({ code: 'CANCELLED' });
  expect(processesWith('3611')).toEqual([]);
});

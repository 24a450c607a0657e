import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { simulate } from '../../sim/simulate.ts';

const main = fileURLToPath(new URL('../../node/main.ts', import.meta.url));

test('one seed gives one trace, again and in another process; another seed gives another', async () => {
  const options = { nodes: 10, minutes: 2 };
  const args = [main, 'sim', 'run', '--seed', '11', '--nodes', '10', '--minutes', '2', '--json'];
  // Whether the invariants held is another matter: the report comes either way.
  const elsewhere = promisify(execFile)(process.execPath, args).catch((error: { stdout: string }) => error);
  const first = simulate({ ...options, seed: 11 });
  const second = simulate({ ...options, seed: 11 });
  expect(second).toEqual(first);
  expect(first.events).toBeGreaterThan(10_000);
  expect(simulate({ ...options, seed: 12 }).traceHash).not.toBe(first.traceHash);
  expect((JSON.parse((await elsewhere).stdout) as { traceHash: string }).traceHash).toBe(first.traceHash);
});

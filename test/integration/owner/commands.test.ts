/** What a person says at a shell about guests, to a node whose mesh is asleep and to one that does not run. */
import { expect, test } from 'vitest';
import { startNode } from '../../support/node-process.ts';
import { openScratch, potluck } from '../cli/potluck.ts';

test('a running node takes the owner’s word, and shows it', async () => {
  await using node = await startNode();
  const at = ['--data-dir', node.dataDir];
  const lent = await potluck(['lend', '--slots', '1', '--when', 'always', ...at]);
  expect(lent).toMatchObject({ exitCode: 0, stderr: '' });
  expect(lent.stdout).toMatch(/^Lends 1 slot always\.\nGuests not welcome now: .*\.\n$/);
  const paused = await potluck(['pause', '--json', ...at]);
  expect(JSON.parse(paused.stdout)).toMatchObject({ paused: true, guestsWelcome: false, running: true });
  expect((await potluck(['status', '--http', node.http])).stdout).toMatch(/^Guests +Paused: .*potluck resume/m);
  const back = await potluck(['owner', 'back', ...at]);
  expect(back).toMatchObject({ exitCode: 0, stderr: '' });
  const resumed = await potluck(['resume', ...at]);
  expect(resumed.stdout).toMatch(/^Lends 1 slot always\./);
});

test('without a running node it is kept for the next, but for signals; mistakes are named', async () => {
  await using scratch = await openScratch();
  const at = ['--data-dir', scratch.dir];
  const lent = await potluck(['lend', '--when', 'never', ...at]);
  expect(lent).toMatchObject({ exitCode: 0, stdout: 'Lends nothing.\n' });
  expect(lent.stderr).toContain('from its next start on');
  expect(JSON.parse((await potluck(['lend', '--json', ...at])).stdout)).toMatchObject({
    when: 'never',
    running: false,
  });
  expect(await potluck(['owner', 'away', ...at])).toMatchObject({ exitCode: 1, stdout: '' });
  for (const wrong of [['lend', '--when', 'sunday'], ['lend', '--slots', 'two'], ['owner', 'asleep'], ['owner']]) {
    expect(await potluck([...wrong, ...at]), wrong.join(' ')).toMatchObject({ exitCode: 2, stdout: '' });
  }
});

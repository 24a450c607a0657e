import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { exitCodes } from '../../../../node/cli/exit-codes.ts';
import { commands } from '../../../../node/cli/program.ts';
import { environmentName, settingNames } from '../../../../node/config/settings.ts';

const root = new URL('../../../../', import.meta.url);
const readme = await readFile(new URL('README.md', root), 'utf8');

test('README names every command, setting, variable and exit status', () => {
  for (const { name, summary } of commands) {
    if (!name.startsWith('sim ')) expect(readme).toContain(`| \`potluck ${name}\` | ${summary} |`);
  }
  for (const name of settingNames) {
    const row = readme
      .split('\n')
      .find((line) => line.startsWith('| `') && line.includes(`\`${environmentName(name)}\``));
    expect(row, name).toContain(`\`${name}\``);
  }
  for (const code of Object.values(exitCodes)) expect(readme).toMatch(new RegExp(`\\b${code}\\b`));
});

test('README and ARCHITECTURE link to files that are there', async () => {
  for (const page of ['README.md', 'docs/ARCHITECTURE.md']) {
    const text = await readFile(new URL(page, root), 'utf8');
    for (const [, target = ''] of text.matchAll(/\]\(([^)#]+)/g)) {
      if (target.startsWith('https://')) continue;
      const { stat } = await import('node:fs/promises');
      await expect(stat(new URL(target, new URL(page, root))), target).resolves.toBeDefined();
    }
  }
});

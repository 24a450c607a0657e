import { describe, expect, test } from 'vitest';
import { commands } from '../../../node/cli/program.ts';
import { commandHelp } from '../../../node/cli/help.ts';
import { entry, potluck } from './potluck.ts';

/** Makes a Node.js that says it is an old one. */
function pretending(version: string): string[] {
  const code = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${version}' } })`;
  return ['--import', `data:text/javascript,${encodeURIComponent(code)}`];
}

describe('help', () => {
  test('lists every command, and names the version', async () => {
    const help = await potluck(['--help']);
    expect(help).toMatchObject({ exitCode: 0, stderr: '' });
    for (const { name, summary } of commands) expect(help.stdout).toMatch(new RegExp(`^  ${name} +${summary}$`, 'm'));
    expect((await potluck(['--version'])).stdout).toMatch(/^potluck \d+\.\d+\.\d+\n$/);
  });

  test.each(commands.map((command) => [command.name, command] as const))(
    'of %s shows its flags and an example, in lines that fit',
    (name, command) => {
      const text = commandHelp(command);
      expect(text).toContain(`potluck ${name}`);
      for (const flag of Object.keys(command.flags)) expect(text).toContain(`--${flag}`);
      expect(text).toContain(`  ${command.examples[0]?.line}`);
      for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(120);
    },
  );

  test('of a command is asked for in three ways', async () => {
    const asked = [
      ['cache', 'gc', '--help'],
      ['cache', 'gc', '-h'],
      ['help', 'cache', 'gc'],
    ];
    for (const { exitCode, stdout, stderr } of await Promise.all(asked.map((words) => potluck(words)))) {
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
      expect(stdout).toMatch(/^Usage: potluck cache gc /);
    }
  });
});

describe('wrong words', () => {
  test.each([
    [[], 'Usage: potluck COMMAND'],
    [['stauts'], 'Did you mean "potluck status"?'],
    [['frobnicate'], 'no command "frobnicate"'],
    [['--json'], 'a command comes before --json'],
    [['cache'], 'Usage: potluck cache stats'],
    [['up', '--slot', '3'], 'did you mean --slots?'],
    [['cache', 'gc', '--to', 'lots'], '--to: "lots" is not a size'],
  ])('%j end with status 2 and a hint', async (words, hint) => {
    const { exitCode, stdout, stderr } = await potluck(words);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
    expect(stderr).toContain(hint);
  });
});

describe('an older Node.js', () => {
  test.each([
    ['node/main.ts', entry, '22.18.0'],
    ['node/main.ts', entry, '24.11.1'],
    ['the command of the package', entry.replace(/main\.ts$/, 'potluck.js'), '20.20.2'],
  ])('%s says in one line what is needed', async (_, program, version) => {
    const { exitCode, stdout, stderr } = await potluck(['--version'], {
      nodeArgs: pretending(version),
      entry: program,
    });
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
    expect(stderr).toMatch(
      new RegExp(`^Potluck needs Node.js 24.12 or newer; this is ${version.replaceAll('.', '\\.')}\\. .*\n$`),
    );
  });

  test('is not what a new one is taken for', async () => {
    const program = entry.replace(/main\.ts$/, 'potluck.js');
    for (const version of ['24.12.0', '26.0.0']) {
      expect((await potluck(['--version'], { nodeArgs: pretending(version), entry: program })).exitCode).toBe(0);
    }
  });
});

test('a reader that stops reading is no failure', async () => {
  const { execFileSync } = await import('node:child_process');
  const script = `set -o pipefail; "${process.execPath}" "${entry}" up --help | head -n 1`;
  expect(execFileSync('bash', ['-c', script], { encoding: 'utf8' })).toBe('Usage: potluck up [FLAGS]\n');
});

import { execFile } from 'node:child_process';
import { mkdir, readdir, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { until } from '../../support/until.ts';
import { openScratch, potluck, startPotluck } from './potluck.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const execute = promisify(execFile);

test('the packed package holds the program and little else, and works once installed', async () => {
  await using scratch = await openScratch();
  const pack = ['pack', '--json', '--silent', '--pack-destination', scratch.dir];
  const { stdout } = await execute('npm', pack, { cwd: root, maxBuffer: 16 * 1024 * 1024 });
  const [packed] = JSON.parse(stdout.slice(stdout.indexOf('[')));
  const files: string[] = packed.files.map(({ path }: { path: string }) => path);
  const kept =
    /^(dist\/.*\.js|node\/(potluck|node-version)\.js|sim\/scenarios\/[a-z-]+\.yaml|package\.json|README\.md|LICENSE|CHANGELOG\.md)$/;
  expect(files.filter((path) => !kept.test(path))).toEqual([]);
  expect(files).toContain('README.md');
  expect(packed.unpackedSize).toBeLessThan(4_000_000);

  // Installed as npm would, with the dependencies that are here already.
  const modules = join(scratch.dir, 'node_modules');
  await mkdir(join(modules, 'potluck'), { recursive: true });
  await execute('tar', [
    '-xzf',
    join(scratch.dir, packed.filename),
    '--strip-components=1',
    '-C',
    join(modules, 'potluck'),
  ]);
  for (const name of await readdir(join(root, 'node_modules'))) {
    if (!name.startsWith('.')) await symlink(join(root, 'node_modules', name), join(modules, name));
  }
  const entry = join(modules, 'potluck', 'node', 'potluck.js');
  expect((await potluck(['--version'], { entry })).stdout).toMatch(/^potluck \d/);

  // Whether the seed holds is for the simulator's own tests; here its workers have to be found.
  const sweep = await potluck(['sim', 'sweep', '--seeds', '1..1', '--nodes', '3', '--minutes', '1', '--json'], {
    entry,
  });
  expect(JSON.parse(sweep.stdout), sweep.stderr).toMatchObject({ seeds: 1 });

  const data = join(scratch.dir, 'data');
  const up = startPotluck(
    ['up', '--data-dir', data, '--listen', '127.0.0.1:0', '--http', 'off', '--log-format', 'json'],
    { entry },
  );
  await until(() => up.stdout().includes('\n'));
  const { grpc } = JSON.parse(up.stdout().split('\n')[0] ?? '');
  const cwd = dirname(data);
  const ran = await potluck(['run', '--remote', grpc, '--', 'echo', 'from the package'], { entry, cwd });
  expect(ran).toMatchObject({ exitCode: 0, stdout: 'from the package\n' });
  up.signal('SIGTERM');
  expect((await up.done).exitCode).toBe(0);
});

import { chmod, lstat, mkdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type NodeProcess, startNode } from '../../support/node-process.ts';
import { until } from '../../support/until.ts';
import { openScratch, potluck, type Scratch, startPotluck } from './potluck.ts';

let node: NodeProcess;
let scratch: Scratch;
beforeAll(async () => {
  node = await startNode();
  scratch = await openScratch();
});
afterAll(async () => {
  await scratch[Symbol.asyncDispose]();
  await node[Symbol.asyncDispose]();
});

/** A directory of its own for each test. */
async function workspace(name: string): Promise<string> {
  const dir = join(scratch.dir, name);
  await mkdir(dir);
  return dir;
}

const run = (cwd: string, ...words: string[]) =>
  potluck(['run', ...words], { cwd, env: { POTLUCK_REMOTE: node.grpc } });

describe('a command', () => {
  test('is run once, and answered from the cache afterwards, for equal inputs', async () => {
    const cwd = await workspace('cached');
    await writeFile(join(cwd, 'in.txt'), 'one\n');
    const words = [
      '--input',
      'in.txt',
      '--output',
      'out.txt',
      '--',
      'sh',
      '-c',
      'cat in.txt > out.txt; date +%N >> out.txt',
    ];
    const first = await run(cwd, ...words);
    expect(first).toMatchObject({ exitCode: 0, stdout: '' });
    expect(first.stderr).toContain('executed, exit status 0');
    const made = await readFile(join(cwd, 'out.txt'), 'utf8');
    expect(made).toMatch(/^one\n\d+\n$/);

    await writeFile(join(cwd, 'out.txt'), 'spoilt');
    const second = await run(cwd, ...words);
    expect(second.stderr).toContain('cache hit, exit status 0');
    expect(await readFile(join(cwd, 'out.txt'), 'utf8')).toBe(made);

    expect((await run(cwd, '--no-cache', ...words)).stderr).toContain('executed');
    await writeFile(join(cwd, 'in.txt'), 'two\n');
    expect((await run(cwd, ...words)).stderr).toContain('executed');
    expect(await readFile(join(cwd, 'out.txt'), 'utf8')).toMatch(/^two\n/);
  });

  test('passes on its exit status, its output and its errors', async () => {
    const cwd = await workspace('status');
    const { exitCode, stdout, stderr } = await run(cwd, '--', 'sh', '-c', 'echo out; echo err >&2; exit 7');
    expect({ exitCode, stdout }).toEqual({ exitCode: 7, stdout: 'out\n' });
    expect(stderr).toMatch(/^err$/m);
  });

  test('is heard while it runs', async () => {
    const cwd = await workspace('live');
    const started = startPotluck(['run', '--remote', node.grpc, '--', 'sh', '-c', 'echo early; sleep 98762'], { cwd });
    await until(() => started.stdout() === 'early\n');
    started.signal('SIGINT');
    const { exitCode, stderr } = await started.done;
    expect(exitCode).toBe(130);
    expect(stderr).toContain('cancelled');
    await until(async () => (await node.metric('potluck_executions_active')) === 0);
  });

  test('that writes much and fast is heard in full, each byte once', async () => {
    const cwd = await workspace('much');
    const { exitCode, stdout } = await run(cwd, '--', 'sh', '-c', 'seq 1 600000; sleep 0.2; seq 600001 700000');
    expect(exitCode).toBe(0);
    expect(stdout === `${Array.from({ length: 700_000 }, (_, index) => index + 1).join('\n')}\n`).toBe(true);
  });

  test('sees the environment it is given and a standard PATH, and nothing of the caller', async () => {
    const cwd = await workspace('environment');
    const { stdout } = await run(cwd, '--env', 'A=1', '--env', 'B=x=y', '--', '/usr/bin/env');
    const lines = stdout
      .trim()
      .split('\n')
      .filter((line) => !/^(HOME|PWD|TMPDIR|_|SHLVL|POTLUCK_ACTION)=/.test(line));
    expect(lines.sort()).toEqual(['A=1', 'B=x=y', 'PATH=/usr/local/bin:/usr/bin:/bin']);
  });

  test('is killed at its time limit; what it said by then is shown', async () => {
    const cwd = await workspace('timeout');
    const { exitCode, stdout, stderr } = await run(
      cwd,
      '--timeout',
      '1s',
      '--',
      'sh',
      '-c',
      'echo partial; sleep 98763',
    );
    expect({ exitCode, stdout }).toEqual({ exitCode: 124, stdout: 'partial\n' });
    expect(stderr).toContain('time limit');
  });
});

describe('inputs', () => {
  test('are files, directories, globs and links, as they are', async () => {
    const cwd = await workspace('inputs');
    await mkdir(join(cwd, 'src/deep'), { recursive: true });
    await mkdir(join(cwd, 'src/empty'));
    await writeFile(join(cwd, 'src/a.c'), 'a');
    await writeFile(join(cwd, 'src/deep/b.c'), 'b');
    await writeFile(join(cwd, 'src/deep/b.h'), 'h');
    await writeFile(join(cwd, 'odd[1].txt'), 'o');
    await writeFile(join(cwd, 'tool.sh'), '#!/bin/sh\necho tool');
    await chmod(join(cwd, 'tool.sh'), 0o755);
    await symlink('a.c', join(cwd, 'src/link'));
    const find = [
      '--',
      'sh',
      '-c',
      'find . ! -type d -o -empty | LC_ALL=C sort; readlink src/link; test -x tool.sh && ./tool.sh',
    ];

    const globbed = await run(cwd, '--input', 'src/**/*.c', '--input', 'odd[1].txt', ...find);
    expect(globbed.stdout).toBe('./odd[1].txt\n./src/a.c\n./src/deep/b.c\n');
    const all = await run(cwd, '--input', 'src', 'tool.sh', ...find);
    expect(all.stdout).toBe(
      './src/a.c\n./src/deep/b.c\n./src/deep/b.h\n./src/empty\n./src/link\n./tool.sh\na.c\ntool\n',
    );
    expect((await run(cwd, '--input', '.', '--', 'cat', 'src/deep/b.h')).stdout).toBe('h');
  });

  test('of many megabytes and of many files arrive', async () => {
    const cwd = await workspace('large');
    await mkdir(join(cwd, 'many'));
    await writeFile(join(cwd, 'large'), Buffer.alloc(9_000_000, 'x'));
    for (let index = 0; index < 300; index++) await writeFile(join(cwd, 'many', `${index}`), `${index}`);
    const { stdout } = await run(
      cwd,
      '--input',
      'large',
      'many',
      '--',
      'sh',
      '-c',
      'wc -c < large; ls many | wc -l; cat many/299',
    );
    expect(stdout.split(/\s+/).filter(Boolean)).toEqual(['9000000', '300', '299']);
  });

  test('that match nothing or lie elsewhere are refused before anything runs', async () => {
    const cwd = await workspace('refused');
    for (const [pattern, reason] of [
      ['*.nothing', 'matches nothing'],
      ['../*', 'leads out of'],
      ['/etc/passwd', 'leads out of'],
    ]) {
      const { exitCode, stderr } = await run(cwd, '--input', pattern as string, '--', 'true');
      expect(exitCode).toBe(125);
      expect(stderr).toContain(reason);
    }
  });
});

describe('outputs', () => {
  test('are files, directories and links, with their executable bit', async () => {
    const cwd = await workspace('outputs');
    const script =
      'mkdir -p out/sub out/empty; echo f > out/sub/f; echo x > tool; chmod +x tool; ln -s sub/f out/link; ln -s tool alias';
    const { exitCode } = await run(cwd, '--output', 'out', 'tool', 'alias', '--', 'sh', '-c', script);
    expect(exitCode).toBe(0);
    expect(await readFile(join(cwd, 'out/sub/f'), 'utf8')).toBe('f\n');
    expect((await lstat(join(cwd, 'out/sub/f'))).mode & 0o111).toBe(0);
    expect((await lstat(join(cwd, 'out/empty'))).isDirectory()).toBe(true);
    expect((await lstat(join(cwd, 'tool'))).mode & 0o100).toBe(0o100);
    expect(await readlink(join(cwd, 'out/link'))).toBe('sub/f');
    expect(await readlink(join(cwd, 'alias'))).toBe('tool');
  });

  test('that a successful command did not make are a failure, those of a failed one are brought back', async () => {
    const cwd = await workspace('missing');
    const absent = await run(cwd, '--output', 'absent', '--', 'true');
    expect(absent.exitCode).toBe(125);
    expect(absent.stderr).toContain('did not make these outputs: absent');
    const failed = await run(cwd, '--output', 'log', 'absent', '--', 'sh', '-c', 'echo why > log; exit 3');
    expect(failed.exitCode).toBe(3);
    expect(await readFile(join(cwd, 'log'), 'utf8')).toBe('why\n');
  });

  test('are not written through a link that leads away', async () => {
    const cwd = await workspace('link');
    const away = await workspace('away');
    await symlink(away, join(cwd, 'out'));
    const { exitCode, stderr } = await run(cwd, '--output', 'out/file', '--', 'sh', '-c', 'echo x > out/file');
    expect(exitCode).toBe(125);
    expect(stderr).toContain('out: is a symbolic link');
    await expect(lstat(join(away, 'file'))).rejects.toThrow('ENOENT');
  });
});

describe('for programs', () => {
  test('--json says all in one object on stdout', async () => {
    const cwd = await workspace('json');
    await writeFile(join(cwd, 'i'), '12345');
    const { exitCode, stdout, stderr } = await run(
      cwd,
      '--json',
      '--input',
      'i',
      '--output',
      'o',
      '--',
      'sh',
      '-c',
      'echo said; cp i o; exit 0',
    );
    expect(exitCode).toBe(0);
    expect(stderr).toBe('said\n');
    expect(JSON.parse(stdout)).toEqual({
      exitCode: 0,
      cached: false,
      timedOut: false,
      actionDigest: expect.stringMatching(/^[0-9a-f]{64}\/\d+$/),
      inputs: { files: 1, bytes: 5 },
      uploaded: { blobs: expect.any(Number), bytes: expect.any(Number) },
      outputs: { files: 1, bytes: 5, missing: [] },
      phasesMs: {
        connect: expect.any(Number),
        inputs: expect.any(Number),
        upload: expect.any(Number),
        execute: expect.any(Number),
        download: expect.any(Number),
        total: expect.any(Number),
      },
      executionMs: {
        queued: expect.any(Number),
        staging: expect.any(Number),
        running: expect.any(Number),
        collecting: expect.any(Number),
      },
    });
  });

  test('failures of its own have status 125', async () => {
    const cwd = await workspace('own');
    const nobody = await potluck(['run', '--remote', '127.0.0.1:1', '--', 'true'], { cwd });
    expect(nobody.exitCode).toBe(125);
    expect(nobody.stderr).toMatch(/^potluck: no node answers at 127\.0\.0\.1:1\. Start one with "potluck up".*\n$/);
    const wrong = await run(cwd, '--env', 'novalue', '--output', '.', '--timeout', 'soon');
    expect(wrong.exitCode).toBe(125);
    for (const problem of ['--env novalue', '--output .', '--timeout', 'no command'])
      expect(wrong.stderr).toContain(problem);
    expect((await run(cwd, '--', '/no/such/program')).exitCode).not.toBe(0);
  });
});

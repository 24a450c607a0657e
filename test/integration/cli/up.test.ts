import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { startNode } from '../../support/node-process.ts';
import { until } from '../../support/until.ts';
import { openScratch, potluck, startPotluck } from './potluck.ts';

const free = ['--listen', '127.0.0.1:0', '--http', '127.0.0.1:0'];

/** Command lines of `sleep` with this argument, anywhere on the machine. */
async function processesNamed(argument: string): Promise<string[]> {
  const { stdout } = await promisify(execFile)('ps', ['-A', '-o', 'args=']);
  return stdout.split('\n').filter((line) => line === `sleep ${argument}`);
}

describe('potluck up', () => {
  test('tells a program in the first line where it serves, with the ports it picked', async () => {
    await using scratch = await openScratch();
    const socket = join(scratch.dir, 'grpc.sock');
    const up = startPotluck([
      'up',
      '--data-dir',
      join(scratch.dir, 'd'),
      ...free,
      '--listen',
      `unix:${socket}`,
      '--log-format',
      'json',
    ]);
    await until(() => up.stdout().includes('\n'));
    const ready = JSON.parse(up.stdout().split('\n')[0] ?? '');
    expect(ready).toMatchObject({
      event: 'ready',
      grpc: expect.stringMatching(/^127\.0\.0\.1:[1-9]\d*$/),
      http: expect.stringMatching(/^127\.0\.0\.1:[1-9]\d*$/),
      dataDir: join(scratch.dir, 'd'),
      addresses: [ready.grpc, `unix:${socket}`],
    });
    expect((await fetch(`http://${ready.http}/healthz`)).status).toBe(200);
    for (const remote of [ready.grpc, `unix:${socket}`]) {
      expect(await potluck(['run', '--remote', remote, '--', 'echo', 'hello'])).toMatchObject({
        exitCode: 0,
        stdout: 'hello\n',
      });
    }
    up.signal('SIGTERM');
    const { exitCode, stdout } = await up.done;
    expect(exitCode).toBe(0);
    const events = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).event);
    expect(events[0]).toBe('ready');
    expect(events.slice(-2)).toEqual(['stopping', 'stopped']);
  });

  test('tells a person what to paste', async () => {
    await using scratch = await openScratch();
    const up = startPotluck(['up', '--data-dir', scratch.dir, ...free]);
    await until(() => up.stdout().includes('Ctrl-C'));
    const text = up.stdout();
    const address = /gRPC +(127\.0\.0\.1:\d+)/.exec(text)?.[1];
    expect(text).toContain(`\n  build --remote_executor=grpc://${address}\n`);
    expect(text).toContain(`\n  build --remote_cache=grpc://${address}\n`);
    expect(text).toContain(scratch.dir);
    expect(text).toMatch(/Isolation +(bubblewrap|none): /);
    up.signal('SIGINT');
    expect((await up.done).exitCode).toBe(0);
  });

  test('stops in good order although an action runs, which it kills', async () => {
    await using node = await startNode();
    const run = startPotluck(['run', '--remote', node.grpc, '--', 'sh', '-c', 'echo started; sleep 98761']);
    await until(() => run.stdout().includes('started'));
    expect(await node.stop()).toBe(0);
    expect(await processesNamed('98761')).toEqual([]);
    run.signal('SIGKILL');
    await run.done;
  });

  test('a second signal ends it at once', async () => {
    await using node = await startNode();
    const run = startPotluck(['run', '--remote', node.grpc, '--', 'sh', '-c', 'echo started; sleep 1000']);
    await until(() => run.stdout().includes('started'));
    const ended = new Promise((resolve) => node.child.once('exit', resolve));
    node.child.kill('SIGINT');
    // Signals that come together count as one; the second is sent until it counts.
    const again = setInterval(() => node.child.kill('SIGINT'), 100);
    expect(await ended).toBe(130);
    clearInterval(again);
    run.signal('SIGKILL');
    await run.done;
  });
});

describe('what keeps it from serving is said in a sentence, without a stack', () => {
  async function refused(args: readonly string[]): Promise<{ exitCode: number | null; stderr: string }> {
    const { exitCode, stdout, stderr } = await potluck(['up', ...args]);
    expect(stdout).toBe('');
    expect(stderr).not.toMatch(/^ +at /m);
    expect(stderr).not.toContain('defect');
    return { exitCode, stderr };
  }

  test('an address in use', async () => {
    await using node = await startNode();
    await using scratch = await openScratch();
    for (const flags of [
      ['--listen', node.grpc, '--http', 'off'],
      ['--listen', '127.0.0.1:0', '--http', node.grpc],
    ]) {
      const { exitCode, stderr } = await refused(['--data-dir', scratch.dir, ...flags]);
      expect(exitCode).toBe(1);
      expect(stderr).toMatch(new RegExp(`^potluck: ${node.grpc} is in use.*--listen.*\n$`));
    }
  });

  test('a data directory that another node holds', async () => {
    await using node = await startNode();
    const { exitCode, stderr } = await refused(['--data-dir', node.dataDir, ...free]);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^potluck: another .*node.*--data-dir.*\n$/);
  });

  test('a data directory that cannot be written', async () => {
    await using scratch = await openScratch();
    await writeFile(join(scratch.dir, 'file'), '');
    for (const dir of [join(scratch.dir, 'file'), join(scratch.dir, 'file', 'below')]) {
      const { exitCode, stderr } = await refused(['--data-dir', dir, ...free]);
      expect(exitCode).toBe(1);
      expect(stderr).toMatch(/^potluck: .*data directory .*--data-dir.*\n$/);
    }
  });

  test('a wrong configuration, all of it at once', async () => {
    await using scratch = await openScratch();
    const file = join(scratch.dir, 'potluck.yaml');
    await writeFile(file, 'slots: many\nnonsense: 1\n');
    const { exitCode, stderr } = await refused(['--config', file, '--cache-size', 'big']);
    expect(exitCode).toBe(2);
    expect(stderr.split('\n')).toEqual([
      'potluck: the configuration has several problems:',
      expect.stringContaining('potluck.yaml:2 nonsense: no such setting'),
      expect.stringContaining('--cache-size: "big" is not a size'),
      expect.stringContaining('potluck.yaml:1 slots: "many"'),
      '',
    ]);
  });

  test('a stack is shown to those who ask', async () => {
    const { stderr } = await potluck(['cache', 'stats', '--data-dir', '/nonexistent'], { env: { POTLUCK_DEBUG: '1' } });
    expect(stderr).toMatch(/^ +at /m);
  });
});

test('every setting can come from the environment', async () => {
  await using scratch = await openScratch();
  const up = startPotluck(['up'], {
    env: {
      POTLUCK_DATA_DIR: join(scratch.dir, 'd'),
      POTLUCK_LISTEN: '127.0.0.1:0',
      POTLUCK_HTTP: 'off',
      POTLUCK_LOG_FORMAT: 'json',
    },
  });
  await until(() => up.stdout().includes('\n'));
  expect(JSON.parse(up.stdout().split('\n')[0] ?? '')).toMatchObject({ http: null, dataDir: join(scratch.dir, 'd') });
  up.signal('SIGTERM');
  expect((await up.done).exitCode).toBe(0);
});

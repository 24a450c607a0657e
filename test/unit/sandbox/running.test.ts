/** What is the same with and without isolation: both runners are held to it. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { beforeAll, describe, expect, test } from 'vitest';
import { toWireDigest } from '../../../protos/digest.ts';
import { StatusError } from '../../../protos/status.ts';
import { missingSubjects, noBubblewrap, processesWith, type TestSandbox, testSandbox } from './support.ts';

const runners = [
  { name: 'the best runner of this machine', options: {} },
  { name: 'the plain runner', options: { bubblewrapPath: noBubblewrap } },
];

describe.each(runners)('$name', ({ options }) => {
  let t: TestSandbox;
  beforeAll(async () => {
    t = await testSandbox(options);
  });
  const variable = (name: string, value: string) => ({ environmentVariables: [{ name, value }] });

  test('runs a command on its inputs and gives exit code, streams and outputs', async () => {
    const ran = await t.sh('cat in/a; echo oops >&2; tr a-z A-Z <in/a >out/b; exit 3', {
      tree: { in: { tree: { a: 'hello\n' } } },
      command: { outputPaths: ['out/b'] },
    });
    expect(ran).toMatchObject({ kind: 'exited', exitCode: 3, stdout: 'hello\n', stderr: 'oops\n' });
    expect(ran.result.outputFiles.map(({ path }) => path)).toEqual(['out/b']);
    expect(t.blobs.text(ran.result.outputFiles[0]?.digest)).toBe('HELLO\n');
  });

  test('leaves out the digests of empty streams', async () => {
    const { result } = await t.sh(':');
    expect(result.stdoutDigest).toBeUndefined();
    expect(result.stderrDigest).toBeUndefined();
  });

  test('passes declared variables, a few documented defaults, and nothing of the node', async () => {
    process.env['POTLUCK_TEST_SECRET'] = 'secret';
    const { stdout } = await t.run({ command: { arguments: ['env'], ...variable('odd.name-1', 'a b\nc') } });
    delete process.env['POTLUCK_TEST_SECRET'];
    const names = stdout
      .split('\n')
      .filter((line) => line.includes('='))
      .map((line) => line.slice(0, line.indexOf('=')))
      .filter((name) => name !== 'POTLUCK_ACTION');
    expect(new Set(names)).toEqual(new Set(['HOME', 'PATH', 'PWD', 'odd.name-1']));
    expect(stdout).toContain('odd.name-1=a b\nc\n');
  });

  test("takes the command's own value over every default, PWD included", async () => {
    const { stdout } = await t.run({
      command: {
        arguments: ['env'],
        environmentVariables: [
          { name: 'HOME', value: '/h' },
          { name: 'PATH', value: '/usr/bin:/bin:/p' },
          { name: 'PWD', value: '/proc/self/cwd' },
        ],
      },
    });
    expect(stdout.split('\n')).toEqual(
      expect.arrayContaining(['HOME=/h', 'PATH=/usr/bin:/bin:/p', 'PWD=/proc/self/cwd']),
    );
  });

  test('finds a bare program name on the PATH of the action', async () => {
    const tool = { content: '#!/bin/sh\necho mine\n', executable: true };
    const command = { arguments: ['tool'], ...variable('PATH', 'bin:/usr/bin:/bin') };
    expect(await t.run({ command, tree: { bin: { tree: { tool } } } })).toMatchObject({
      exitCode: 0,
      stdout: 'mine\n',
    });
  });

  test('takes a program with a slash relative to the working directory', async () => {
    const tool = { content: '#!/bin/sh\npwd | sed "s,.*/,,"\n', executable: true };
    const command = { arguments: ['../bin/tool'], workingDirectory: 'src' };
    const tree = { bin: { tree: { tool } }, src: { tree: { a: '' } } };
    expect(await t.run({ command, tree })).toMatchObject({ exitCode: 0, stdout: 'src\n' });
  });

  test('answers 127 for a program that is not there and 126 for one that may not be executed', async () => {
    const missing = await t.run({ command: { arguments: ['./no-such'] } });
    expect(missing).toMatchObject({ kind: 'exited', exitCode: 127 });
    expect(missing.stderr).toContain('no-such');
    const bare = await t.run({ command: { arguments: ['no-such-tool'], ...variable('PWD', '/x') } });
    expect(bare.exitCode).toBe(127);
    const text = await t.run({ command: { arguments: ['./text'] }, tree: { text: 'not executable' } });
    expect(text.exitCode).toBe(126);
  });

  test('passes more arguments than bubblewrap takes, and any bytes in them', async () => {
    const many = Array.from({ length: 12_000 }, (_, index) => `${index}`);
    const odd = ["it's", '"', '$HOME', '`id`', 'a\nb', '', '\\', 'ü'];
    const ran = await t.run({ command: { arguments: ['printf', '%s|', ...odd, ...many], ...variable('X', "o'x") } });
    expect(ran).toMatchObject({ exitCode: 0, stdout: [...odd, ...many, ''].join('|') });
    const script = 'echo $# $X; shift 11999; echo $1; exec env';
    const shell = await t.run({ command: { arguments: ['sh', '-c', script, 'sh', ...many], ...variable('X', "o'x") } });
    expect(shell.stdout).toMatch(/^12000 o'x\n11999\n/);
    expect(shell.stdout).toContain('HOME=/tmp\n');
  });

  test('refuses a command line that is too long for the system', async () => {
    const run = t.run({ command: { arguments: ['echo', 'x'.repeat(3_000_000)] } });
    await expect(run).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('reports a signal as 128 and its number', async () => {
    expect((await t.sh('kill -TERM $$')).exitCode).toBe(143);
    expect((await t.sh('kill -KILL $$')).exitCode).toBe(137);
  });

  test('gives no input, and a umask that does not depend on the node', async () => {
    const before = process.umask(0o077);
    const ran = await t.sh('cat; umask; touch f; mkdir d; stat -c %a f d . given', {
      tree: { given: { tree: { a: '' } } },
    });
    process.umask(before);
    expect(ran.stdout).toBe('0022\n644\n755\n755\n755\n');
  });

  test('streams what is written while the command runs', async () => {
    const seen: string[] = [];
    const first = Promise.withResolvers<void>();
    const stop = new AbortController();
    const run = t.sh('echo early; sleep 60', {
      options: {
        signal: stop.signal,
        onStdout: (chunk) => {
          seen.push(Buffer.from(chunk).toString());
          first.resolve();
        },
      },
    });
    await first.promise;
    stop.abort();
    await expect(run).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(seen.join('')).toBe('early\n');
  });

  test('lets a script open its streams by name', async () => {
    const ran = await t.sh('echo out >/dev/stdout; echo err >/dev/stderr; echo more | tee /dev/stderr; cat /dev/stdin');
    expect(ran).toMatchObject({ exitCode: 0, stdout: 'out\nmore\n', stderr: 'err\nmore\n' });
  });

  test('gives every action streams of its own, whatever an earlier one did to those it had', async () => {
    for (let round = 0; round < 4; round++) await t.sh('chmod 0 /proc/self/fd/1 /proc/self/fd/2; true');
    for (let round = 0; round < 4; round++) {
      const ran = await t.sh('echo out >/dev/stdout; echo err >/dev/stderr');
      expect(ran).toMatchObject({ exitCode: 0, stdout: 'out\n', stderr: 'err\n' });
    }
  });

  test('stores long output completely', async () => {
    const { stdout } = await t.sh('i=0; while [ $i -lt 3000 ]; do printf "%01000d\\n" $i; i=$((i+1)); done');
    expect(stdout.length).toBe(3000 * 1001);
    expect(stdout.endsWith('2999\n')).toBe(true);
  });

  test('kills a command at its timeout, keeps what it wrote, and gives no outputs', async () => {
    const ran = await t.sh('trap "" TERM INT HUP; echo before; touch out; while :; do sleep 3601; done', {
      command: { outputPaths: ['out'] },
      timeoutMs: 300,
    });
    expect(ran).toMatchObject({ kind: 'timed-out', exitCode: 137, stdout: 'before\n' });
    expect(ran.result.outputFiles).toEqual([]);
    expect(processesWith('3601')).toEqual([]);
  });

  test('leaves no process behind, not even one that left the group and closed its streams', async () => {
    const ran = await t.sh(
      'setsid sh -c "trap \\"\\" TERM; exec sleep 3602" </dev/null >/dev/null 2>&1 & sleep 3602 & echo up',
    );
    expect(ran).toMatchObject({ exitCode: 0, stdout: 'up\n' });
    expect(processesWith('3602')).toEqual([]);
  });

  test('kills everything when it is cancelled, and rejects with CANCELLED', async () => {
    const stop = new AbortController();
    const run = t.sh('setsid sleep 3603 & sleep 3603', {
      options: { signal: stop.signal, onPhase: (phase) => phase === 'running' && setTimeout(() => stop.abort(), 100) },
    });
    await expect(run).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(processesWith('3603')).toEqual([]);
  });

  test('does not start what was cancelled before', async () => {
    const run = t.sh('echo x', { options: { signal: AbortSignal.abort() } });
    await expect(run).rejects.toBeInstanceOf(StatusError);
    await expect(run).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  test('ends what runs when it is closed, and takes its directories away', async () => {
    const own = await testSandbox(options);
    const running = Promise.withResolvers<void>();
    const run = own.sh('sleep 3604', { options: { onPhase: (phase) => phase === 'running' && running.resolve() } });
    const outcome = expect(run).rejects.toMatchObject({ code: 'CANCELLED' });
    await running.promise;
    await own.sandbox.close();
    await outcome;
    expect(processesWith('3604')).toEqual([]);
    await expect(own.sh(':')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(readdirSync(join(own.directory, 'work'))).toEqual(['trash']);
    expect(readdirSync(join(own.directory, 'work', 'trash'))).toEqual([]);
  });

  test('reports phases in order, in time stamps as well', async () => {
    const phases: string[] = [];
    const { result } = await t.sh('sleep 0.05', { options: { onPhase: (phase) => phases.push(phase) } });
    expect(phases).toEqual(['staging', 'running', 'collecting']);
    const meta = result.executionMetadata;
    const times = [
      meta?.inputFetchStartTimestamp,
      meta?.inputFetchCompletedTimestamp,
      meta?.executionStartTimestamp,
      meta?.executionCompletedTimestamp,
      meta?.outputUploadStartTimestamp,
      meta?.outputUploadCompletedTimestamp,
    ].map((time) => (time ? timestampMs(time) : Number.NaN));
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect((times[3] as number) - (times[2] as number)).toBeGreaterThanOrEqual(49);
    expect(meta?.virtualExecutionDuration).toBeDefined();
  });

  test('gives inputs as the tree has them: links as written, the executable bit, empty directories', async () => {
    const { stdout } = await t.sh(
      'readlink l abs; test -x x && echo x; test -x f || echo plain; ls -A empty; cat "sp ace/ü"',
      {
        tree: {
          l: { link: '../nowhere' },
          abs: { link: '/etc/target' },
          x: { content: 'x', executable: true },
          f: 'f',
          empty: { tree: {} },
          'sp ace': { tree: { ü: 'unicode\n' } },
        },
      },
    );
    expect(stdout).toBe('../nowhere\n/etc/target\nx\nplain\nunicode\n');
  });

  test('honours modes and times asked of inputs, and never in the store', async () => {
    const mtime = { seconds: 86_400n, nanos: 0 };
    const digest = t.blobs.add('timed');
    const { stdout } = await t.sh('stat -c "%a %Y" in/f in/d top', {
      tree: {
        in: {
          tree: {
            f: { content: 'timed', properties: { unixMode: 0o640, mtime } },
            d: { tree: {}, properties: { mtime } },
          },
        },
        top: { content: 'timed', executable: true, properties: { unixMode: 0o6711 } },
      },
    });
    expect(stdout).toMatch(/^640 86400\n755 86400\n711 \d+\n$/);
    expect(t.blobs.text(toWireDigest(digest))).toBe('timed');
  });

  test('works with other digest functions', async () => {
    const ran = await t.sh('cat f; echo o >o', { fn: 'blake3', tree: { f: 'f' }, command: { outputPaths: ['o'] } });
    expect(ran).toMatchObject({ exitCode: 0, stdout: 'f' });
    expect(t.blobs.text(ran.result.outputFiles[0]?.digest, 'blake3')).toBe('o\n');
  });

  test('names every missing blob at once, in the form clients know', async () => {
    const gone = t.blobs.add('gone, one');
    const alsoGone = t.blobs.add('gone, two', 'sha256');
    const run = () =>
      t.sh(':', { tree: { a: 'gone, one', in: { tree: { b: 'gone, two', c: 'here' } } }, options: { onPhase: drop } });
    let dropped = false;
    const drop = () => {
      if (dropped) return;
      dropped = true;
      t.blobs.drop(gone);
      t.blobs.drop(alsoGone);
    };
    const error = await run().then(
      () => undefined,
      (error: StatusError) => error,
    );
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(missingSubjects(error)).toEqual([`blobs/${gone.hash}/9`, `blobs/${alsoGone.hash}/9`]);
  });

  test('runs many actions at once', async () => {
    const runs = Array.from({ length: 8 }, (_, index) =>
      t.sh(`echo ${index} >o; cat o`, { tree: { s: { tree: { f: '' } } } }),
    );
    expect((await Promise.all(runs)).map(({ stdout }) => stdout)).toEqual(
      [0, 1, 2, 3, 4, 5, 6, 7].map((n) => `${n}\n`),
    );
  });
});

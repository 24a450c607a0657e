/** What an isolated action cannot do, shown by actions that try. */
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { afterAll, describe, expect, test } from 'vitest';
import { attacksOnInputs, tracesTheFirstProcess } from './attacks.ts';
import { attackedTree, isolatedSandbox, noBubblewrap, processesWith, type TestBlobs, testSandbox } from './support.ts';

/** Content, mode and times of every file of a store. */
function snapshot(blobs: TestBlobs) {
  return new Map(
    readdirSync(blobs.directory).map((name) => {
      const path = join(blobs.directory, name);
      const { mode, uid, mtimeMs, ino, size } = statSync(path);
      return [name, { content: readFileSync(path).toString('base64').slice(0, 100), mode, uid, mtimeMs, ino, size }];
    }),
  );
}

function changed(before: ReturnType<typeof snapshot>, after: ReturnType<typeof snapshot>): string[] {
  return [...before]
    .filter(([name, file]) => JSON.stringify(after.get(name)) !== JSON.stringify(file))
    .map(([name]) => name);
}

test('without isolation an action that attacks its inputs does not reach the store either', async () => {
  const t = await testSandbox({ bubblewrapPath: noBubblewrap });
  await t.sh('cat in/f', { tree: attackedTree });
  const before = snapshot(t.blobs);
  const ran = await t.sh(`${attacksOnInputs}\nexit 7`, {
    tree: attackedTree,
    command: { outputPaths: ['out/nothing'] },
  });
  expect(ran.exitCode).toBe(7);
  expect(changed(before, snapshot(t.blobs))).toEqual([]);
  expect(await t.sh('cat in/f here', { tree: attackedTree })).toMatchObject({ stdout: 'precious\nhere\n' });
});

const isolated = await isolatedSandbox();
describe.skipIf(!isolated)('an isolated action', () => {
  const t = isolated as NonNullable<typeof isolated>;
  const outside = mkdtempSync(join(tmpdir(), 'potluck-outside-'));
  writeFileSync(join(outside, 'secret'), 'secret', { mode: 0o644 });
  afterAll(() => rmSync(outside, { recursive: true }));

  test('cannot change a cached blob through its inputs, shared or private', async () => {
    await t.sh('cat in/f', { tree: attackedTree, command: { outputPaths: ['out/nothing'] } });
    const before = snapshot(t.blobs);
    const ran = await t.sh(`${attacksOnInputs}\nexit 7`, {
      tree: attackedTree,
      command: { outputPaths: ['out/nothing'] },
    });
    expect(ran.exitCode).toBe(7);
    expect(changed(before, snapshot(t.blobs))).toEqual([]);
    // The staged directory is used again, and is what it was.
    const again = await t.sh('cat in/f in/x; stat -c %s big; ls in', {
      tree: attackedTree,
      command: { outputPaths: ['out/nothing'] },
    });
    expect(again.stdout).toBe('precious\n#!/bin/sh\n2097152\nf\nx\n');
  });

  test('cannot change a stored output of its own through a file it held open or a hard link it kept', async () => {
    const ran = await t.sh(
      'echo good >out; ln out kept; (exec 3>>out; setsid sh -c "sleep 0.2; echo evil >&3" </dev/null >/dev/null 2>&1 &) ; :',
      { command: { outputPaths: ['out'] } },
    );
    expect(processesWith('echo evil')).toEqual([]);
    expect(t.blobs.text(ran.result.outputFiles[0]?.digest)).toBe('good\n');
  });

  test('as an ordinary user cannot change them either, nor start processes without end', async () => {
    const script = new URL('ordinary-user.ts', import.meta.url).pathname;
    if (!openToOthers(script)) return console.warn(`skipped: other users cannot reach ${script}`);
    const asUser = process.getuid?.() === 0 ? { uid: 65_533, gid: 65_533 } : {};
    const secret = openSync(join(outside, 'secret'), 'r');
    const child = spawn(process.execPath, [script], {
      ...asUser,
      env: { PATH: process.env['PATH'] ?? '', HOME: '/nonexistent' },
      // Files that happen to be open in the node are not for its actions.
      stdio: ['ignore', 'pipe', 'inherit', ...Array(17).fill('ignore'), secret, ...Array(179).fill('ignore'), secret],
    });
    closeSync(secret);
    const stdout = await text(child.stdout as Readable);
    const seen = JSON.parse(stdout);
    expect(seen).toMatchObject({ isolation: 'bubblewrap', exitCode: 7, unchanged: true, left: [] });
    expect(seen.inherited).not.toContain('secret');
    // Without a control group the kernel counts within the user namespace of the action.
    if (seen.limitsInForce.some((limit: string) => limit.includes('RLIMIT_NPROC')))
      expect(seen.processes).toBe('2048\n');
  });

  test('sees nothing of the home directories, the store, other actions or the run-time state of the machine', async () => {
    const { stdout } = await t.sh(
      `for path in ${homedir()} /root /home /run /var/lib /var/log /srv /mnt /media /sys /boot ${t.directory} ${outside} /etc/shadow /etc/ssh /etc/ssl/private; do
        test -e "$path" && echo "$path"; done; ls /tmp; ls -A "$HOME"; ls /; true`,
    );
    expect(stdout.split('\n').filter(Boolean).toSorted()).toEqual(
      expect.not.arrayContaining([homedir(), '/root', '/home', '/run', '/sys', t.directory, outside]),
    );
    expect(stdout.split('\n').filter((line) => line.includes('/'))).toEqual([]);
  });

  test('has hidden paths below the system covered', async () => {
    if (process.getuid?.() !== 0) return console.warn('skipped: only root can put a directory where programs are');
    const inside = mkdtempSync('/opt/potluck-hidden-');
    try {
      writeFileSync(join(inside, 'secret'), 'secret', { mode: 0o644 });
      const own = await isolatedSandbox({ hiddenPaths: [inside] });
      const { stdout } = await (own as NonNullable<typeof own>).sh(
        `ls ${inside}; touch ${inside}/x 2>/dev/null || echo sealed`,
      );
      expect(stdout).toBe('sealed\n');
    } finally {
      rmSync(inside, { recursive: true });
    }
  });

  test('can write nowhere but to its root, /tmp and /dev/shm', async () => {
    const { stdout } = await t.sh(
      `for directory in / /usr /usr/bin /usr/lib /bin /etc /etc/ssl /dev /var /proc /opt /execroot /tmp /dev/shm /var/tmp; do
        (touch $directory/probe) 2>/dev/null && echo $directory; done
      (chmod 0 /dev/null) 2>/dev/null && echo chmod; (echo 1 >/proc/sys/kernel/panic) 2>/dev/null && echo sysctl
      (echo core >/proc/sys/kernel/core_pattern) 2>/dev/null && echo core; (echo b >/proc/sysrq-trigger) 2>/dev/null && echo sysrq; true`,
    );
    expect(stdout.split('\n').filter(Boolean)).toEqual(['/execroot', '/tmp', '/dev/shm', '/var/tmp']);
  });

  test('has a private /tmp that is empty for the next action', async () => {
    await t.sh('echo mine >/tmp/mine; echo mine >/dev/shm/mine');
    expect((await t.sh('ls -A /tmp /dev/shm')).stdout).toBe('/dev/shm:\n\n/tmp:\n');
  });

  test('reaches its own loopback but neither the network nor sockets of the machine', async () => {
    const server = createServer((socket) => socket.end('reached'));
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as { port: number };
    const { stdout } = await t.sh(
      `cat >probe.sh <<'E'
       (exec 3<>/dev/tcp/127.0.0.1/${port}) 2>/dev/null && echo host
       (exec 3<>/dev/tcp/198.51.100.1/80) 2>/dev/null && echo world
       true
E
       bash probe.sh; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '`,
    );
    server.close();
    expect(stdout).toBe('lo\n');
  });

  test('has no capability, no other user and no way to a new user namespace', async () => {
    const { stdout } = await t.sh(
      'id -u; id -g; grep -E "Cap(Prm|Eff)|NoNewPrivs" /proc/self/status | tr "\\t" " "; hostname; unshare -Ur true 2>/dev/null && echo nested; true',
    );
    expect(stdout.trim().split('\n')).toEqual([
      '1000',
      '1000',
      'CapPrm: 0000000000000000',
      'CapEff: 0000000000000000',
      'NoNewPrivs: 1',
      'potluck',
    ]);
  });

  test('has no access to the keys that the kernel holds for the session of the node', async () => {
    const calls = ({ x64: [248, 250], arm64: [217, 219] } as Record<string, number[]>)[process.arch];
    if (!calls) return console.warn(`skipped: the system calls of ${process.arch} are not filtered`);
    const script = `my ($type, $name, $value) = ("user", "potluck", "secret");
    for my $key (-3, -4, -5) {
      print syscall(${calls[0]}, $type, $name, $value, 6, $key) < 0 ? "no " : "added ";
      print syscall(${calls[1]}, 6, $key, 0, 0) < 0 ? "no " : "described ";
    }`;
    const { stdout, exitCode } = await t.run({ command: { arguments: ['perl', '-e', script] } });
    if (exitCode === 127) return console.warn('skipped: there is no perl to try with');
    expect(stdout).toBe('no no no no no no ');
  });

  test('sees its own processes only, and can signal no other', async () => {
    const { stdout } = await t.sh(
      `ls /proc | grep -c '^[0-9]'; kill -9 ${process.pid} 2>/dev/null && echo killed; true`,
    );
    expect(Number(stdout)).toBeLessThanOrEqual(5);
  });

  test('always runs at the same path, under the same names', async () => {
    const script = 'pwd; hostname; id -un; echo $HOME; date +%Z';
    expect((await t.sh(script)).stdout).toBe('/execroot\npotluck\npotluck\n/tmp\nUTC\n');
    const tree = { a: { tree: { b: { tree: {} } } } };
    const deeper = await t.sh('pwd', { tree, command: { workingDirectory: 'a/b' } });
    expect(deeper.stdout).toBe('/execroot/a/b\n');
  });

  test('fork-bombs until a limit stops it, and is gone at its timeout', async () => {
    const ran = await t.sh('bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do sleep 3605; done', {
      timeoutMs: 400,
    });
    expect(ran.kind).toBe('timed-out');
    expect(processesWith('bomb()')).toEqual([]);
    expect((await t.sh('echo healthy')).stdout).toBe('healthy\n');
  }, 60_000);

  test('does not outlive its end by tracing the first process of its sandbox', async () => {
    const run = t.run({
      command: { arguments: ['perl', 'trace.pl'] },
      tree: { 'trace.pl': tracesTheFirstProcess },
      timeoutMs: 5_000,
    });
    const { stdout } = await run.catch(() => ({ stdout: 'traced\n' }));
    expect(processesWith('potluck-survivor')).toEqual([]);
    if (stdout !== 'traced\n') console.warn('skipped: tracing is not possible here, or not written for this processor');
  }, 30_000);

  test('cannot fill the memory or the disk of the machine through /tmp', async () => {
    const ran = await t.sh('df -k /tmp /dev/shm | tail -n +2 | tr -s " " | cut -d" " -f2');
    for (const kibibytes of ran.stdout.trim().split('\n').map(Number)) {
      expect(kibibytes).toBeGreaterThan(0);
      expect(kibibytes).toBeLessThanOrEqual(4 * 1024 * 1024);
    }
    expect((await t.sh('ulimit -c; ulimit -n; ulimit -f')).stdout).toBe(`0\n16384\n${(16 * 2 ** 30) / 512}\n`);
  });

  test('can find and use the compilers of the system', async () => {
    const probe = await t.sh('command -v cc || echo none');
    if (probe.stdout === 'none\n') return console.warn('skipped, there is no C compiler to try');
    const ran = await t.sh('cc -o out/hello hello.c && out/hello', {
      tree: { 'hello.c': '#include <stdio.h>\nint main(void) { puts("compiled"); return 0; }\n' },
      command: { outputPaths: ['out/hello'] },
    });
    expect(ran).toMatchObject({ exitCode: 0, stdout: 'compiled\n', stderr: '' });
    expect(ran.result.outputFiles[0]?.isExecutable).toBe(true);
  });

  test('leaves nothing on disk, whatever it made of its directory', async () => {
    const own = (await isolatedSandbox()) as NonNullable<typeof isolated>;
    const nest = 'n=$(printf "%0250d" 0); for i in $(seq 20); do mkdir $n; cd $n; done';
    await own.sh(`mkdir -p locked/a/b; chmod 0 locked/a locked; touch "$(printf '\\376')"; ${nest}; true`);
    await own.sandbox.close();
    expect(readdirSync(join(own.directory, 'work', 'trash'))).toEqual([]);
  });
});

test('as root, a node whose parents are closed to others still isolates', async () => {
  if (process.getuid?.() !== 0) return console.warn('skipped: only root has this problem');
  const closed = mkdtempSync(join(tmpdir(), 'potluck-closed-'));
  mkdirSync(join(closed, 'work'));
  try {
    const t = await isolatedSandbox({ workDir: join(closed, 'work') });
    if (!t) return;
    const ran = await t.sh('cat in/f', { tree: attackedTree, command: { outputPaths: ['o'] } });
    expect(ran.stdout).toBe('precious\n');
    const elsewhere = readdirSync('/var/tmp').filter((name) => originOf(name) === join(closed, 'work'));
    expect(elsewhere).toHaveLength(1);
    await t.sandbox.close();
    expect(readdirSync('/var/tmp')).not.toContain(elsewhere[0]);
  } finally {
    rmSync(closed, { recursive: true });
  }
});

function originOf(name: string): string | undefined {
  try {
    return readFileSync(join('/var/tmp', name, 'origin'), 'utf8');
  } catch {
    return undefined;
  }
}

function openToOthers(path: string): boolean {
  const above = dirname(path);
  return above === path || ((statSync(above).mode & 0o001) !== 0 && openToOthers(above));
}

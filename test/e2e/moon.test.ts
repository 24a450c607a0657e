/** moon keeps and restores task outputs through the node's cache: gRPC with zstd, and HTTP with JSON results. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { startNode } from '../support/node-process.ts';
import { capture } from './bazel.ts';

function findMoon(): string | undefined {
  const require = createRequire(import.meta.url);
  for (const name of ['core-linux-x64-gnu', 'core-linux-arm64-gnu', 'core-macos-arm64', 'core-macos-x64']) {
    try {
      const program = join(dirname(require.resolve(`@moonrepo/${name}/package.json`)), 'moon');
      accessSync(program, constants.X_OK);
      return program;
    } catch {
      continue;
    }
  }
  return undefined;
}

const moon = findMoon();
if (!moon) console.warn('not checked: moon: npm has no moon for this platform');

/** Two projects; one output is larger than a batch may be, so that it travels by ByteStream. */
async function writeWorkspace(dir: string, host: string): Promise<void> {
  await mkdir(join(dir, '.moon'), { recursive: true });
  await writeFile(
    join(dir, '.moon/workspace.yml'),
    `projects: ['a', 'b']\nvcs: {defaultBranch: main}\ntelemetry: false\nremote:\n  host: '${host}'\n` +
      `  cache: {compression: zstd, verifyIntegrity: true, instanceName: moon-outputs}\n`,
  );
  for (const name of ['a', 'b']) {
    await mkdir(join(dir, name));
    await writeFile(
      join(dir, name, 'moon.yml'),
      `tasks: {build: {command: 'sh gen.sh', inputs: ['gen.sh', 'src.txt'], outputs: ['out']}}\n`,
    );
    await writeFile(join(dir, name, 'src.txt'), `source of ${name}\n`);
    await writeFile(
      join(dir, name, 'gen.sh'),
      'mkdir -p out/sub\nfor i in 1 2 3 4 5 6 7 8 9 10; do cat src.txt > out/sub/$i.txt; done\n' +
        'head -c 6000000 /dev/urandom > out/large.bin\ncp gen.sh out/tool.sh\nchmod +x out/tool.sh\necho built\n',
    );
  }
  for (const args of [
    ['init', '-q', '-b', 'main'],
    ['add', '-A'],
    ['-c', 'user.name=t', '-c', 'user.email=t@example.org', 'commit', '-qm', 'start'],
  ]) {
    execFileSync('git', args, { cwd: dir });
  }
}

describe.skipIf(!moon)('moon', () => {
  test.for(['grpc', 'http'] as const)(
    'stores and restores task outputs over %s',
    { timeout: 120_000 },
    async (scheme) => {
      await using node = await startNode();
      const dir = await mkdtemp(join(tmpdir(), 'potluck-moon-'));
      try {
        const host = scheme === 'grpc' ? `grpc://${node.grpc}` : `http://${node.http}`;
        await writeWorkspace(dir, host);
        const env = {
          ...process.env,
          MOON_TOOLCHAIN_FORCE_GLOBALS: '1',
          CI: '',
          MOON_REMOTE_API: scheme,
          MOON_REMOTE_HOST: host,
        };
        const run = () => capture(moon as string, ['run', 'a:build', 'b:build'], { cwd: dir, env });

        const cold = await run();
        expect(cold.exitCode, cold.output).toBe(0);
        const large = await readFile(join(dir, 'a/out/large.bin'));
        for (const gone of ['.moon/cache', 'a/out', 'b/out']) await rm(join(dir, gone), { recursive: true });

        const warm = await run();
        expect(warm.exitCode, warm.output).toBe(0);
        expect(warm.output).toContain('cached');
        // The bytes are random, so equal bytes can only have come from the cache.
        expect((await readFile(join(dir, 'a/out/large.bin'))).equals(large)).toBe(true);
        expect(await readFile(join(dir, 'b/out/sub/7.txt'), 'utf8')).toBe('source of b\n');
        expect((await stat(join(dir, 'a/out/tool.sh'))).mode & 0o111).not.toBe(0);
      } finally {
        await rm(dir, { recursive: true, force: true });
      }
    },
  );
});

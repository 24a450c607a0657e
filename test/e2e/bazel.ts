/** Drives a real Bazel: one workspace, one output root, one server, all gone at the end. */
import { type SpawnOptions, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, chmodSync, existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { writeCppProject } from './cpp-project.ts';

export interface BazelVersion {
  readonly name: string;
  readonly rules: { readonly from: 'stubs' } | { readonly from: 'debian' };
  /** Why this one cannot run here; undefined when it can. */
  readonly missing: string | undefined;
  readonly program: string;
}

function npmBazel(): BazelVersion {
  const rules = { from: 'stubs' } as const;
  const name = 'Bazel 2.1.0';
  try {
    const require = createRequire(import.meta.url);
    const home = dirname(require.resolve('@bazel/bazel-linux_x64/package.json'));
    return { name, rules, missing: compilerMissing(), program: join(home, 'bazel-2.1.0-linux-x86_64') };
  } catch {
    return { name, rules, missing: 'npm package @bazel/bazel-linux_x64 is for Linux on x86-64 only', program: '' };
  }
}

function debianBazel(): BazelVersion {
  const found = existsSync('/usr/share/bazel/rules/cc') && existsSync('/usr/bin/bazel');
  return {
    name: 'Bazel 4.2.3',
    rules: { from: 'debian' },
    missing: found
      ? compilerMissing()
      : 'install it with: apt-get install bazel-bootstrap bazel-platforms bazel-rules-cc bazel-rules-java bazel-rules-proto bazel-skylib',
    program: '/usr/bin/bazel',
  };
}

function compilerMissing(): string | undefined {
  try {
    execFileSync('g++', ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'no C++ compiler; install it with: apt-get install g++';
  }
}

export const bazelVersions: readonly BazelVersion[] = [npmBazel(), debianBazel()];

export interface BazelRun {
  readonly exitCode: number | null;
  readonly output: string;
  /** Spawns by how they were done, from the closing line: `{ 'remote cache hit': 102, remote: 3, internal: 17 }`. */
  readonly processes: Readonly<Record<string, number>>;
}

export interface Bazel extends AsyncDisposable {
  readonly workspace: string;
  run(args: readonly string[], options?: { readonly timeoutMs?: number }): Promise<BazelRun>;
  /** SHA-256 (or link target) of every output under bazel-bin, by path; run files and parameter files aside. */
  outputs(): Promise<Map<string, string>>;
}

/** A fresh workspace with the C++ project in it. `dispose` shuts the Bazel server down and removes everything. */
export async function openBazel(
  version: BazelVersion,
  /** Begins every command line, for a build on another host of a network lab. */
  prefix: readonly string[] = [],
): Promise<Bazel> {
  const root = await mkdtemp(join(tmpdir(), 'potluck-bazel-'));
  const workspace = join(root, 'demo');
  await mkdir(workspace);
  const rc = await writeCppProject(workspace, version.rules);
  let program = version.program;
  if (version.rules.from === 'stubs') {
    // npm does not keep the executable bit.
    program = join(root, 'bazel');
    copyFileSync(version.program, program);
    chmodSync(program, 0o755);
  }
  // Debian's build finds its own parts through its system rc file.
  const start = [`--output_user_root=${join(root, 'out')}`, `--bazelrc=${rc}`, '--nohome_rc'];
  const run: Bazel['run'] = async (args, options = {}) => {
    const [command = '', ...commandArgs] = [...prefix, program, ...start, ...args];
    const { exitCode, output } = await capture(command, commandArgs, {
      cwd: workspace,
      timeout: options.timeoutMs ?? 240_000,
    });
    return { exitCode, output, processes: parseProcesses(output) };
  };
  return {
    workspace,
    run,
    async outputs() {
      const found = new Map<string, string>();
      const bin = join(workspace, 'bazel-bin');
      for (const entry of await readdir(bin, { recursive: true, withFileTypes: true })) {
        const path = join(entry.parentPath, entry.name).slice(bin.length + 1);
        if (/\.runfiles|\.params$|runfiles_manifest$|^external\//.test(path)) continue;
        if (entry.isFile())
          found.set(
            path,
            createHash('sha256')
              .update(readFileSync(join(bin, path)))
              .digest('hex'),
          );
        else if (entry.isSymbolicLink() && !path.startsWith('_solib')) {
          // What Bazel itself links into its own tree is a path of this output root; links in outputs are relative.
          const target = await readlink(join(bin, path));
          if (!target.startsWith('/')) found.set(path, `-> ${target}`);
          else
            found.set(
              path,
              createHash('sha256')
                .update(await readFile(join(bin, path)))
                .digest('hex'),
            );
        }
      }
      return found;
    },
    async [Symbol.asyncDispose]() {
      await run(['shutdown'], { timeoutMs: 30_000 });
      // Bazel takes the right to write from its outputs, which only root does not need to delete them.
      execFileSync('chmod', ['-R', 'u+w', root]);
      await rm(root, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

function parseProcesses(output: string): Record<string, number> {
  const line = [...output.matchAll(/INFO: \d+ process(?:es)?: (.*)\./g)].at(-1)?.[1] ?? '';
  return Object.fromEntries(
    line.split(', ').flatMap((part) => {
      const match = /^(\d+) (.+)$/.exec(part);
      return match ? [[match[2] as string, Number(match[1])]] : [];
    }),
  );
}

/** Runs a program to its end and collects what it printed, stdout and stderr together. */
export function capture(
  program: string,
  args: readonly string[],
  options: SpawnOptions,
): Promise<{ exitCode: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr?.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.on('error', reject);
    child.on('close', (exitCode) => resolve({ exitCode, output }));
  });
}

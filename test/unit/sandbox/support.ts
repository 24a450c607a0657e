/** A small store in a directory, builders of input trees, and a sandbox for one suite. */
import {
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { afterAll } from 'vitest';
import {
  type Digest,
  type DigestFunction,
  digestFunctions,
  digestKey,
  fromWireDigest,
  isEmptyDigest,
  toWireDigest,
} from '../../../protos/digest.ts';
import {
  ActionSchema,
  type ActionResult,
  CommandSchema,
  type Digest as WireDigest,
  DirectorySchema,
  type NodePropertiesSchema,
  TreeSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { PreconditionFailureSchema } from '../../../protos/gen/google/rpc/error_details_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import type { StatusError } from '../../../protos/status.ts';
import { createSandbox, type CreateSandboxOptions, type LocalSandbox } from '../../../sandbox/create-sandbox.ts';
import type { SandboxBlobs, SandboxOptions, SandboxTask } from '../../../sandbox/sandbox.ts';

export interface TestBlobs extends SandboxBlobs {
  readonly directory: string;
  add(bytes: Uint8Array | string, fn?: DigestFunction): Digest;
  pathOf(digest: Digest): string;
  drop(digest: Digest): void;
  text(digest: WireDigest | undefined, fn?: DigestFunction): string;
  bytes(digest: WireDigest | undefined, fn?: DigestFunction): Uint8Array;
  readonly calls: Record<string, number>;
}

/** One read-only file per blob, as a store keeps them. */
export function createTestBlobs(directory: string): TestBlobs {
  mkdirSync(directory, { recursive: true });
  const calls: Record<string, number> = {};
  const count = (name: string) => {
    calls[name] = (calls[name] ?? 0) + 1;
  };
  const pathOf = (digest: Digest) => join(directory, digestKey(digest).replaceAll('/', '-'));
  const has = (digest: Digest) => isEmptyDigest(digest) || existsSync(pathOf(digest));
  const add = (bytes: Uint8Array | string, fn: DigestFunction = 'sha256') => {
    const whole = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    const digest = digestOf(fn, whole);
    if (!existsSync(pathOf(digest))) writeFileSync(pathOf(digest), whole, { mode: 0o444 });
    return digest;
  };
  const local = (wire: WireDigest | undefined, fn: DigestFunction) => fromWireDigest(wire, digestFunctions[fn].wire);
  const blobs: TestBlobs = {
    directory,
    calls,
    add,
    pathOf,
    drop: (digest) => rmSync(pathOf(digest)),
    bytes: (wire, fn = 'sha256') => readFileSync(pathOf(local(wire, fn))),
    text: (wire, fn) => Buffer.from(blobs.bytes(wire, fn)).toString(),
    async get(digest) {
      count('get');
      if (isEmptyDigest(digest)) return new Uint8Array();
      return has(digest) ? readFileSync(pathOf(digest)) : undefined;
    },
    async missing(digests) {
      count('missing');
      return digests.filter((digest) => !has(digest));
    },
    async copyTo(digest, path, { executable }) {
      count('copyTo');
      if (!has(digest)) return false;
      if (isEmptyDigest(digest)) writeFileSync(path, '', { flag: 'wx' });
      else copyFileSync(pathOf(digest), path, constants.COPYFILE_EXCL);
      chmodSync(path, executable ? 0o755 : 0o644);
      return true;
    },
    async linkTo(digest, path, { executable }) {
      count('linkTo');
      if (!has(digest)) return false;
      if (isEmptyDigest(digest)) add('', digest.fn);
      const variant = executable ? `${pathOf(digest)}-x` : pathOf(digest);
      if (!existsSync(variant)) {
        copyFileSync(pathOf(digest), variant);
        chmodSync(variant, 0o555);
      }
      linkSync(variant, path);
      return true;
    },
    async putFile(fn, path, options) {
      count('putFile');
      const digest = digestOf(fn, readFileSync(path));
      if (existsSync(pathOf(digest))) return digest;
      if (options?.move) renameSync(path, pathOf(digest));
      else copyFileSync(path, pathOf(digest));
      chmodSync(pathOf(digest), 0o444);
      return digest;
    },
    async putAll(all) {
      count('putAll');
      for (const { bytes, digest } of all) add(bytes, digest.fn);
    },
  };
  return blobs;
}

export type Tree = {
  readonly [name: string]:
    | string
    | Uint8Array
    | { readonly link: string }
    | {
        readonly content: string | Uint8Array;
        readonly executable?: boolean;
        readonly properties?: MessageInitShape<typeof NodePropertiesSchema>;
      }
    | { readonly tree: Tree; readonly properties?: MessageInitShape<typeof NodePropertiesSchema> };
};

/** Stores a tree given as an object; the digest of its root. */
export function addTree(
  blobs: TestBlobs,
  tree: Tree,
  fn: DigestFunction = 'sha256',
  properties?: MessageInitShape<typeof NodePropertiesSchema>,
): Digest {
  const directory = create(DirectorySchema, properties ? { nodeProperties: properties } : {});
  const names = Object.keys(tree).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  for (const name of names) {
    const entry = tree[name] as Tree[string];
    if (typeof entry === 'object' && 'link' in entry) {
      directory.symlinks.push(create(DirectorySchema, { symlinks: [{ name, target: entry.link }] }).symlinks[0]!);
    } else if (typeof entry === 'object' && 'tree' in entry) {
      const digest = toWireDigest(addTree(blobs, entry.tree, fn, entry.properties));
      directory.directories.push(create(DirectorySchema, { directories: [{ name, digest }] }).directories[0]!);
    } else {
      const file = typeof entry === 'object' && 'content' in entry ? entry : { content: entry };
      const digest = toWireDigest(blobs.add(file.content, fn));
      const nodeProperties = 'properties' in file && file.properties ? { nodeProperties: file.properties } : {};
      const isExecutable = 'executable' in file && file.executable === true;
      directory.files.push(
        create(DirectorySchema, { files: [{ name, digest, isExecutable, ...nodeProperties }] }).files[0]!,
      );
    }
  }
  return blobs.add(toBinary(DirectorySchema, directory), fn);
}

export interface TestRun extends Partial<Omit<SandboxTask, 'command' | 'action'>> {
  readonly command: MessageInitShape<typeof CommandSchema>;
  readonly tree?: Tree;
  readonly options?: Partial<SandboxOptions>;
}

export interface TestSandbox {
  readonly sandbox: LocalSandbox;
  readonly blobs: TestBlobs;
  readonly directory: string;
  run(run: TestRun): Promise<TestResult>;
  /** Runs a shell script with PATH as a client would. */
  sh(script: string, run?: Partial<TestRun>): Promise<TestResult>;
}

export interface TestResult {
  readonly kind: 'exited' | 'timed-out';
  readonly result: ActionResult;
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

const cleanups: (() => Promise<void>)[] = [];
// Registered here and not where a sandbox is made, which may be inside a test. Scripts use this file without a runner.
if (process.env['VITEST']) {
  afterAll(async () => {
    for (const cleanUp of cleanups) await cleanUp();
  });
}

/** A sandbox over a store of its own; both go when the suite ends. */
export async function testSandbox(options: Partial<CreateSandboxOptions> = {}): Promise<TestSandbox> {
  const directory = mkdtempSync(join(tmpdir(), 'potluck-sandbox-'));
  chmodSync(directory, 0o755);
  const blobs = createTestBlobs(join(directory, 'blobs'));
  const override = process.env['POTLUCK_BWRAP'];
  const sandbox = await createSandbox({
    workDir: join(directory, 'work'),
    blobs,
    ...(override ? { bubblewrapPath: override } : {}),
    ...options,
  });
  cleanups.push(async () => {
    await sandbox.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const run = async ({ command, tree = {}, options = {}, ...task }: TestRun): Promise<TestResult> => {
    const fn = task.fn ?? 'sha256';
    const { kind, result } = await sandbox.run(
      {
        fn,
        action: create(ActionSchema),
        command: create(CommandSchema, command),
        inputRoot: addTree(blobs, tree, fn),
        timeoutMs: 30_000,
        ...task,
      },
      { signal: new AbortController().signal, ...options },
    );
    return {
      kind,
      result,
      exitCode: result.exitCode,
      stdout: result.stdoutDigest ? blobs.text(result.stdoutDigest, fn) : '',
      stderr: result.stderrDigest ? blobs.text(result.stderrDigest, fn) : '',
    };
  };
  return {
    sandbox,
    blobs,
    directory,
    run,
    sh: (script, { command, ...rest } = {}) =>
      run({ command: { arguments: ['/bin/sh', '-c', script], ...command }, ...rest }),
  };
}

/** An isolated sandbox, or the printed reason why a suite is skipped. */
export async function isolatedSandbox(options: Partial<CreateSandboxOptions> = {}): Promise<TestSandbox | undefined> {
  const made = await testSandbox(options);
  const { isolation, isolationReason } = made.sandbox.describe();
  if (isolation === 'bubblewrap') return made;
  console.warn(`skipped, isolation cannot be checked here: ${isolationReason}`);
  return undefined;
}

/** For the plain runner: no program has this name. */
export const noBubblewrap = '/nonexistent/bwrap';

/** Numbers of the living processes whose command line contains `text`; of all there are where /proc is missing. */
export function processesWith(text: string): number[] {
  if (!existsSync('/proc/self')) return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((name) => {
      try {
        return readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(text);
      } catch {
        return false;
      }
    })
    .map(Number);
}

export function readTree(blobs: TestBlobs, digest: WireDigest | undefined) {
  return fromBinary(TreeSchema, blobs.bytes(digest));
}

/** The subjects of the violations of type MISSING. */
export function missingSubjects(error: StatusError | undefined): string[] {
  return (error?.details ?? []).flatMap((detail) =>
    (anyUnpack(detail, PreconditionFailureSchema)?.violations ?? [])
      .filter(({ type }) => type === 'MISSING')
      .map(({ subject }) => subject),
  );
}

/** One input of each way of staging: shared, executable, large enough to be mounted by itself, and copied. */
export const attackedTree: Tree = {
  in: { tree: { f: 'precious\n', x: { content: '#!/bin/sh\n', executable: true } } },
  big: 'B'.repeat(2 * 1024 * 1024),
  here: 'here\n',
};

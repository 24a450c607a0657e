/** Compares results made of real files: what gcc and ar write, where they are installed. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { compareArchives } from '../../../../../node/builds/audit/archives.ts';
import { firstDifference, sourceOf } from '../../../../../node/builds/audit/bytes.ts';
import { type Comparison, compareResults, fingerprint } from '../../../../../node/builds/audit/compare.ts';
import { archiveMembersMax, chunkBytes, nameCharsMax, outputsMax } from '../../../../../node/builds/audit/limits.ts';
import { compareObjects } from '../../../../../node/builds/audit/objects.ts';
import type { BlobReader, BlobStore } from '../../../../../node/storage/blob-store.ts';
import { type Digest, digestKey, toWireDigest } from '../../../../../protos/digest.ts';
import {
  type ActionResult,
  ActionResultSchema,
  DirectorySchema,
  TreeSchema,
} from '../../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../../../protos/hasher.ts';

const fn = 'sha256';
const held = new Map<string, Uint8Array>();

/** As the store hands blobs out: in small chunks, by range. */
const blobs: Pick<BlobStore, 'get' | 'open'> = {
  get: async (digest) => held.get(digestKey(digest)),
  async open(digest): Promise<BlobReader | undefined> {
    const bytes = held.get(digestKey(digest));
    if (!bytes) return undefined;
    return {
      digest,
      async *read(range = { offset: 0, length: bytes.byteLength }) {
        const end = Math.min(bytes.byteLength, range.offset + range.length);
        for (let at = range.offset; at < end; at += 1_000) yield bytes.subarray(at, Math.min(end, at + 1_000));
      },
      [Symbol.asyncDispose]: async () => {},
    };
  },
};

function hold(bytes: Uint8Array | string): Digest {
  const content = Buffer.from(bytes);
  const digest = digestOf(fn, content);
  held.set(digestKey(digest), content);
  return digest;
}

function resultOf(files: Record<string, Uint8Array | string>, more: Partial<ActionResult> = {}): ActionResult {
  const outputFiles = Object.entries(files).map(([path, bytes]) => ({ path, digest: toWireDigest(hold(bytes)) }));
  return create(ActionResultSchema, { ...more, outputFiles } as never);
}

function compare(one: ActionResult, other: ActionResult): Promise<Comparison> {
  return compareResults(blobs, fn, one, other);
}

describe('results', () => {
  test('equal ones are equal, in whatever order outputs are listed and whoever ran them', async () => {
    const one = resultOf({ a: 'x', b: 'y' }, { executionMetadata: { worker: 'anna' } as never });
    const other = resultOf({ b: 'y', a: 'x' }, { executionMetadata: { worker: 'ben' } as never });
    expect(await compare(one, other)).toEqual({ differences: [], streams: [], more: 0 });
    expect(fingerprint(fn, one)).toBe(fingerprint(fn, other));
  });

  test('the first differing byte is told with what is around it', async () => {
    const start = 'x'.repeat(chunkBytes + 12_345);
    const one = resultOf({ out: `${start}0123 and so on` });
    const other = resultOf({ out: `${start}0173 and so on` });
    const { differences } = await compare(one, other);
    expect(differences).toEqual([
      {
        output: 'out',
        what: 'contents differ',
        sizes: [chunkBytes + 12_359, chunkBytes + 12_359],
        first: {
          offset: chunkBytes + 12_347,
          one: '78 78 78 78 78 78 30 31 [32] 33 20 61 6e 64 20 73 6f 20 6f 6e',
          other: '78 78 78 78 78 78 30 31 [37] 33 20 61 6e 64 20 73 6f 20 6f 6e',
        },
      },
    ]);
    expect(fingerprint(fn, one)).not.toBe(fingerprint(fn, other));
  });

  test('a file that is the beginning of the other differs where it ends', async () => {
    const { differences } = await compare(resultOf({ out: 'abc' }), resultOf({ out: 'abcd' }));
    expect(differences[0]?.first).toEqual({ offset: 3, one: '61 62 63 [end]', other: '61 62 63 [64]' });
  });

  test('exit codes, missing outputs, kinds, symlinks and permissions are told', async () => {
    const one = create(ActionResultSchema, {
      exitCode: 0,
      outputFiles: [
        { path: 'gone', digest: toWireDigest(hold('1')) },
        { path: 'tool', digest: toWireDigest(hold('2')), isExecutable: true },
        { path: 'kind', digest: toWireDigest(hold('3')) },
      ],
      outputSymlinks: [{ path: 'link', target: 'there' }],
    });
    const other = create(ActionResultSchema, {
      exitCode: 1,
      outputFiles: [{ path: 'tool', digest: toWireDigest(hold('2')) }],
      outputSymlinks: [
        { path: 'link', target: 'elsewhere' },
        { path: 'kind', target: 'x' },
        { path: 'new', target: 'y' },
      ],
    });
    const { differences } = await compare(one, other);
    expect(differences.map(({ output, what }) => `${output}: ${what}`)).toEqual([
      'exit code: 0, then 1',
      'gone: only in the first',
      'tool: executable, then not',
      'kind: a file, then a symlink',
      'link: a symlink to there, then to elsewhere',
      'new: only in the second',
    ]);
  });

  test('files inside output directories are compared one by one', async () => {
    const treeOf = (text: string) => {
      const below = create(DirectorySchema, { files: [{ name: 'deep', digest: toWireDigest(hold(text)) }] });
      const digest = toWireDigest(hold(toBinary(DirectorySchema, below)));
      const files = [{ name: 'same', digest: toWireDigest(hold('same')) }];
      const root = create(DirectorySchema, { files, directories: [{ name: 'below', digest }] });
      const treeDigest = toWireDigest(hold(toBinary(TreeSchema, create(TreeSchema, { root, children: [below] }))));
      return create(ActionResultSchema, { outputDirectories: [{ path: 'dir', treeDigest }] });
    };
    const { differences } = await compare(treeOf('one'), treeOf('two'));
    expect(differences.map(({ output }) => output)).toEqual(['dir/below/deep']);
  });

  test('what was printed is told apart: it makes no mismatch', async () => {
    const one = resultOf({ a: 'x' }, { stdoutDigest: toWireDigest(hold('took 1 s')) as never });
    const other = resultOf({ a: 'x' }, { stdoutDigest: toWireDigest(hold('took 2 s')) as never });
    const { differences, streams } = await compare(one, other);
    expect(differences).toEqual([]);
    expect(streams).toMatchObject([{ output: 'stdout', first: { offset: 5 } }]);
    expect(fingerprint(fn, one)).toBe(fingerprint(fn, other));
  });

  test('only so many outputs are told', async () => {
    const files = (text: string) =>
      Object.fromEntries(Array.from({ length: outputsMax + 7 }, (_, at) => [`f${at}`, text]));
    const { differences, more } = await compare(resultOf(files('a')), resultOf(files('b')));
    expect([differences.length, more]).toEqual([outputsMax, 7]);
  });
});

function isInstalled(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

const hasTools = isInstalled('gcc') && isInstalled('ar');
if (!hasTools) console.warn('gcc and ar are not installed: comparing what they write is not tested');

describe('files made to waste time or memory', () => {
  const header = (name: string, size: number): string =>
    `${name.padEnd(16)}${'0'.padEnd(12)}${'0'.padEnd(6)}${'0'.padEnd(6)}${'0'.padEnd(8)}${String(size).padEnd(10)}\`\n`;
  const archive = (...parts: string[]) => sourceOf(Buffer.from(`!<arch>\n${parts.join('')}`, 'latin1'));

  test('a name is no longer than its member, and cut where it is too long to show', async () => {
    expect(await compareArchives(archive(header('#1/9999999', 0)), archive(header('x/', 0)))).toBeUndefined();
    const long = 'n'.repeat(100_000);
    const lines = await compareArchives(archive(header(`#1/${long.length}`, long.length), long), archive());
    expect(lines?.[0]?.length).toBeLessThan(nameCharsMax + 100);
  });

  test('thousands of members of one name are told apart at once', async () => {
    const many = archive(header('x/', 0).repeat(archiveMembersMax));
    expect(await compareArchives(many, archive())).toHaveLength(archiveMembersMax);
  });

  test('sections on top of each other are not all read: the files differ, and no more is said', async () => {
    const object = (sections: number, content: number, last: number): Buffer => {
      const table = 64 + content;
      const file = Buffer.alloc(table + 64 * (sections + 1));
      file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
      file.writeBigUInt64LE(BigInt(table), 0x28);
      file.writeUInt16LE(64, 0x3a);
      file.writeUInt16LE(sections + 1, 0x3c);
      for (let at = 1; at <= sections; at += 1) {
        file.writeBigUInt64LE(64n, table + 64 * at + 0x18);
        file.writeBigUInt64LE(BigInt(content), table + 64 * at + 0x20);
      }
      file[file.byteLength - 1] = last;
      return file;
    };
    const [one, other] = [object(500, 1_000_000, 0), object(500, 1_000_000, 1)];
    const { differences } = await compare(resultOf({ out: one }), resultOf({ out: other }));
    expect(differences).toMatchObject([{ output: 'out', what: 'contents differ' }]);
    expect(differences[0]?.summary).toBeUndefined();
  });
});

describe.runIf(hasTools)('archives and objects', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'potluck-compare-'));
  });
  afterEach(() => rm(dir, { recursive: true }));

  const run = (program: string, ...args: string[]): void =>
    void execFileSync(program, args, { cwd: dir, stdio: ['ignore', 'ignore', 'inherit'] });
  const read = async (name: string) => sourceOf(await readFile(join(dir, name)));

  async function compile(source: string, output: string, ...flags: string[]) {
    await writeFile(join(dir, 'a.c'), source);
    run('gcc', ...flags, 'a.c', '-o', output);
    return read(output);
  }

  test('an archive with times in it is told from one with another member', async () => {
    const long = 'a-member-whose-name-is-longer-than-fits.o';
    const names = ['first.o', long];
    for (const name of names) await compile(`int f_${name.length}(void) { return 1; }`, name, '-c');
    const pack = async (archive: string, seconds: number) => {
      for (const name of names) await utimes(join(dir, name), seconds, seconds);
      run('ar', 'crUS', archive, ...names);
      return read(archive);
    };
    const one = await pack('one.a', 1_700_000_000);
    const later = await pack('later.a', 1_700_000_077);
    expect(await compareArchives(one, one)).toEqual([]);
    expect(await compareArchives(one, later)).toEqual(
      ['first.o', long].map((name) => `member ${name}: timestamp 1700000000 in the first, 1700000077 in the second`),
    );
    await compile('int f_7(void) { return 2; }', 'first.o', '-c');
    const changed = await pack('changed.a', 1_700_000_000);
    const lines = await compareArchives(one, changed);
    expect(lines).toHaveLength(1);
    expect(lines?.[0]).toMatch(/^member first\.o: contents differ from byte \d+ on$/);
  });

  test('objects are told apart by section', async () => {
    const one = await compile('int f(void) { return 1; }', 'one.o', '-c');
    const other = await compile('int f(void) { return 2; }', 'two.o', '-c');
    expect(await compareObjects(one, one)).toEqual(['all sections are equal; headers or padding differ']);
    expect(await compareObjects(one, other)).toEqual([
      expect.stringMatching(/^section \.text: differs from byte \d+ on$/),
    ]);
  });

  test('a moment in a program is found, and the build id named as what follows from it', async () => {
    const source = (moment: string) => `const char built[] = "built at ${moment}"; int main(void) { return built[0]; }`;
    const one = await compile(source('12:00:01'), 'one', '-Wl,--build-id');
    const other = await compile(source('12:00:59'), 'two', '-Wl,--build-id');
    const lines = await compareObjects(one, other);
    expect(lines).toContainEqual(expect.stringMatching(/^section \.rodata: differs from byte \d+ on$/));
    expect(lines).toContainEqual(
      expect.stringMatching(/^build id [0-9a-f]{40}, in the second [0-9a-f]{40}: it follows/),
    );
    const first = await firstDifference(one, other);
    expect(first).toBeDefined();
    const { differences } = await compare(
      resultOf({ one: await bytesOf('one') }),
      resultOf({ one: await bytesOf('two') }),
    );
    expect(differences[0]?.summary).toEqual(lines);
  });

  test('what is no archive and no object, or a torn one, is compared as bytes', async () => {
    const whole = await compile('int f(void) { return 1; }', 'one.o', '-c');
    const bytes = await bytesOf('one.o');
    for (const torn of [
      '',
      'plain text',
      '!<arch>\ngarbage'.padEnd(200, 'x'),
      '\x7fELF',
      bytes.subarray(0, 80),
      bytes.subarray(0, 700),
    ]) {
      const source = sourceOf(Buffer.from(torn));
      await expect(compareArchives(source, whole)).resolves.toBeUndefined();
      await expect(compareObjects(source, source)).resolves.toSatisfy(
        (lines) => lines === undefined || Array.isArray(lines),
      );
    }
  });

  function bytesOf(name: string): Promise<Buffer> {
    return readFile(join(dir, name));
  }
});

/** What becomes of the files, directories, links and oddities a command leaves behind. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { afterAll, describe, expect, test } from 'vitest';
import { digestKey, fromWireDigest } from '../../../protos/digest.ts';
import {
  Command_OutputDirectoryFormat,
  DigestFunction_Value,
  type Directory,
  DirectorySchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../protos/hasher.ts';
import { noBubblewrap, readTree, testSandbox } from './support.ts';

const t = await testSandbox();
const outside = mkdtempSync(join(tmpdir(), 'potluck-outside-'));
writeFileSync(join(outside, 'secret'), 'secret of the host');
afterAll(() => rmSync(outside, { recursive: true }));

describe('files', () => {
  test('carry their content and whether they are executable', async () => {
    const { result } = await t.sh('echo a >a; echo b >b; chmod 755 b; chmod 611 a', {
      command: { outputPaths: ['a', 'b', 'never-made', 'never/made'] },
    });
    expect(result.outputFiles.map(({ path, isExecutable }) => [path, isExecutable])).toEqual([
      ['a', false],
      ['b', true],
    ]);
    expect(result.outputFiles.every(({ nodeProperties }) => nodeProperties === undefined)).toBe(true);
  });

  test('are found relative to the working directory', async () => {
    const { result } = await t.sh('echo x >here; echo y >sub/there', {
      tree: { w: { tree: { d: { tree: {} } } } },
      command: { workingDirectory: 'w/d', outputPaths: ['here', 'sub/there'] },
    });
    expect(result.outputFiles.map(({ path }) => path)).toEqual(['here', 'sub/there']);
  });

  test('are stored even when nobody may read them', async () => {
    const { result } = await t.sh('echo x >f; mkdir -p d/e; echo y >d/e/g; chmod 0 f d/e/g d/e d', {
      command: { outputPaths: ['f', 'd'] },
    });
    expect(t.blobs.text(result.outputFiles[0]?.digest)).toBe('x\n');
    const { children } = readTree(t.blobs, result.outputDirectories[0]?.treeDigest);
    expect(t.blobs.text(children[0]?.files[0]?.digest)).toBe('y\n');
  });

  test('may replace an input of the same name', async () => {
    const { result } = await t.sh('echo new >f; echo new >big', {
      tree: { f: 'old', big: 'o'.repeat(2 ** 21) },
      command: { outputPaths: ['f', 'big'] },
    });
    expect(result.outputFiles.map(({ digest }) => t.blobs.text(digest))).toEqual(['new\n', 'new\n']);
  });

  test('that are inputs left alone are outputs as well', async () => {
    const { result } = await t.sh(':', { tree: { f: 'given' }, command: { outputPaths: ['f'] } });
    expect(t.blobs.text(result.outputFiles[0]?.digest)).toBe('given');
  });

  test('that are hard links of each other are each collected', async () => {
    const { result } = await t.sh('echo x >a; ln a b; mkdir d; ln a d/c', {
      command: { outputPaths: ['a', 'b', 'd'] },
    });
    expect(result.outputFiles.map(({ digest }) => t.blobs.text(digest))).toEqual(['x\n', 'x\n']);
    expect(readTree(t.blobs, result.outputDirectories[0]?.treeDigest).root?.files).toHaveLength(1);
  });
});

describe('directories', () => {
  const script = `mkdir -p d/b/same d/a/same d/empty; echo x >d/b/same/x; echo x >d/a/same/x; echo x >d/b/f; chmod 755 d/b/f
    ln -s ../nowhere d/link; ln -s /abs d/abs; : >"d/zero"; : >"d/sp ace-ü"`;

  test('become a Tree in topological order with every distinct child once', async () => {
    const { result } = await t.sh(script, { command: { outputPaths: ['d'] } });
    const [directory] = result.outputDirectories;
    expect(directory).toMatchObject({ path: 'd', isTopologicallySorted: true });
    expect(directory?.rootDirectoryDigest).toBeUndefined();
    const bytes = t.blobs.bytes(directory?.treeDigest);
    const { root, children } = readTree(t.blobs, directory?.treeDigest);
    expect(bytes[0]).toBe(0x0a);
    expect(root?.symlinks.map(({ name, target }) => [name, target])).toEqual([
      ['abs', '/abs'],
      ['link', '../nowhere'],
    ]);
    expect(root?.files.map(({ name }) => name)).toEqual(['sp ace-ü', 'zero']);
    expect(root?.directories.map(({ name }) => name)).toEqual(['a', 'b', 'empty']);
    expect(children).toHaveLength(4);
    expectParentsFirst([root as Directory, ...children]);
  });

  test('give Directory blobs when the format asks for them', async () => {
    const { result: only } = await t.sh(script, {
      command: { outputPaths: ['d'], outputDirectoryFormat: Command_OutputDirectoryFormat.DIRECTORY_ONLY },
    });
    expect(only.outputDirectories[0]?.treeDigest).toBeUndefined();
    const { result: both } = await t.sh(script, {
      command: { outputPaths: ['d'], outputDirectoryFormat: Command_OutputDirectoryFormat.TREE_AND_DIRECTORY },
    });
    const [directory] = both.outputDirectories;
    expect(directory?.rootDirectoryDigest).toEqual(only.outputDirectories[0]?.rootDirectoryDigest);
    const { root } = readTree(t.blobs, directory?.treeDigest);
    const stored = fromBinary(DirectorySchema, t.blobs.bytes(directory?.rootDirectoryDigest));
    expect(stored).toEqual(root);
    for (const { digest } of stored.directories) expect(() => t.blobs.bytes(digest)).not.toThrow();
  });

  test('are not made in advance, their parents are', async () => {
    const ran = await t.sh('test -d p/q && mkdir p/q/d && echo fresh', {
      command: { outputDirectories: ['p/q/d'], outputFiles: ['p/q/e/f'] },
    });
    expect(ran).toMatchObject({ exitCode: 0, stdout: 'fresh\n' });
    expect(ran.result.outputDirectories.map(({ path }) => path)).toEqual(['p/q/d']);
  });

  test('may be the whole working directory, inputs included', async () => {
    const { result } = await t.sh('echo new >made; rm gone', {
      tree: { w: { tree: { kept: 'kept', gone: 'gone', d: { tree: { deep: 'deep' } } } } },
      command: { workingDirectory: 'w', outputDirectories: [''] },
    });
    const { root, children } = readTree(t.blobs, result.outputDirectories[0]?.treeDigest);
    expect(root?.files.map(({ name }) => name)).toEqual(['kept', 'made']);
    expect(children[0]?.files.map(({ name }) => name)).toEqual(['deep']);
  });

  test('may overlap with other outputs', async () => {
    const { result } = await t.sh('mkdir d; echo x >d/f', { command: { outputPaths: ['d', 'd/f'] } });
    expect(result.outputFiles.map(({ path }) => path)).toEqual(['d/f']);
    expect(readTree(t.blobs, result.outputDirectories[0]?.treeDigest).root?.files[0]?.name).toBe('f');
  });

  test('that are empty are outputs', async () => {
    const { result } = await t.sh('mkdir d', { command: { outputPaths: ['d'] } });
    expect(readTree(t.blobs, result.outputDirectories[0]?.treeDigest).root?.files).toEqual([]);
  });
});

describe('symbolic links', () => {
  const script = 'echo f >f; mkdir d; ln -s f to-file; ln -s d to-dir; ln -s nowhere dangling; ln -s /etc/passwd abs';
  const paths = ['to-file', 'to-dir', 'dangling', 'abs'];

  test('of output_paths are one entry each, and in the old lists for clients of API 2.0', async () => {
    const { result } = await t.sh(script, { command: { outputPaths: paths } });
    expect(result.outputSymlinks.map(({ path, target }) => [path, target])).toEqual([
      ['to-file', 'f'],
      ['to-dir', 'd'],
      ['dangling', 'nowhere'],
      ['abs', '/etc/passwd'],
    ]);
    expect(result.outputFileSymlinks.map(({ path }) => path)).toEqual(['to-file', 'dangling', 'abs']);
    expect(result.outputDirectorySymlinks.map(({ path }) => path)).toEqual(['to-dir']);
    expect(result.outputFiles).toEqual([]);
  });

  test('of the fields of API 2.0 are in the list of their field alone', async () => {
    const command = { outputFiles: ['to-file', 'dangling'], outputDirectories: ['to-dir'] };
    const { result } = await t.sh(script, { command });
    expect(result.outputSymlinks).toEqual([]);
    expect(result.outputFileSymlinks.map(({ path }) => path)).toEqual(['to-file', 'dangling']);
    expect(result.outputDirectorySymlinks.map(({ path }) => path)).toEqual(['to-dir']);
  });
});

describe.each([
  { name: 'isolated where possible', options: {} },
  { name: 'plain', options: { bubblewrapPath: noBubblewrap } },
])('what cannot be an output ($name)', ({ options }) => {
  const made = testSandbox(options);

  test.each([
    ['a directory where a file is declared', 'mkdir o', { outputFiles: ['o'] }],
    ['a file where a directory is declared', 'echo x >o', { outputDirectories: ['o'] }],
    ['a named pipe', 'mkfifo o', { outputPaths: ['o'] }],
    ['a named pipe in a directory', 'mkdir o; mkfifo o/p', { outputPaths: ['o'] }],
    ['a name that is not UTF-8', 'mkdir o; touch "$(printf "o/\\377")"', { outputPaths: ['o'] }],
    ['a link target that is not UTF-8', 'ln -s "$(printf "\\377")" o', { outputPaths: ['o'] }],
    ['a tree that is too deep', 'mkdir o; cd o; for i in $(seq 300); do mkdir d; cd d; done', { outputPaths: ['o'] }],
    [
      'a path that is too long',
      `mkdir o; cd o; n=$(printf '%0250d' 0); for i in $(seq 20); do mkdir $n; cd $n; done`,
      { outputPaths: ['o'] },
    ],
    ['a file below a link to the host', `rmdir o; ln -s ${outside} o`, { outputPaths: ['o/secret'] }],
    ['a file below a parent that became a link', `rmdir p; ln -s ${outside} p`, { outputPaths: ['p/secret'] }],
    ['a file below a link further up', `mkdir q; ln -s .. q/r; rm -rf p; ln -s q/r p`, { outputPaths: ['p/q/x'] }],
  ])('%s is refused and named', async (_, script, command) => {
    const t = await made;
    const error: unknown = await t.sh(script, { command }).catch((error) => error);
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(String(error)).toContain('output "');
    expect(String(error)).not.toContain(t.directory);
    const leaked = digestOf('sha256', Buffer.from('secret of the host'));
    expect(existsSync(join(t.blobs.directory, digestKey(leaked).replaceAll('/', '-')))).toBe(false);
  });
});

describe('node properties', () => {
  test('are given for every kind of output when asked for', async () => {
    const { result } = await t.sh(
      'echo x >f; mkdir d; echo y >d/g; ln -s f l; chmod 640 f; chmod 750 d; touch -d @86400.5 f',
      { command: { outputPaths: ['f', 'd', 'l'], outputNodeProperties: ['mtime', 'unix_mode'] } },
    );
    expect(result.outputFiles[0]?.nodeProperties?.unixMode).toBe(0o640);
    expect(result.outputFiles[0]?.nodeProperties?.mtime).toMatchObject({ seconds: 86_400n, nanos: 500_000_000 });
    const { root } = readTree(t.blobs, result.outputDirectories[0]?.treeDigest);
    expect(root?.nodeProperties?.unixMode).toBe(0o750);
    expect(root?.files[0]?.nodeProperties?.mtime).toBeDefined();
    expect(result.outputSymlinks[0]?.nodeProperties?.unixMode).toBe(0o777);
  });

  test('are limited to what was asked for', async () => {
    const { result } = await t.sh('echo x >f', {
      command: { outputPaths: ['f'], outputNodeProperties: ['unix_mode'] },
    });
    expect(result.outputFiles[0]?.nodeProperties).toMatchObject({ unixMode: 0o644 });
    expect(result.outputFiles[0]?.nodeProperties?.mtime).toBeUndefined();
  });
});

/** Each Directory comes after one that refers to it, and each is referred to. */
function expectParentsFirst(inOrder: Directory[]): void {
  const promised = new Set<string>();
  const key = (digest: Parameters<typeof fromWireDigest>[0]) =>
    digestKey(fromWireDigest(digest, DigestFunction_Value.SHA256));
  for (const [index, directory] of inOrder.entries()) {
    const own = digestKey(digestOf('sha256', toBinary(DirectorySchema, directory)));
    if (index > 0) expect(promised).toContain(own);
    for (const child of directory.directories) promised.add(key(child.digest));
  }
  expect(promised.size).toBe(inOrder.length - 1);
}

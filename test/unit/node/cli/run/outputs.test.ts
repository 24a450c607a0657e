import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { writeOutputs } from '../../../../../node/cli/run/outputs.ts';
import {
  ActionResultSchema,
  DirectorySchema,
  TreeSchema,
} from '../../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { createMemoryRemote, type MemoryRemote } from './memory-remote.ts';

const text = (value: string) => new TextEncoder().encode(value);
let cwd: string;
let remote: MemoryRemote;
beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'potluck-outputs-'));
  await mkdir(join(cwd, 'work'));
  remote = createMemoryRemote();
});
afterEach(() => rm(cwd, { recursive: true, force: true }));

function write(result: MessageInitShape<typeof ActionResultSchema>, ...wanted: string[]) {
  return writeOutputs(
    remote,
    join(cwd, 'work'),
    create(ActionResultSchema, result),
    wanted,
    new AbortController().signal,
  );
}

function tree(root: MessageInitShape<typeof DirectorySchema>, ...children: MessageInitShape<typeof DirectorySchema>[]) {
  const message = { root, children };
  return remote.add(toBinary(TreeSchema, create(TreeSchema, message)));
}

describe('a server that means harm', () => {
  test.each(['../escaped', '/tmp/escaped', 'a/../../escaped', 'unasked'])('cannot send the output %s', async (path) => {
    const digest = remote.add(text('x'));
    await expect(write({ outputFiles: [{ path, digest }] }, 'asked')).rejects.toThrow('was not asked for');
    await expect(write({ outputSymlinks: [{ path, target: 'x' }] }, 'asked')).rejects.toThrow('was not asked for');
    expect(await readdir(cwd)).toEqual(['work']);
  });

  test.each(['..', '.', '', 'a/b', '/etc', 'nul\0'])('cannot name an entry of a directory %j', async (name) => {
    const digest = remote.add(text('x'));
    const treeDigest = tree({ files: [{ name, digest }] });
    await expect(write({ outputDirectories: [{ path: 'out', treeDigest }] }, 'out')).rejects.toThrow('impossible name');
    const asLink = tree({ symlinks: [{ name, target: '..' }] });
    await expect(write({ outputDirectories: [{ path: 'out', treeDigest: asLink }] }, 'out')).rejects.toThrow(
      'impossible name',
    );
    expect(await readdir(cwd)).toEqual(['work']);
  });

  test('cannot write through a link that it sends', async () => {
    const digest = remote.add(text('x'));
    const result = {
      outputSymlinks: [{ path: 'out', target: '..' }],
      outputFiles: [{ path: 'out/escaped', digest }],
    };
    // The directory is made first; the link then finds it taken.
    await expect(write(result, 'out', 'out/escaped')).rejects.toThrow('out: is a directory here');
    expect(await readdir(cwd)).toEqual(['work']);
  });

  test('cannot pass other bytes off as a blob', async () => {
    const digest = remote.add(text('right'));
    remote.setStream(
      `blobs/${digest.hash}/5`,
      (async function* () {
        yield text('wrong');
      })(),
    );
    await expect(write({ outputFiles: [{ path: 'f', digest }] }, 'f')).rejects.toThrow('other bytes');
    await expect(write({ outputFiles: [{ path: 'f', digest, contents: text('wrong') }] }, 'f')).rejects.toThrow(
      'other bytes',
    );
    expect(await readdir(join(cwd, 'work'))).toEqual([]);
  });
});

describe('what is here already', () => {
  test('is replaced where it is a file or a link, and kept beside', async () => {
    const digest = remote.add(text('new'));
    await writeFile(join(cwd, 'work/file'), 'old and longer');
    await writeFile(join(cwd, 'outside'), 'kept');
    await symlink('../outside', join(cwd, 'work/link'));
    await mkdir(join(cwd, 'work/dir'));
    await writeFile(join(cwd, 'work/dir/mine'), 'kept');
    const child = { files: [{ name: 'deep', digest }] };
    const childDigest = remote.add(toBinary(DirectorySchema, create(DirectorySchema, child)));
    const treeDigest = tree({ directories: [{ name: 'sub', digest: childDigest }] }, child);
    const report = await write(
      {
        outputFiles: [
          { path: 'file', digest },
          { path: 'link', digest },
        ],
        outputDirectories: [{ path: 'dir', treeDigest }],
      },
      'file',
      'link',
      'dir',
      'absent',
    );
    expect(report).toEqual({ files: 3, bytes: 9, made: new Set(['file', 'link', 'dir']) });
    for (const path of ['file', 'link', 'dir/sub/deep'])
      expect(await readFile(join(cwd, 'work', path), 'utf8')).toBe('new');
    expect(await readFile(join(cwd, 'outside'), 'utf8')).toBe('kept');
    expect(await readdir(join(cwd, 'work/dir'))).toEqual(['mine', 'sub']);
  });

  test('is not replaced where it is a directory and the output none, or the other way round', async () => {
    const digest = remote.add(text('new'));
    await mkdir(join(cwd, 'work/dir'));
    await writeFile(join(cwd, 'work/file'), '');
    await expect(write({ outputFiles: [{ path: 'dir', digest }] }, 'dir')).rejects.toThrow('dir: is a directory here');
    await expect(write({ outputFiles: [{ path: 'file/x', digest }] }, 'file/x')).rejects.toThrow(
      'file: a directory has to be here',
    );
    expect(await readdir(join(cwd, 'work'))).toEqual(['dir', 'file']);
  });
});

test('a link that servers name in an old list and in the new one is made once', async () => {
  const link = { path: 'l', target: 'anywhere' };
  await write({ outputSymlinks: [link], outputFileSymlinks: [link] }, 'l');
  expect(await readlink(join(cwd, 'work/l'))).toBe('anywhere');
});

test('a Tree that lacks a child is refused', async () => {
  const digest = remote.add(text('nothing like a directory'));
  const treeDigest = tree({ directories: [{ name: 'sub', digest }] });
  await expect(write({ outputDirectories: [{ path: 'd', treeDigest }] }, 'd')).rejects.toThrow(
    'left this directory out',
  );
});

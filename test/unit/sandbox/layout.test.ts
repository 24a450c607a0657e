import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { afterAll, expect, test } from 'vitest';
import { CommandSchema } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { planCommand } from '../../../sandbox/command.ts';
import { createInputTrees } from '../../../sandbox/input-tree.ts';
import { planLayout } from '../../../sandbox/layout.ts';
import { mountsMax } from '../../../sandbox/limits.ts';
import { addTree, createTestBlobs, type Tree } from './support.ts';

const directory = mkdtempSync(join(tmpdir(), 'potluck-layout-'));
afterAll(() => rmSync(directory, { recursive: true }));
const blobs = createTestBlobs(directory);
const trees = createInputTrees(blobs);

async function layout(tree: Tree, command: MessageInitShape<typeof CommandSchema>, share = true) {
  const root = await trees.load(addTree(blobs, tree), { signal: new AbortController().signal });
  const planned = planLayout(root, planCommand(create(CommandSchema, { arguments: ['true'], ...command })), { share });
  const paths = (list: readonly { readonly path: string }[]) => list.map(({ path }) => path).toSorted();
  return {
    directories: planned.directories.toSorted(),
    copies: paths(planned.copies),
    sharedDirectories: paths(planned.sharedDirectories),
    sharedFiles: paths(planned.sharedFiles),
  };
}

const tree: Tree = {
  top: 'top',
  lib: { tree: { l: 'l', deep: { tree: { x: 'x' } } } },
  out: { tree: { given: 'given', sub: { tree: { s: 's' } } } },
};

test('shares the directories no output reaches, and copies what lies around one', async () => {
  expect(await layout(tree, { outputPaths: ['out/new/file'] })).toEqual({
    directories: ['out', 'out/new'],
    copies: ['out/given', 'top'],
    sharedDirectories: ['lib', 'out/sub'],
    sharedFiles: [],
  });
});

test('makes the parents of an output but not the output', async () => {
  expect((await layout({}, { outputPaths: ['a/b/c', 'd'] })).directories).toEqual(['a', 'a/b']);
});

test('copies everything inside a declared output', async () => {
  expect(await layout(tree, { outputPaths: ['out'] })).toMatchObject({
    directories: ['out', 'out/sub'],
    copies: ['out/given', 'out/sub/s', 'top'],
    sharedDirectories: ['lib'],
  });
  expect((await layout(tree, { outputDirectories: [''] })).sharedDirectories).toEqual([]);
});

test('leaves the working directory writable, and what lies below it shared', async () => {
  expect(await layout(tree, { workingDirectory: 'lib' })).toMatchObject({
    directories: ['lib'],
    copies: ['lib/l', 'top'],
    sharedDirectories: ['lib/deep', 'out'],
  });
});

test('shares large files beside outputs, unless they are outputs themselves', async () => {
  const big = 'b'.repeat(1024 * 1024);
  const beside = await layout({ big, replaced: big, small: 's' }, { outputPaths: ['replaced'] });
  expect(beside).toMatchObject({ sharedFiles: ['big'], copies: ['replaced', 'small'] });
});

test('shares nothing where nothing can be mounted', async () => {
  expect(await layout(tree, { outputPaths: ['o'] }, false)).toMatchObject({
    sharedDirectories: [],
    copies: ['lib/deep/x', 'lib/l', 'out/given', 'out/sub/s', 'top'],
  });
});

test('copies the lightest directories when there would be too many mounts', async () => {
  const many = Object.fromEntries(
    Array.from({ length: mountsMax + 2 }, (_, index) => [
      `d${String(index).padStart(2, '0')}`,
      { tree: { f: 'x'.repeat(index < 2 ? 1 : 100) } },
    ]),
  );
  const planned = await layout(many, { outputPaths: ['o'] });
  expect(planned.sharedDirectories).toHaveLength(mountsMax);
  expect(planned.copies).toEqual(['d00/f', 'd01/f']);
  expect(planned.directories).toEqual(['d00', 'd01']);
});

test('refuses a working directory that is not in the tree, or no directory', async () => {
  for (const workingDirectory of ['nowhere', 'top', 'lib/l', 'lib/nowhere']) {
    await expect(layout(tree, { workingDirectory })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
});

test('refuses an output below a file or a link of the tree', async () => {
  for (const outputPaths of [['top/x'], ['lib/l/x/y'], ['link/x']]) {
    const run = layout({ ...tree, link: { link: 'lib' } }, { outputPaths });
    await expect(run).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
});

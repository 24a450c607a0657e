import { fromBinary } from '@bufbuild/protobuf';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeAction } from '../../../../../node/cli/run/action.ts';
import { type LocalBlob, readInputs } from '../../../../../node/cli/run/inputs.ts';
import { emptyDigest } from '../../../../../protos/digest.ts';
import {
  ActionSchema,
  CommandSchema,
  DirectorySchema,
} from '../../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';

const { signal } = new AbortController();
const bytesOf = (content: LocalBlob['content']) => ('bytes' in content ? content.bytes : new Uint8Array());
let cwd: string;
beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'potluck-inputs-'));
});
afterEach(() => rm(cwd, { recursive: true, force: true }));

test('no inputs are the empty directory, whose digest is that of no bytes', async () => {
  expect((await readInputs(cwd, [], signal)).root).toEqual(emptyDigest('sha256'));
});

test('the tree does not depend on the order or the number of globs', async () => {
  await mkdir(join(cwd, 'a'));
  for (const path of ['a/1', 'a/2', 'b', 'Z']) await writeFile(join(cwd, path), path);
  const { root } = await readInputs(cwd, ['.'], signal);
  const same = [['b', 'a', 'Z'], ['**/*'], ['Z', 'a/2', 'b', 'a/1', 'a'], [join(cwd, 'a'), './b', 'Z']];
  for (const globs of same) {
    expect((await readInputs(cwd, globs, signal)).root).toEqual(root);
  }
});

test('entries are sorted by the bytes of their names, which is not how JavaScript sorts', async () => {
  const names = ['\u{1f600}', '\uffee', 'a', 'B'];
  for (const name of names) await writeFile(join(cwd, name), '');
  const { blobs, root } = await readInputs(cwd, ['.'], signal);
  const { content } = blobs.find(({ digest }) => digest.hash === root.hash) as LocalBlob;
  const directory = fromBinary(DirectorySchema, bytesOf(content));
  expect(directory.files.map(({ name }) => name)).toEqual(['B', 'a', '\uffee', '\u{1f600}']);
});

test('equal files are one blob, counted each', async () => {
  for (const name of ['x', 'y', 'z']) await writeFile(join(cwd, name), 'same');
  expect(await readInputs(cwd, ['*'], signal)).toMatchObject({ files: 3, fileBytes: 12, blobs: { length: 2 } });
});

test('an action says what it is asked to, in canonical order', () => {
  const parts = {
    arguments: ['cc', '-c'],
    environment: [
      ['Z', '1'],
      ['A', 'x'],
      ['Z', '2'],
    ] as const,
    outputPaths: ['o2', 'o1', 'o2'],
    platform: [
      ['b', '2'],
      ['b', '1'],
      ['a', '3'],
    ] as const,
    timeoutMs: 90_500,
    doNotCache: true,
    inputRoot: emptyDigest('sha256'),
  };
  const { blobs } = makeAction(parts);
  const [command, action] = blobs.map(({ content }) => bytesOf(content)) as [Uint8Array, Uint8Array];
  const platform = {
    properties: [
      { name: 'a', value: '3' },
      { name: 'b', value: '1' },
      { name: 'b', value: '2' },
    ],
  };
  expect(fromBinary(CommandSchema, command)).toMatchObject({
    arguments: ['cc', '-c'],
    environmentVariables: [
      { name: 'A', value: 'x' },
      { name: 'PATH', value: '/usr/local/bin:/usr/bin:/bin' },
      { name: 'Z', value: '2' },
    ],
    outputPaths: ['o1', 'o2'],
    platform,
  });
  expect(fromBinary(ActionSchema, action)).toMatchObject({
    timeout: { seconds: 90n, nanos: 500_000_000 },
    doNotCache: true,
    platform,
  });
});

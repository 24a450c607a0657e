import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import {
  Command_OutputDirectoryFormat,
  CommandSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { planCommand } from '../../../sandbox/command.ts';

function plan(command: MessageInitShape<typeof CommandSchema>) {
  return planCommand(create(CommandSchema, { arguments: ['true'], ...command }));
}

describe('planCommand', () => {
  test('takes output_paths and ignores the lists of API 2.0 beside it', () => {
    const { outputs } = plan({ outputPaths: ['a'], outputFiles: ['b'], outputDirectories: ['c'] });
    expect(outputs).toEqual([{ path: 'a', segments: ['a'], kind: 'any' }]);
  });

  test('takes the lists of API 2.0 with the kind they mean', () => {
    const { outputs } = plan({ workingDirectory: 'w', outputFiles: ['b/f'], outputDirectories: ['c', ''] });
    expect(outputs).toEqual([
      { path: 'b/f', segments: ['w', 'b', 'f'], kind: 'file' },
      { path: 'c', segments: ['w', 'c'], kind: 'directory' },
      { path: '', segments: ['w'], kind: 'directory' },
    ]);
  });

  test('names an output once however often it is declared', () => {
    expect(plan({ outputPaths: ['a', 'a'] }).outputs).toHaveLength(1);
  });

  test.each([
    [Command_OutputDirectoryFormat.TREE_ONLY, true, false],
    [Command_OutputDirectoryFormat.DIRECTORY_ONLY, false, true],
    [Command_OutputDirectoryFormat.TREE_AND_DIRECTORY, true, true],
    [77 as Command_OutputDirectoryFormat, true, false],
  ])('output directory format %s: tree %s, directories %s', (outputDirectoryFormat, wantsTree, wantsDirectories) => {
    expect(plan({ outputDirectoryFormat })).toMatchObject({ wantsTree, wantsDirectories });
  });

  test('knows the node properties mtime and unix_mode', () => {
    expect(plan({ outputNodeProperties: ['mtime'] })).toMatchObject({ wantsMtime: true, wantsUnixMode: false });
    expect(plan({ outputNodeProperties: ['unix_mode'] })).toMatchObject({ wantsMtime: false, wantsUnixMode: true });
  });

  test.each<[string, MessageInitShape<typeof CommandSchema>]>([
    ['no arguments', { arguments: [] }],
    ['an empty program', { arguments: [''] }],
    ['a program with an equals sign', { arguments: ['a=b'] }],
    ['a NUL in an argument', { arguments: ['a', 'b\0c'] }],
    ['an absolute output', { outputPaths: ['/etc/passwd'] }],
    ['an output above the tree', { outputPaths: ['../x'] }],
    ['a dot in an output', { outputPaths: ['a/./b'] }],
    ['an output with a trailing slash', { outputPaths: ['a/'] }],
    ['an output with an empty segment', { outputDirectories: ['a//b'] }],
    ['an output file that is the working directory', { outputFiles: [''] }],
    ['an output of two kinds', { outputFiles: ['a'], outputDirectories: ['a'] }],
    ['an absolute working directory', { workingDirectory: '/tmp' }],
    ['a working directory above the tree', { workingDirectory: 'a/../..' }],
    ['an unknown node property', { outputNodeProperties: ['xattr'] }],
    ['a nameless variable', { environmentVariables: [{ name: '', value: 'x' }] }],
    ['a variable with an equals sign', { environmentVariables: [{ name: 'A=B', value: 'x' }] }],
    ['a NUL in a variable', { environmentVariables: [{ name: 'A', value: 'x\0' }] }],
    [
      'a variable set twice',
      {
        environmentVariables: [
          { name: 'A', value: '1' },
          { name: 'A', value: '2' },
        ],
      },
    ],
  ])('refuses %s', (_, command) => {
    expect(() => plan(command)).toThrow(/^INVALID_ARGUMENT: command: /);
  });
});

/**
 * Reads a Command: what to start, where, with which environment, and which outputs to look for.
 *
 * @see REAPI v2.12, message Command
 */
import {
  type Command,
  Command_OutputDirectoryFormat,
} from '../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../protos/status.ts';
import { argumentBytesMax, argumentsBytesMax } from './limits.ts';

/** Variables a command gets when it does not declare them. PWD is the working directory; all else is absent. */
export const defaultEnvironment = { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: '/tmp' } as const;

/** `file` and `directory` come from the fields of API 2.0, which say what kind is expected. */
export type OutputKind = 'any' | 'file' | 'directory';

export interface DeclaredOutput {
  /** As declared: relative to the working directory. */
  readonly path: string;
  /** Names from the root of the input tree; empty for the root itself. */
  readonly segments: readonly string[];
  readonly kind: OutputKind;
}

export interface CommandPlan {
  readonly arguments: readonly [string, ...string[]];
  /** What the command declares, without the defaults; its own value wins over a default. */
  readonly declaredEnvironment: ReadonlyMap<string, string>;
  readonly workingDirectory: readonly string[];
  readonly outputs: readonly DeclaredOutput[];
  readonly wantsMtime: boolean;
  readonly wantsUnixMode: boolean;
  readonly wantsTree: boolean;
  readonly wantsDirectories: boolean;
}

/** Throws INVALID_ARGUMENT naming the field. */
export function planCommand(command: Command): CommandPlan {
  const [program, ...rest] = command.arguments;
  if (!program) throw invalid('arguments is empty: it must name the program to run');
  // Programs that start others, such as env, would take it for a variable.
  if (program.includes('='))
    throw invalid(`the program "${program}" has an equals sign in its name, which cannot be run`);
  if (command.arguments.some((argument) => argument.includes('\0'))) throw invalid('arguments contain a NUL byte');
  const declaredEnvironment = environmentOf(command);
  checkLength([...command.arguments, ...[...declaredEnvironment].map(([name, value]) => `${name}=${value}`)]);
  const workingDirectory = segmentsOf(command.workingDirectory, 'working_directory');
  const properties = new Set(command.outputNodeProperties);
  for (const name of properties) {
    if (name !== 'mtime' && name !== 'unix_mode') {
      throw invalid(`output_node_properties: "${name}" is not known; mtime and unix_mode are`);
    }
  }
  const format = command.outputDirectoryFormat;
  return {
    arguments: [program, ...rest],
    declaredEnvironment,
    workingDirectory,
    outputs: outputsOf(command, workingDirectory),
    wantsMtime: properties.has('mtime'),
    wantsUnixMode: properties.has('unix_mode'),
    wantsTree: format !== Command_OutputDirectoryFormat.DIRECTORY_ONLY,
    wantsDirectories:
      format === Command_OutputDirectoryFormat.DIRECTORY_ONLY ||
      format === Command_OutputDirectoryFormat.TREE_AND_DIRECTORY,
  };
}

/** The kernel would refuse it anyway, at a moment when the reason is hard to tell. */
function checkLength(texts: readonly string[]): void {
  const pointerBytes = 8;
  let bytes = 0;
  for (const text of texts) {
    const own = Buffer.byteLength(text) + 1;
    if (own > argumentBytesMax) throw invalid(`an argument or variable of ${own} bytes is too long for this system`);
    bytes += own + pointerBytes;
  }
  if (bytes > argumentsBytesMax) {
    throw invalid(`${bytes} bytes of arguments and variables are too long for this system; use a parameter file`);
  }
}

function environmentOf(command: Command): Map<string, string> {
  const environment = new Map<string, string>();
  for (const { name, value } of command.environmentVariables) {
    if (!name || name.includes('=') || name.includes('\0') || value.includes('\0')) {
      throw invalid(`environment_variables: "${name}" is not a possible variable`);
    }
    if (environment.has(name)) throw invalid(`environment_variables: ${name} is set twice`);
    environment.set(name, value);
  }
  return environment;
}

/** output_paths, or else the two lists of API 2.0; the same path once. */
function outputsOf(command: Command, workingDirectory: readonly string[]): DeclaredOutput[] {
  const declared: [paths: readonly string[], kind: OutputKind, field: string][] =
    command.outputPaths.length > 0
      ? [[command.outputPaths, 'any', 'output_paths']]
      : [
          [command.outputFiles, 'file', 'output_files'],
          [command.outputDirectories, 'directory', 'output_directories'],
        ];
  const outputs = new Map<string, DeclaredOutput>();
  for (const [paths, kind, field] of declared) {
    for (const path of paths) {
      if (path === '' && kind === 'file') throw invalid(`${field}: the working directory cannot be an output file`);
      const earlier = outputs.get(path);
      if (earlier && earlier.kind !== kind) {
        throw invalid(`"${path}" is in output_files and in output_directories; it can only be one`);
      }
      outputs.set(path, { path, segments: [...workingDirectory, ...segmentsOf(path, field)], kind });
    }
  }
  return [...outputs.values()];
}

function segmentsOf(path: string, field: string): string[] {
  if (path === '') return [];
  const segments = path.split('/');
  for (const segment of segments) {
    if (segment === '' || segment === '.' || segment === '..' || segment.includes('\0')) {
      throw invalid(`${field}: "${path}" is not a plain relative path`);
    }
  }
  return segments;
}

function invalid(reason: string): StatusError {
  return new StatusError('INVALID_ARGUMENT', `command: ${reason}`);
}

/** Help texts, made from the commands. */
import type { Command } from './command.ts';
import { formatTable } from './format.ts';

/** Widest line of a help text. */
const columnsMax = 100;

export function programHelp(commands: readonly Command[]): string {
  const rows = commands.map((command) => [`  ${command.name}`, command.summary]);
  return [
    'Potluck: every machine brings its blobs and idle cores. A build cache and executor that speaks',
    "Bazel's Remote Execution API.",
    '',
    'Usage: potluck COMMAND [FLAGS]',
    '',
    'Commands:',
    ...formatTable(rows),
    '',
    'Flags:',
    ...formatTable([
      ['  --help, -h', 'this text; after a command, the help of that command'],
      ['  --version', 'print the version'],
    ]),
    '',
    'Start with:',
    '  potluck up',
    '',
    'Exit status: 0 done, 1 failed, 2 wrong flags or configuration; "potluck run" passes on that of its command.',
  ].join('\n');
}

export function commandHelp(command: Command): string {
  const operands = command.operands ? ` ${command.operands}` : '';
  const flags = Object.entries(command.flags).map(([name, flag]) => ({
    left: `  --${name}${flag.value ? ` ${flag.value}${flag.list || flag.variadic ? '…' : ''}` : ''}`,
    right: `${flag.about}${flag.fallback ? ` (default: ${flag.fallback})` : ''}`,
  }));
  const width = Math.max(0, ...flags.map(({ left }) => left.length)) + 2;
  const flagLines = flags.flatMap(({ left, right }) =>
    wrap(right, columnsMax - width).map((line, index) => `${(index === 0 ? left : '').padEnd(width)}${line}`),
  );
  return [
    `Usage: potluck ${command.name} [FLAGS]${operands}`,
    '',
    ...command.description.split('\n').flatMap((paragraph) => wrap(paragraph, columnsMax)),
    '',
    ...(flagLines.length > 0 ? ['Flags:', ...flagLines, ''] : []),
    'Examples:',
    ...command.examples.flatMap(({ line, about }) => [`  # ${about}`, `  ${line}`]),
  ].join('\n');
}

function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

/** Reads the words of a command line against a command's flags. */
import { parseArgs } from 'node:util';
import { settingNames } from '../config/settings.ts';
import type { FlagValues } from '../config/sources.ts';
import type { Flags, ParsedArgs } from './command.ts';
import { nearest } from '../config/nearest.ts';

export type ArgsResult = { readonly args: ParsedArgs } | { readonly problems: readonly string[] };

/** Reports all problems together. `--help` is known everywhere. */
export function readArgs(words: readonly string[], flags: Flags, options: { positionalsMax: number }): ArgsResult {
  const known: Flags = { ...flags, help: { about: '' } };
  const { tokens } = parseArgs({
    args: [...words],
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries([
      ...Object.entries(flags).map(([name, flag]) => [name, { type: flag.value ? 'string' : 'boolean' } as const]),
      ['help', { type: 'boolean', short: 'h' }],
    ]),
  });
  const problems: string[] = [];
  const switches = new Set<string>();
  const values = new Map<string, string[]>();
  const positionals: string[] = [];
  let rest: string[] | undefined;
  let variadic: string | undefined;
  /** After an unknown flag, the next word most likely is its value and no mistake of its own. */
  let afterUnknown = false;
  for (const token of tokens) {
    if (token.kind === 'option-terminator') {
      rest = [];
    } else if (token.kind === 'positional') {
      if (rest) rest.push(token.value);
      else if (variadic) values.get(variadic)?.push(token.value);
      else if (!afterUnknown) positionals.push(token.value);
      afterUnknown = false;
    } else {
      const flag = known[token.name];
      variadic = undefined;
      afterUnknown = !flag;
      if (!flag) {
        const close = nearest(token.name, Object.keys(known));
        problems.push(`${token.rawName}: no such flag${close ? `; did you mean --${close}?` : ''}`);
      } else if (!flag.value) {
        if (token.value !== undefined) problems.push(`${token.rawName}: takes no value`);
        switches.add(token.name);
      } else if (token.value === undefined || (!token.inlineValue && /^--?[a-z]/.test(token.value))) {
        problems.push(
          `${token.rawName}: needs a value (${flag.value}); one that starts with "-" is written --${token.name}=…`,
        );
      } else {
        const given = values.get(token.name) ?? [];
        if (given.length > 0 && !flag.list && !flag.variadic) problems.push(`${token.rawName}: given more than once`);
        values.set(token.name, [...given, token.value]);
        if (flag.variadic) variadic = token.name;
      }
    }
  }
  for (const word of positionals.slice(options.positionalsMax)) problems.push(`"${word}": not expected here`);
  if (problems.length > 0 && !switches.has('help')) return { problems };
  return { args: { switches, values, positionals, rest } };
}

/** The one value of a flag that does not repeat. */
export function valueOf(args: ParsedArgs, name: string): string | undefined {
  return args.values.get(name)?.[0];
}

/** The settings among the flags, for `loadConfig`. */
export function settingValues(args: ParsedArgs, flags: Flags): FlagValues {
  const values: Record<string, string | readonly string[]> = {};
  for (const name of settingNames) {
    const given = args.values.get(name);
    if (given?.[0] !== undefined) values[name] = flags[name]?.list ? given : given[0];
  }
  return values;
}

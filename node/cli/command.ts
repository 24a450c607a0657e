/** What a command is: its texts, its flags and its work. Help is made from this and so cannot go stale. */
import type { SettingName } from '../config/settings.ts';
import { settings } from '../config/settings.ts';

export interface Flag {
  /** Stands for the value in help; absent for a switch. */
  readonly value?: string;
  readonly about: string;
  readonly fallback?: string;
  /** May be given several times. */
  readonly list?: boolean;
  /** The words after it belong to it too, so that `--input *.c` works as the shell expands it. Implies `list`. */
  readonly variadic?: boolean;
}

export type Flags = Readonly<Record<string, Flag>>;

export interface ParsedArgs {
  readonly switches: ReadonlySet<string>;
  readonly values: ReadonlyMap<string, readonly string[]>;
  readonly positionals: readonly string[];
  /** What stands after `--`; `undefined` without one. */
  readonly rest: readonly string[] | undefined;
}

export interface Command {
  /** Words after `potluck`, such as `cache gc`. */
  readonly name: string;
  readonly summary: string;
  /** What may follow the name beside flags, such as `-- COMMAND…`. */
  readonly operands?: string;
  /** How many words besides flags it takes. */
  readonly operandsMax?: number;
  readonly description: string;
  readonly flags: Flags;
  readonly examples: readonly { readonly line: string; readonly about: string }[];
  /** The exit status of every failure of Potluck's own, when not that of the error. */
  readonly failureExitCode?: number;
  /** Resolves to the exit status; throws CliError, ConfigError or StatusError for what a person must hear. */
  run(args: ParsedArgs): Promise<number>;
}

/** The flags of some settings, plus `--config`. */
export function settingFlags(...names: readonly SettingName[]): Flags {
  const flags: Record<string, Flag> = {};
  for (const name of names) {
    const { value, about, fallback, list } = settings[name];
    flags[name] = { value, about, fallback, list };
  }
  flags.config = { value: 'FILE', about: 'YAML file of settings, named as the flags are' };
  return flags;
}

export const jsonFlag: Flags = { json: { about: 'print one JSON object for programs' } };

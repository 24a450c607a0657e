/** The three places a setting can come from, read into one shape: its text, and where it stood for messages. */
import { readFile } from 'node:fs/promises';
import { environmentName, isSettingName, type SettingName, settingNames, settings } from './settings.ts';

/** Settings as flags: a text, or several for a flag that repeats. */
export type FlagValues = { readonly [name in SettingName]?: string | readonly string[] };

export interface RawValue {
  readonly value: string | readonly string[];
  /** `--slots`, `POTLUCK_SLOTS` or `potluck.yaml:3 slots`. */
  readonly source: string;
}

export type RawValues = Map<SettingName, RawValue>;

export function fromFlags(flags: FlagValues): RawValues {
  const values: RawValues = new Map();
  for (const name of settingNames) {
    const value = flags[name];
    if (value !== undefined) values.set(name, { value, source: `--${name}` });
  }
  return values;
}

/** An empty variable counts as unset. */
export function fromEnvironment(env: NodeJS.ProcessEnv): RawValues {
  const values: RawValues = new Map();
  for (const name of settingNames) {
    const source = environmentName(name);
    const text = env[source];
    if (text) values.set(name, { value: settings[name].list ? text.split(',') : text, source });
  }
  return values;
}

/** Reads a YAML file of settings; what is wrong with it is appended to `problems`. */
export async function fromFile(path: string, problems: string[]): Promise<RawValues> {
  const values: RawValues = new Map();
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    problems.push(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`);
    return values;
  }
  // Only those who keep a file pay for the parser.
  const { isMap, isScalar, isSeq, LineCounter, parseDocument } = await import('yaml');
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number): string => `${path}:${lines.linePos(offset).line}`;
  for (const error of document.errors) problems.push(`${at(error.pos[0])}: ${error.message}`);
  if (document.errors.length > 0 || document.contents === null) return values;
  if (!isMap(document.contents)) {
    problems.push(`${path}: must hold settings, one "name: value" a line`);
    return values;
  }
  for (const { key, value } of document.contents.items) {
    const name = isScalar(key) ? String(key.value) : '';
    const source = `${isScalar(key) ? at(key.range?.[0] ?? 0) : path} ${name}`;
    if (!isSettingName(name)) {
      problems.push(`${source}: no such setting; known are ${settingNames.join(', ')}`);
      continue;
    }
    const given = isSeq(value) && settings[name].list ? value.items : [value];
    const texts = given.map((item) => (isScalar(item) && item.value !== null ? item.source : undefined));
    if (texts.some((item) => item === undefined)) {
      problems.push(`${source}: must be ${settings[name].list ? 'one value or a list of values' : 'one value'}`);
      continue;
    }
    const strings = texts.filter((item) => item !== undefined);
    values.set(name, { value: settings[name].list ? strings : (strings[0] ?? ''), source });
  }
  return values;
}

/**
 * Reads a YAML file against a schema made of small readers. The first thing that is wrong ends the reading with one
 * message: file, line, column, what is there and what would be right.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { nearest } from '../../node/config/nearest.ts';

/** A mistake in a scenario, for whoever wrote it. */
export class ScenarioError extends Error {
  override readonly name = 'ScenarioError';
}

/** Where a value stands. */
export interface Place {
  fail(message: string): never;
}

/** A node of the file, or the place where one is missing. */
export interface Spot extends Place {
  readonly node: Node | undefined;
  /** The same file, another node of it. */
  at(node: Node | undefined): Spot;
}

export interface Reader<T> {
  /** What would be right, after "must be": `a duration such as 250ms, 20s or 5m`. */
  readonly what: string;
  read(spot: Spot): T;
}

export interface Field<T> {
  readonly reader: Reader<T>;
  readonly about: string;
  /** What stands for it when it is left out, as text of the file; without one it must be given. */
  readonly fallback?: string;
  /** It may be left out, and then is undefined. */
  readonly optional?: boolean;
}

export type Fields = { readonly [key: string]: Field<unknown> };
export type ValueOf<R> = R extends Reader<infer T> ? T : never;
type FieldValue<F> = F extends { readonly reader: Reader<infer T>; readonly optional: true }
  ? T | undefined
  : F extends { readonly reader: Reader<infer T> }
    ? T
    : never;
export type RecordValue<S extends Fields> = { readonly [K in keyof S]: FieldValue<S[K]> } & { readonly place: Place };

export interface RecordReader<S extends Fields> extends Reader<RecordValue<S>> {
  readonly fields: S;
}

/** Reads the text of a file; `path` is for messages. Throws ScenarioError. */
export function readYaml<T>(path: string, text: string, reader: Reader<T>): T {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const where = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${path}:${line}:${col}`;
  };
  const [error] = document.errors;
  if (error) throw new ScenarioError(`${where(error.pos[0])}: this is not YAML: ${firstLine(error.message)}`);
  return reader.read(spotAt(document.contents ?? undefined, undefined, where));
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] as string;
}

function spotAt(node: Node | undefined, parent: Node | undefined, where: (offset: number) => string): Spot {
  const offset = node?.range?.[0] ?? parent?.range?.[0] ?? 0;
  return {
    node,
    at: (other) => spotAt(other, node ?? parent, where),
    fail(message) {
      throw new ScenarioError(`${where(offset)}: ${message}`);
    },
  };
}

/** The value of a default, which stands in no file. */
function readFallback<T>(text: string, reader: Reader<T>): T {
  return readYaml('default', text, reader);
}

export function scalarText(spot: Spot): string | undefined {
  if (!isScalar(spot.node) || spot.node.value === null) return undefined;
  return typeof spot.node.value === 'string' ? spot.node.value : spot.node.source;
}

/** Characters of what is wrong that a message repeats. */
const shownMax = 60;

function shown(spot: Spot): string {
  if (isMap(spot.node)) return 'this mapping';
  if (isSeq(spot.node)) return 'this list';
  if (isAlias(spot.node)) return 'this alias';
  const given = scalarText(spot);
  if (given === undefined) return 'nothing';
  const [line = ''] = given.split('\n', 1);
  return line.length > shownMax || line !== given ? `"${line.slice(0, shownMax)}…"` : `"${line}"`;
}

function refuse(spot: Spot, what: string): never {
  return spot.fail(`${shown(spot)} is here; it must be ${what}`);
}

/** A value made from a scalar's text; `parse` returns undefined for what it does not take. */
export function scalar<T>(what: string, parse: (text: string) => T | undefined): Reader<T> {
  return {
    what,
    read(spot) {
      const given = scalarText(spot);
      const value = given === undefined ? undefined : parse(given.trim());
      return value === undefined ? refuse(spot, what) : value;
    },
  };
}

export const text = scalar('a text', (given) => given);

export const flag = scalar('true or false', (given) =>
  given === 'true' ? true : given === 'false' ? false : undefined,
);

export function whole(least: number, most = 1_000_000): Reader<number> {
  return scalar(`a whole number from ${least} to ${most.toLocaleString('en-US')}`, (given) => {
    const value = Number(given.replaceAll('_', ''));
    return /^[\d_]+$/.test(given) && value >= least && value <= most ? value : undefined;
  });
}

/** A factor such as 1.5. */
export const factor = scalar('a number such as 1.5', (given) =>
  /^\d+(\.\d+)?$/.test(given) ? Number(given) : undefined,
);

/** A share in percent, as a fraction. */
export const share = scalar('a percentage such as 80%', (given) => {
  const [, percent] = /^(\d+(?:\.\d+)?)\s*%$/.exec(given) ?? [];
  return percent === undefined ? undefined : Number(percent) / 100;
});

const durationUnitsMs: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** In milliseconds, to the microsecond. */
export const duration = scalar('a duration such as 250ms, 20s, 5m or 1h', (given) => {
  if (given === '0') return 0;
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)\s*(us|ms|s|m|h)$/.exec(given) ?? [];
  return number === undefined
    ? undefined
    : Math.round(Number(number) * (durationUnitsMs[unit] as number) * 1_000) / 1_000;
});

const sizeUnits: Readonly<Record<string, number>> = { B: 1, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };

/** In bytes. */
export const size = scalar('a size such as 500B, 20kB, 3MB or 1.5GB', (given) => {
  if (given === '0') return 0;
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB|TB)$/.exec(given) ?? [];
  return number === undefined ? undefined : Math.round(Number(number) * (sizeUnits[unit] as number));
});

const rateUnits: Readonly<Record<string, number>> = {
  'kbit/s': 125,
  'Mbit/s': 125_000,
  'Gbit/s': 125_000_000,
  'kB/s': 1_000,
  'MB/s': 1_000_000,
};

/** In bytes a second. */
export const rate = scalar('a bandwidth such as 50Mbit/s, 1Gbit/s or 10MB/s', (given) => {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)\s*(kbit\/s|Mbit\/s|Gbit\/s|kB\/s|MB\/s)$/.exec(given) ?? [];
  const bytes = number === undefined ? 0 : Number(number) * (rateUnits[unit] as number);
  return bytes > 0 ? bytes : undefined;
});

export function oneOf<const T extends string>(choices: readonly T[]): Reader<T> {
  const what = `one of ${choices.join(', ')}`;
  return {
    what,
    read(spot) {
      const given = scalarText(spot);
      const found = choices.find((choice) => choice === given);
      if (found !== undefined) return found;
      const close = given === undefined ? undefined : nearest(given, choices);
      return spot.fail(`${shown(spot)} is here; it must be ${what}${close ? `; did you mean "${close}"?` : ''}`);
    },
  };
}

/** The name of something that stands elsewhere in the file, with its place for messages. */
export interface Named {
  readonly name: string;
  readonly place: Place;
}

export function nameOf(kind: string): Reader<Named> {
  const what = `the name of ${kind}`;
  return {
    what,
    read(spot) {
      const name = scalarText(spot);
      return name ? { name, place: spot } : refuse(spot, what);
    },
  };
}

/** `2m`, or drawn evenly from `1m..5m`. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

export function spanOf(inner: Reader<number>): Reader<Span> {
  const what = `${inner.what}, or a range such as 1m..5m, from which it is drawn`;
  return {
    what,
    read(spot) {
      const ends = scalarText(spot)?.split('..') ?? [];
      if (ends.length > 2 || ends.length === 0) return refuse(spot, what);
      const values = ends.map((end) => {
        try {
          return readFallback(JSON.stringify(end.trim()), inner);
        } catch {
          return refuse(spot, what);
        }
      });
      const [from, to = from] = values as [number, number?];
      return from <= to ? { from, to } : spot.fail(`${shown(spot)} is here; the smaller one must come first`);
    },
  };
}

/** One value, or one item, or a list of them. */
export function listOf<T>(inner: Reader<T>): Reader<readonly T[]> {
  return {
    what: `a list, each ${inner.what}`,
    read(spot) {
      if (isSeq(spot.node)) return spot.node.items.map((item) => inner.read(spot.at(item as Node)));
      return [inner.read(spot)];
    },
  };
}

/** Names of the writer's choice, each with what it stands for, in order. */
export function mapOf<T>(kind: string, inner: Reader<T>): Reader<ReadonlyMap<string, T>> {
  const what = `a mapping from names of ${kind} to what they are`;
  return {
    what,
    read(spot) {
      if (!isMap(spot.node)) return refuse(spot, what);
      const read = new Map<string, T>();
      for (const { key, value } of spot.node.items) {
        const keySpot = spot.at(key as Node);
        const name = scalarText(keySpot) ?? '';
        if (!/^[A-Za-z][\w-]*$/.test(name)) {
          keySpot.fail(`${shown(keySpot)} is no name: letters, digits, - and _, a letter first`);
        }
        read.set(name, inner.read(keySpot.at((value as Node | null) ?? undefined)));
      }
      return read;
    },
  };
}

/** A mapping with these keys and no others. `what` is a noun with its article: `a link`. */
export function record<const S extends Fields>(what: string, fields: S): RecordReader<S> {
  const keys = Object.keys(fields);
  return {
    what,
    fields,
    read(spot) {
      const values: Record<string, unknown> = { place: spot };
      // `home: {}` and `home:` both mean: all as by default.
      const items = isMap(spot.node) ? spot.node.items : undefined;
      if (!items && spot.node !== undefined && scalarText(spot) !== undefined)
        return refuse(spot, `${what} with ${list(keys)}`);
      if (!items && isSeq(spot.node)) return refuse(spot, `${what} with ${list(keys)}`);
      for (const { key, value } of items ?? []) {
        const keySpot = spot.at(key as Node);
        const name = scalarText(keySpot) ?? '';
        const field = fields[name];
        if (!field) {
          const close = nearest(name, keys);
          return keySpot.fail(
            `no such key "${name}" in ${what}; ${close ? `did you mean "${close}"?` : `known are ${list(keys)}`}`,
          );
        }
        values[name] = field.reader.read(keySpot.at((value as Node | null) ?? undefined));
      }
      for (const [name, field] of Object.entries(fields)) {
        if (name in values) continue;
        if (field.fallback !== undefined) values[name] = readFallback(field.fallback, field.reader);
        else if (!field.optional) spot.fail(`${what} needs the key "${name}": ${field.reader.what}`);
      }
      return values as RecordValue<S>;
    },
  };
}

function list(words: readonly string[]): string {
  return words.join(', ');
}

/** Says that a name is unknown, and which one may have been meant. */
export function failUnknown(named: Named, kind: string, known: readonly string[]): never {
  const close = nearest(named.name, known);
  const hint = close ? `did you mean "${close}"?` : known.length > 0 ? `known are ${list(known)}` : 'there are none';
  return named.place.fail(`there is no ${kind} "${named.name}"; ${hint}`);
}

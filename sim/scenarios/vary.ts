/** One scenario with one of its values changed, as `--vary link.bandwidth=10..1000` asks for. */
import { isMap, isScalar, isSeq, parseDocument } from 'yaml';
import { nearest } from '../../node/config/nearest.ts';
import { ScenarioError } from './reader.ts';
import { schemaParts } from './schema.ts';

export interface Variation {
  /** What is varied, as it was asked for. */
  readonly name: string;
  readonly values: readonly { readonly value: string; readonly text: string }[];
}

/** Where the parts of the schema stand in a file; `link.bandwidth` is the bandwidth of all links. */
const collections: { readonly [part: string]: readonly string[] } = {
  site: ['sites'],
  link: ['links'],
  node: ['nodes'],
  graph: ['workload', 'graphs'],
  build: ['workload', 'builds'],
  fault: ['faults'],
};

/** Beyond this ratio of the ends, values are spread evenly by factor instead of by difference. */
const factorFrom = 8;

/**
 * The texts of the scenario with each of the values. `vary` is `PATH=VALUES`: a list `10,50,200`, or a range `10..1000`
 * with so many steps. A number without a unit has the unit that the file or the default has. Throws ScenarioError.
 */
export function varyScenario(path: string, text: string, vary: string, steps: number): Variation {
  const fail = (why: string): never => {
    throw new ScenarioError(`--vary ${vary}: ${why}`);
  };
  const [, name = '', given = ''] =
    /^([^=]+)=(.+)$/.exec(vary) ?? fail('must be KEY=VALUES, such as link.bandwidth=10..1000');
  const targets = find(text, name.split('.'), fail);
  const values =
    spread(given, targets.unit, steps) ??
    fail(`"${given}" must be a range such as 10..1000 or a list such as 10,50,200`);
  return {
    name,
    values: values.map((value) => {
      const document = parseDocument(text);
      const scalar = parseDocument(value).contents;
      for (const target of targets.paths) {
        document.setIn(target, isScalar(scalar) ? scalar.value : value);
        // A bandwidth that is varied is that of both directions, or it would change nothing.
        if (target[0] === 'links' && target.at(-1) === 'bandwidth') {
          for (const key of ['up', 'down']) document.deleteIn([...target.slice(0, -1), key]);
        }
      }
      return { value, text: document.toString() };
    }),
  };
}

interface Targets {
  readonly paths: readonly (readonly (string | number)[])[];
  readonly unit: string;
}

function find(text: string, words: readonly string[], fail: (why: string) => never): Targets {
  const document = parseDocument(text);
  const [first = '', ...others] = words;
  const part =
    first in collections ? first : Object.keys(collections).find((name) => collections[name]?.at(-1) === first);
  if (part === undefined) {
    const fields = schemaParts.find(({ name }) => name === 'scenario')?.fields ?? {};
    if (words.length === 1 && first in fields) {
      return { paths: [[first]], unit: unitOf(document.getIn([first]) ?? fields[first]?.fallback) };
    }
    const close = nearest(first, [...Object.keys(collections), ...Object.keys(fields)]);
    return fail(
      close
        ? `there is no "${first}"; did you mean "${close}"?`
        : `must begin with one of ${Object.keys(collections).join(', ')}`,
    );
  }
  const root = collections[part] as readonly string[];
  const holder = document.getIn(root);
  const names: (string | number)[] = isMap(holder)
    ? holder.items.map(({ key }) => String(isScalar(key) ? key.value : key))
    : isSeq(holder)
      ? holder.items.map((_, index) => index)
      : [];
  if (names.length === 0) fail(`the scenario has no ${root.at(-1)}`);
  const fields = schemaParts.find(({ name }) => name === part)?.fields ?? {};
  const [second = ''] = others;
  const chosen = isSeq(holder) ? (/^\d+$/.test(second) ? Number(second) - 1 : undefined) : second;
  const one = names.find((name) => name === chosen);
  if (one === undefined && !(second in fields)) {
    const close = nearest(second, [...names.map(String), ...Object.keys(fields)]);
    fail(
      `"${second}" is neither one of the ${root.at(-1)} nor a key of a ${part}${close ? `; did you mean "${close}"?` : ''}`,
    );
  }
  const keys = one === undefined ? others : others.slice(1);
  const [key = ''] = keys;
  const field = fields[key];
  if (!field) {
    const close = nearest(key, Object.keys(fields));
    return fail(`"${key}" is no key of a ${part}${close ? `; did you mean "${close}"?` : ''}`);
  }
  const paths = (one === undefined ? names : [one]).map((name) => [...root, name, ...keys]);
  return { paths, unit: unitOf(document.getIn(paths[0] as readonly unknown[]) ?? field.fallback) };
}

/** `Mbit/s` of `100Mbit/s`. */
function unitOf(value: unknown): string {
  return (typeof value === 'string' && /^[\d._]+\s*([^\d.]*)$/.exec(value)?.[1]) || '';
}

function spread(given: string, unit: string, steps: number): string[] | undefined {
  if (!given.includes('..'))
    return given.split(',').map((one) => (/^[\d.]+$/.test(one.trim()) ? `${one.trim()}${unit}` : one.trim()));
  const [, low = '', high = '', own = ''] = /^([\d.]+)\.\.([\d.]+)\s*([A-Za-z%/]*)$/.exec(given) ?? [];
  const [from, to] = [Number(low), Number(high)];
  if (!(to > from) || steps < 2) return undefined;
  const byFactor = from > 0 && to / from >= factorFrom;
  const values = Array.from({ length: steps }, (_, i) => {
    const share = i / (steps - 1);
    return byFactor ? from * (to / from) ** share : from + (to - from) * share;
  });
  const wholes = Number.isInteger(from) && Number.isInteger(to) && (own || unit) === '';
  const texts = values.map((value) => `${wholes ? Math.round(value) : Number(value.toPrecision(3))}${own || unit}`);
  return [...new Set(texts)];
}

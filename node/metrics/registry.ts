/**
 * Counters, gauges and histograms, and their text for Prometheus.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats, text format 0.0.4
 */

export type Labels<L extends string> = Readonly<Record<L, string | number>>;

export interface Counter<L extends string> {
  /** By 1 unless told otherwise; never below 0. */
  inc(labels: Labels<L>, by?: number): void;
}

export interface Histogram<L extends string> {
  observe(labels: Labels<L>, value: number): void;
}

/** One number of those that somebody else keeps. */
export interface Sample {
  readonly labels: Labels<string>;
  readonly value: number;
}

export interface Registry {
  readonly counter: <L extends string = never>(name: string, help: string, labelNames?: readonly L[]) => Counter<L>;
  /** @param buckets - upper bounds, rising; one without bound is added */
  readonly histogram: <L extends string = never>(
    name: string,
    help: string,
    labelNames: readonly L[],
    buckets: readonly number[],
  ) => Histogram<L>;
  /** Read at each scrape. */
  read(kind: 'counter' | 'gauge', name: string, help: string, read: () => number | Iterable<Sample>): void;
  text(): string;
}

type Line = readonly [name: string, labels: string, value: number];

export function createRegistry(): Registry {
  const metrics: { readonly head: string; readonly lines: () => Iterable<Line> }[] = [];
  const add = (kind: string, name: string, help: string, lines: () => Iterable<Line>) => {
    metrics.push({ head: `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n`, lines });
  };

  return {
    counter(name, help, labelNames = []) {
      const series = createSeries(labelNames, () => ({ count: 0 }));
      add('counter', name, help, () => series.all().map(([labels, { count }]) => [name, labels, count]));
      return {
        inc(labels, by = 1) {
          series.of(labels).count += by;
        },
      };
    },
    histogram(name, help, labelNames, buckets) {
      const series = createSeries(labelNames, () => ({
        counts: new Array<number>(buckets.length + 1).fill(0),
        sum: 0,
      }));
      add('histogram', name, help, () =>
        series.all().flatMap(([labels, { counts, sum }]) => {
          let below = 0;
          const lines = counts.map((count, index): Line => {
            below += count;
            return [`${name}_bucket`, joined(labels, label('le', String(buckets[index] ?? '+Inf'))), below];
          });
          return [...lines, [`${name}_sum`, labels, sum], [`${name}_count`, labels, below]];
        }),
      );
      return {
        observe(labels, value) {
          const one = series.of(labels);
          const index = buckets.findIndex((bound) => value <= bound);
          const at = index === -1 ? buckets.length : index;
          one.counts[at] = (one.counts[at] ?? 0) + 1;
          one.sum += value;
        },
      };
    },
    read(kind, name, help, read) {
      add(kind, name, help, () => {
        const found = read();
        if (typeof found === 'number') return [[name, '', found]];
        return Array.from(found, ({ labels, value }): Line => [name, labelText(labels, Object.keys(labels)), value]);
      });
    },
    text: () => metrics.map(({ head, lines }) => head + Array.from(lines(), lineText).join('')).join('\n'),
  };
}

interface Series<L extends string, T> {
  of(labels: Labels<L>): T;
  all(): [labels: string, value: T][];
}

/** Without labels there is one from the beginning, so that a scrape sees 0 and not nothing. */
function createSeries<L extends string, T>(labelNames: readonly L[], make: () => T): Series<L, T> {
  const byValues = new Map<string, { readonly text: string; readonly value: T }>();
  const of = (labels: Labels<L>): T => {
    let key = '';
    for (const name of labelNames) key += `${labels[name]}\0`;
    let one = byValues.get(key);
    if (!one) {
      one = { text: labelText(labels, labelNames), value: make() };
      byValues.set(key, one);
    }
    return one.value;
  };
  if (labelNames.length === 0) of({} as Labels<L>);
  return { of, all: () => [...byValues.values()].map(({ text, value }) => [text, value]) };
}

function labelText(labels: Labels<string>, names: readonly string[]): string {
  return names.map((name) => label(name, String(labels[name]))).join(',');
}

function label(name: string, value: string): string {
  return `${name}="${value.replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n')}"`;
}

function joined(...labels: readonly string[]): string {
  return labels.filter((text) => text !== '').join(',');
}

function lineText([name, labels, value]: Line): string {
  return `${name}${labels === '' ? '' : `{${labels}}`} ${value}\n`;
}

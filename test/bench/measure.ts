/** Paired measurement: ours and the reference in turn, several rounds, medians and the ratio of each pair. */

export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  readonly reference: number;
  readonly referenceName: string;
  /** Median of ours divided by reference, pair by pair. */
  readonly ratio: number;
}

export const rounds = 3;

/** Runs `ours` and `reference` alternately; each resolves to a figure in `unit`. */
export async function paired(
  name: string,
  unit: string,
  referenceName: string,
  ours: () => Promise<number>,
  reference: () => Promise<number>,
): Promise<Row> {
  const pairs: [number, number][] = [];
  for (let round = 0; round < rounds; round++) pairs.push([await ours(), await reference()]);
  return {
    name,
    unit,
    referenceName,
    ours: median(pairs.map(([a]) => a)),
    reference: median(pairs.map(([, b]) => b)),
    ratio: median(pairs.map(([a, b]) => a / b)),
  };
}

/** Calls per second with `concurrency` in flight for `seconds`, after a short warm-up. */
export async function perSecond(call: () => Promise<unknown>, concurrency: number, seconds: number): Promise<number> {
  const run = async (durationMs: number) => {
    const start = performance.now();
    const end = start + durationMs;
    let done = 0;
    await Promise.all(
      Array.from({ length: concurrency }, async () => {
        while (performance.now() < end) {
          await call();
          done++;
        }
      }),
    );
    return done / ((performance.now() - start) / 1000);
  };
  await run(Math.min(500, seconds * 250));
  return run(seconds * 1000);
}

export async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
}

export function formatRows(rows: readonly Row[]): string {
  const number = (value: number) =>
    value >= 1000 ? Math.round(value).toLocaleString('en') : value >= 10 ? value.toFixed(1) : value.toFixed(2);
  const cells = [
    ['what', 'ours', 'reference', 'ratio', 'unit', 'reference is'],
    ...rows.map((row) => [
      row.name,
      number(row.ours),
      number(row.reference),
      row.ratio.toFixed(2),
      row.unit,
      row.referenceName,
    ]),
  ];
  const widths = cells[0]?.map((_, column) => Math.max(...cells.map((line) => line[column]?.length ?? 0))) ?? [];
  return cells
    .map((line) =>
      line
        .map((cell, column) =>
          column >= 1 && column <= 3 ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

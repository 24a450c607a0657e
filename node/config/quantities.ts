/** Sizes and durations as people write them. Each parser returns the value or a sentence saying what is allowed. */

export type Parsed<T> = { readonly value: T } | { readonly problem: string };

const sizeUnits: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** `50GB` is 50 × 10⁹ bytes, `50GiB` is 50 × 2³⁰; a bare number counts bytes. */
export function parseSize(text: string): Parsed<number> {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const unitBytes = sizeUnits[match?.[2]?.toLowerCase() || 'b'];
  const bytes = match && unitBytes !== undefined ? Math.floor(Number(match[1]) * unitBytes) : Number.NaN;
  if (Number.isSafeInteger(bytes)) return { value: bytes };
  return { problem: 'is not a size; write bytes or a number with KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 50GB' };
}

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `500ms`, `90s`, `10m`, `2h`, `1d`, as whole milliseconds above zero. */
export function parseDuration(text: string): Parsed<number> {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/.exec(text.trim());
  const ms = match ? Math.round(Number(match[1]) * (durationUnits[match[2] ?? ''] ?? Number.NaN)) : Number.NaN;
  if (Number.isSafeInteger(ms) && ms > 0) return { value: ms };
  return { problem: 'is not a duration; write a number with ms, s, m, h or d, such as 10m' };
}

/** Figures for people. */
import type { Unit } from '../scenarios/expect.ts';

const sizeSteps = ['B', 'kB', 'MB', 'GB', 'TB'];

/** `250 ms`, `3.2 s`, `2 min 5 s`, `1 h 3 min`. */
export function showDuration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  const [hours, minutes, rest] = [Math.trunc(seconds / 3_600), Math.trunc((seconds % 3_600) / 60), seconds % 60];
  return hours > 0 ? `${hours} h ${minutes} min` : rest > 0 ? `${minutes} min ${rest} s` : `${minutes} min`;
}

/** Decimal units, as links and disks are sold: `1.2 MB`. */
export function showBytes(bytes: number): string {
  let [value, step] = [bytes, 0];
  while (value >= 999.5 && step < sizeSteps.length - 1) [value, step] = [value / 1_000, step + 1];
  return `${value.toFixed(step === 0 || value >= 99.95 ? 0 : 1).replace(/\.0$/, '')} ${sizeSteps[step]}`;
}

export function showShare(share: number): string {
  return `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)}%`;
}

export function showFactor(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 1)}×`;
}

const shows: { readonly [U in Unit]: (value: number) => string } = {
  ms: showDuration,
  bytes: showBytes,
  share: showShare,
  factor: showFactor,
  count: (value) => value.toLocaleString('en-US'),
};

/** A dash for what there is no figure of. */
export function show(unit: Unit, value: number | undefined): string {
  return value === undefined ? '–' : shows[unit](value);
}

/** `30.0 s`, or `2 min to 3 min` for a fault whose length was drawn for each machine. */
export function showSpan({ forMs, forMsMost }: { readonly forMs: number; readonly forMsMost: number }): string {
  return forMs === forMsMost ? showDuration(forMs) : `${showDuration(forMs)} to ${showDuration(forMsMost)}`;
}

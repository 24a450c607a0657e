/** Where the program speaks: results on stdout, everything else on stderr. */

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function printError(line: string): void {
  process.stderr.write(`${line}\n`);
}

export interface Progress extends Disposable {
  /** Replaces the line that is shown; drawn at most ten times a second. */
  update(line: string): void;
}

const redrawIntervalMs = 100;

/** One line that rewrites itself while long work runs; silent unless stderr is a terminal. */
export function createProgress(): Progress {
  const { stderr } = process;
  let drawnAtMs = Number.NEGATIVE_INFINITY;
  let drawn = false;
  return {
    update(line) {
      if (!stderr.isTTY || performance.now() - drawnAtMs < redrawIntervalMs) return;
      drawnAtMs = performance.now();
      drawn = true;
      stderr.write(`\r\x1b[2K${line.slice(0, Math.max(1, stderr.columns - 1))}`);
    },
    [Symbol.dispose]() {
      if (drawn) stderr.write('\r\x1b[2K');
    },
  };
}

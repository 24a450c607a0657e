/** A machine made of files, for sensors. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type SystemFiles, systemFiles } from '../../../../sandbox/idleness/files.ts';

export interface FakeMachine extends Disposable {
  readonly files: SystemFiles;
  write(path: string, text: string): void;
  /** A terminal that was last read from at a time, in milliseconds since the epoch. */
  terminal(path: string, readAtMs: number): void;
  link(path: string, target: string): void;
}

export function makeMachine(): FakeMachine {
  const root = mkdtempSync(join(tmpdir(), 'potluck-machine-'));
  const at = (path: string): string => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    return join(root, path);
  };
  return {
    files: systemFiles(root),
    write: (path, text) => writeFileSync(at(path), text),
    terminal(path, readAtMs) {
      writeFileSync(at(path), '');
      utimesSync(at(path), readAtMs / 1_000, readAtMs / 1_000);
    },
    link: (path, target) => symlinkSync(target, at(path)),
    [Symbol.dispose]: () => rmSync(root, { recursive: true }),
  };
}

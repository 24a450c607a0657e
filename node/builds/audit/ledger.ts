/**
 * What audits found, on disk: mismatches for people, and the results that must not be believed any more (tombstones), which
 * a late copy must not bring back. JSON lines, only appended to; rewritten when the file is opened.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { appendFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { OutputDifference } from './compare.ts';
import * as limits from './limits.ts';

/** Whose run it was, and what it is called. */
export interface AuditedRun {
  /** Peer id; '' for this node outside of a mesh. */
  readonly node: string;
  readonly fingerprint: string;
}

/** A result that did not come out the same again. Fields are only ever added. */
export interface Mismatch {
  /** ISO 8601. */
  readonly time: string;
  /** `function/hash/size`. */
  readonly action: string;
  readonly instance: string;
  readonly mnemonic: string;
  readonly target: string;
  /** `unconfirmed`: nobody else could run it; `refuted`: a third run agreed with the result that was known. */
  readonly verdict: 'wrong' | 'nonDeterministic' | 'unconfirmed' | 'refuted';
  /** Whether this node uses the result no more, and whether members were convinced of that. */
  readonly dropped: 'everywhere' | 'here' | 'no';
  readonly known: AuditedRun;
  readonly again: AuditedRun;
  readonly third: AuditedRun | null;
  /** The member that told it; `null` when this node found it. */
  readonly toldBy: string | null;
  /** Outputs of the result that was known against those of the run that differed. Empty when a member told it. */
  readonly differences: readonly OutputDifference[];
  /** Differences beyond those. */
  readonly more: number;
  /** Of standard output and error. */
  readonly streams: readonly OutputDifference[];
}

export interface Ledger {
  add(mismatch: Mismatch): void;
  /** Newest first. */
  mismatches(): Mismatch[];
  /** Whether a result of the action with this fingerprint was dropped. */
  isDropped(action: string, instance: string, fingerprint: string): boolean;
  /** Whether any result of the action was. */
  hasDropped(action: string, instance: string): boolean;
  /** Whether one was dropped here alone: members may still have it. */
  isDroppedHere(action: string, instance: string): boolean;
  /** Whether the action did not come out the same twice, once. */
  isNonDeterministic(action: string, instance: string): boolean;
  /** Resolves when everything added is written. */
  settled(): Promise<void>;
}

/** @param path - a file; made with its directory when something is added */
export function openLedger(path: string, onProblem: (reason: string) => void): Ledger {
  const all = readLedger(path);
  const dropped = new Map<string, Set<string>>();
  const droppedHere = new Set<string>();
  const nonDeterministic = new Set<string>();
  let writing: Promise<void> = Promise.resolve();
  for (const mismatch of all) index(mismatch);
  if (all.length > 0) {
    writeFileSync(`${path}.new`, all.map(lineOf).join(''), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  function index({ action, instance, known, verdict, dropped: how }: Mismatch): void {
    if (how === 'no') return;
    const key = `${action} ${instance}`;
    if (how === 'here') droppedHere.add(key);
    if (verdict === 'nonDeterministic') nonDeterministic.add(key);
    dropped.set(key, (dropped.get(key) ?? new Set()).add(known.fingerprint));
  }

  return {
    add(mismatch) {
      all.push(mismatch);
      if (all.length > limits.mismatchesMax) all.shift();
      index(mismatch);
      writing = writing
        .then(() => {
          mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
          return appendFile(path, lineOf(mismatch), { mode: 0o600 });
        })
        .catch((error: Error) => onProblem(`what the audit found is not kept over a restart: ${error.message}`));
    },
    mismatches: () => [...all].reverse(),
    isDropped: (action, instance, fingerprint) => dropped.get(`${action} ${instance}`)?.has(fingerprint) ?? false,
    hasDropped: (action, instance) => dropped.has(`${action} ${instance}`),
    isDroppedHere: (action, instance) => droppedHere.has(`${action} ${instance}`),
    isNonDeterministic: (action, instance) => nonDeterministic.has(`${action} ${instance}`),
    settled: () => writing,
  };
}

function lineOf(mismatch: Mismatch): string {
  return `${JSON.stringify(mismatch)}\n`;
}

/** A line that a crash tore is left out. */
function readLedger(path: string): Mismatch[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return [];
  }
  const found = text.split('\n').flatMap((line): Mismatch[] => {
    try {
      return line === '' ? [] : [JSON.parse(line) as Mismatch];
    } catch {
      return [];
    }
  });
  return found.slice(-limits.mismatchesMax);
}

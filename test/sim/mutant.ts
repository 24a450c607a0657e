/** Runs mutants: copies the sources aside, edits the copy, and simulates seeds with it on a thread. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { SeedTask } from '../../sim/sweep.ts';
import type { RunReport } from '../../sim/universe.ts';
import { type Mutation, mutationMinutes, mutationNodes } from './mutations.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const copied = ['mesh/core', 'node/mesh', 'sim', 'protos/digest.ts', 'package.json'];

export interface Mutant extends AsyncDisposable {
  run(seed: number): Promise<RunReport>;
}

/** Makes a mutant. Throws when an edit does not apply to exactly one place: the source has moved on. */
export function createMutant(
  mutation: Pick<Mutation, 'name' | 'edits' | 'nodes' | 'minutes' | 'calm'>,
  workerFile = 'sim/worker.ts',
): Mutant {
  const dir = mkdtempSync(join(tmpdir(), 'potluck-mutant-'));
  for (const path of copied) cpSync(join(root, path), join(dir, path), { recursive: true });
  for (const { file, find, replace } of mutation.edits) {
    const path = join(dir, file);
    const source = readFileSync(path, 'utf8');
    const places = source.split(find).length - 1;
    if (places !== 1) {
      rmSync(dir, { recursive: true, force: true });
      throw new Error(`${mutation.name}: ${file} has ${places} places for the edit; it needs exactly one`);
    }
    writeFileSync(
      path,
      source.replace(find, () => replace),
    );
  }
  const worker = new Worker(pathToFileURL(join(dir, workerFile)));
  return {
    run(seed) {
      const task: SeedTask = {
        seed,
        nodes: mutation.nodes ?? mutationNodes,
        minutes: mutation.minutes ?? mutationMinutes,
        calm: mutation.calm ?? false,
      };
      return new Promise((resolve, reject) => {
        worker.once('error', reject);
        worker.once('message', (report: RunReport) => {
          worker.off('error', reject);
          resolve(report);
        });
        worker.postMessage(task);
      });
    },
    async [Symbol.asyncDispose]() {
      await worker.terminate();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

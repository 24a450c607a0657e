/** A thread of a sweep: runs one seed per message. */
import { parentPort } from 'node:worker_threads';
import { simulate } from './simulate.ts';
import type { SeedTask } from './sweep.ts';

parentPort?.on('message', (task: SeedTask) => parentPort?.postMessage(simulate(task)));

/** A thread of a sweep over the world of blobs: runs one seed per message. */
import { parentPort } from 'node:worker_threads';
import type { BlobPlanOptions } from './plan.ts';
import { runBlobs } from './world.ts';

parentPort?.on('message', (task: BlobPlanOptions) => parentPort?.postMessage(runBlobs(task)));

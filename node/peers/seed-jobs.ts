/** Seedings that the owner of this node asked for: each runs on, and tells how far it is whenever it is asked. */
import { readFile } from 'node:fs/promises';
import type { Member } from '../../mesh/core/membership/membership.ts';
import { parseDigestKey } from '../../mesh/net/data/wire.ts';
import { type Digest, makeDigest, resolveDigestFunction } from '../../protos/digest.ts';
import { DigestFunction_Value } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import type { ActionCache, ActionKey } from '../storage/action-cache.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import { closureOfAction, closureOfTree } from './closure.ts';
import * as limits from './limits.ts';
import type { SeedOptions, SeedProgress } from './seeding.ts';

/** What to seed: digests as `hash/size`, or a file with one in each line. */
export type SeedWhat =
  | { readonly kind: 'action'; readonly digest: string }
  | { readonly kind: 'tree'; readonly digest: string }
  | { readonly kind: 'blobs'; readonly path: string };

export type SeedRequest =
  /** `to`: a peer id, the beginning of one, or a site, of which at most `replicas` members get all. */
  | { readonly step: 'start'; readonly to: string; readonly replicas: number; readonly what: SeedWhat }
  | { readonly step: 'progress'; readonly job: number };

export interface SeedReport {
  readonly job: number;
  readonly isDone: boolean;
  /** One for each member that is seeded. */
  readonly targets: readonly ({ readonly peer: string; readonly error?: string } & SeedProgress)[];
}

export interface SeedJobsOptions {
  readonly blobs: Pick<BlobStore, 'get' | 'missing'>;
  readonly actions: Pick<ActionCache, 'get'>;
  readonly members: () => readonly Member[];
  readonly self: string;
  readonly seed: (peer: string, digests: readonly Digest[], options: SeedOptions) => Promise<void>;
  /** Tells a member the result of an action, if there is one here. */
  readonly tell: (peer: string, key: ActionKey, signal: AbortSignal) => Promise<void>;
}

interface Target extends SeedProgress {
  readonly peer: string;
  error?: string;
}

interface Job {
  readonly targets: Target[];
  isDone: boolean;
  readonly ended: Promise<void>;
}

export interface SeedJobs {
  handle(request: SeedRequest): Promise<SeedReport>;
  close(): Promise<void>;
}

export function createSeedJobs(options: SeedJobsOptions): SeedJobs {
  const jobs = new Map<number, Job>();
  const closing = new AbortController();
  let nextJob = 1;

  async function start(request: SeedRequest & { step: 'start' }): Promise<number> {
    const peers = targetsOf(request.to, request.replicas);
    const digests = await digestsOf(request.what);
    const totalBytes = digests.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const targets = peers.map((peer) => ({
      peer,
      doneBlobs: 0,
      doneBytes: 0,
      totalBlobs: digests.length,
      totalBytes,
    })) as Target[];
    const ended = Promise.all(
      targets.map(async (target) => {
        try {
          const onProgress = (progress: SeedProgress): void => void Object.assign(target, progress);
          await options.seed(target.peer, digests, { signal: closing.signal, onProgress });
          if (request.what.kind === 'action') {
            const key = { instance: '', action: parseDigest(request.what.digest) };
            await options.tell(target.peer, key, closing.signal);
          }
        } catch (error) {
          target.error = toStatusError(error).reason;
        }
      }),
    ).then(() => {
      job.isDone = true;
    });
    const job: Job = { targets, isDone: false, ended };
    const number = nextJob++;
    jobs.set(number, job);
    for (const [old, { isDone }] of jobs) if (isDone && old !== number) jobs.delete(old);
    return number;
  }

  function targetsOf(to: string, replicas: number): string[] {
    const alive = options.members().filter(({ record, status }) => status === 'alive' && record.id !== options.self);
    const named = alive.filter(({ record }) => record.id === to || (to.length >= 6 && record.id.includes(to)));
    const ofSite = alive.filter(({ record }) => record.attributes.site === to && to !== '').slice(0, replicas);
    const targets = named.length > 0 ? named : ofSite;
    if (named.length > 1)
      throw new StatusError('INVALID_ARGUMENT', `"${to}" is the beginning of more than one peer id`);
    if (targets.length === 0)
      throw new StatusError('NOT_FOUND', `no live member or site is called "${to}"; see potluck peers`);
    return targets.map(({ record }) => record.id);
  }

  async function digestsOf(what: SeedWhat): Promise<Digest[]> {
    const { blobs, actions } = options;
    if (what.kind === 'action') return await closureOfAction(blobs, actions, parseDigest(what.digest));
    if (what.kind === 'tree') return await closureOfTree(blobs, parseDigest(what.digest));
    const { path } = what;
    const text = await readFile(path, 'utf8').catch((cause: Error) => {
      throw new StatusError('INVALID_ARGUMENT', `cannot read ${path}: ${cause.message}`, { cause });
    });
    const lines = text.split('\n').filter((line) => line.trim() !== '');
    if (lines.length > limits.closureMax) throw new StatusError('INVALID_ARGUMENT', `${path} names too many blobs`);
    const digests = lines.map((line) => parseDigest(line.trim()));
    const missing = await blobs.missing(digests);
    if (missing.length > 0)
      throw new StatusError('NOT_FOUND', `${missing.length} of ${digests.length} blobs are not here`);
    return digests;
  }

  return {
    async handle(request) {
      const number = request.step === 'start' ? await start(request) : request.job;
      const job = jobs.get(number);
      if (!job) throw new StatusError('NOT_FOUND', 'that seeding is over');
      // So that whoever watches need not ask all the time.
      await Promise.race([job.ended, new Promise((resolve) => setTimeout(resolve, limits.seedReportMs))]);
      return { job: number, isDone: job.isDone, targets: job.targets };
    },
    async close() {
      closing.abort();
      await Promise.all([...jobs.values()].map(({ ended }) => ended));
    },
  };
}

/** `hash/size`, or `function/hash/size`. Throws INVALID_ARGUMENT. */
function parseDigest(text: string): Digest {
  const parts = text.split('/');
  if (parts.length === 3) return parseDigestKey(text);
  const [hash = '', size = ''] = parts;
  if (parts.length !== 2 || !/^\d{1,16}$/.test(size)) {
    throw new StatusError('INVALID_ARGUMENT', `"${text.slice(0, 200)}" is no digest; write HASH/SIZE`);
  }
  return makeDigest(resolveDigestFunction(DigestFunction_Value.UNKNOWN, hash), hash, Number(size));
}

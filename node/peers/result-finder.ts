/**
 * Finds results at members: each is asked for many actions in one call. The coordinators' registers take this over once
 * shards are formed; until then every live member is asked.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DataClient } from '../../mesh/net/data/client.ts';
import { digestFunctions, type DigestFunction, makeDigest } from '../../protos/digest.ts';
import {
  type ResultKey,
  ResultsRequestSchema,
  ResultsResponseSchema,
  type VouchedResult,
} from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { StatusError } from '../../protos/status.ts';
import type { ActionKey } from '../storage/action-cache.ts';
import * as limits from './limits.ts';

/** A result that a member told, unchecked. */
export interface ToldResult {
  readonly from: string;
  readonly vouched: VouchedResult;
}

export interface ResultFinder {
  /** What members tell about an action, as they tell it, as far as it comes within the budget. */
  find(key: ActionKey): AsyncIterable<ToldResult>;
  /** The member told something that cannot be true; it is not asked for a while. */
  bench(peer: string): void;
}

export interface ResultFinderOptions {
  readonly client: Pick<DataClient, 'call'>;
  /** Live members, nearest first. */
  readonly members: () => readonly string[];
  readonly nowMs?: () => number;
}

export const resultsCall = 'results';
/** Results that nobody asked for. */
export const tellCall = 'tell';

interface Asked {
  readonly key: ActionKey;
  readonly told: ToldResult[];
  /** Every member has answered, or has had its time. */
  isOver: boolean;
  /** Resolves at the next change of the two. */
  changed: PromiseWithResolvers<void>;
}

interface Pause {
  readonly untilMs: number;
  readonly lengthMs: number;
}

export function createResultFinder(options: ResultFinderOptions): ResultFinder {
  const { client, members, nowMs = () => performance.now() } = options;
  const paused = new Map<string, Pause>();
  let gathered: Asked[] = [];
  /** Calls under way. */
  let calls = 0;

  function pause(peer: string, firstMs: number, maxMs: number): void {
    const before = paused.get(peer);
    const lengthMs = Math.min(maxMs, Math.max(firstMs, 2 * (before?.lengthMs ?? 0)));
    // A member that lied does not get away with falling silent.
    paused.set(peer, { untilMs: Math.max(nowMs() + lengthMs, before?.untilMs ?? 0), lengthMs });
  }

  async function ask(peer: string, asked: readonly Asked[]): Promise<void> {
    const request = create(ResultsRequestSchema, { keys: asked.map(({ key }) => toWireKey(key)) });
    try {
      const signal = AbortSignal.timeout(limits.resultBudgetMs);
      const body = toBinary(ResultsRequestSchema, request);
      calls += 1;
      const answer = await client
        .call(peer, resultsCall, body, { signal, urgency: 'build' })
        .finally(() => (calls -= 1));
      const { results } = fromBinary(ResultsResponseSchema, answer);
      if (results.length !== asked.length)
        throw new StatusError('DATA_LOSS', 'another number of answers than questions');
      paused.delete(peer);
      for (const [at, vouched] of results.entries()) {
        if (vouched.statement) tell(asked[at] as Asked, { from: peer, vouched });
      }
    } catch {
      // Whoever does not answer must not cost every build its budget.
      pause(peer, limits.silentPauseMs, limits.silentPauseMsMax);
    }
  }

  async function send(asked: readonly Asked[]): Promise<void> {
    const now = nowMs();
    const peers = members()
      .filter((peer) => (paused.get(peer)?.untilMs ?? 0) <= now)
      .slice(0, limits.resultPeersMax);
    await Promise.all(peers.map((peer) => ask(peer, asked)));
    for (const one of asked) {
      one.isOver = true;
      one.changed.resolve();
    }
  }

  function tell(asked: Asked, told: ToldResult): void {
    asked.told.push(told);
    asked.changed.resolve();
    asked.changed = Promise.withResolvers();
  }

  function flush(): void {
    const all = gathered;
    gathered = [];
    for (let at = 0; at < all.length; at += limits.resultsPerCall) {
      void send(all.slice(at, at + limits.resultsPerCall));
    }
  }

  return {
    async *find(key) {
      if (members().length === 0) return;
      const asked: Asked = { key, told: [], isOver: false, changed: Promise.withResolvers() };
      // A build that asks for one at a time does not wait for others to come.
      if (gathered.length === 0 && calls === 0) setImmediate(flush);
      else if (gathered.length === 0) setTimeout(flush, limits.resultGatherMs);
      gathered.push(asked);
      for (let at = 0; ; at += 1) {
        while (at === asked.told.length && !asked.isOver) await asked.changed.promise;
        const told = asked.told[at];
        if (!told) return;
        yield told;
      }
    },
    bench: (peer) => pause(peer, limits.benchMs, limits.benchMsMax),
  };
}

export function toWireKey({ instance, action }: ActionKey): Omit<ResultKey, '$typeName' | '$unknown'> {
  return {
    instance,
    digestFunction: action.fn,
    actionHash: action.hash,
    actionSizeBytes: BigInt(action.sizeBytes),
  };
}

/** Throws INVALID_ARGUMENT. */
export function fromWireKey(key: ResultKey): ActionKey {
  if (!Object.hasOwn(digestFunctions, key.digestFunction)) {
    throw new StatusError('INVALID_ARGUMENT', `"${key.digestFunction.slice(0, 20)}" is no digest function`);
  }
  const fn = key.digestFunction as DigestFunction;
  return { instance: key.instance, action: makeDigest(fn, key.actionHash, key.actionSizeBytes) };
}

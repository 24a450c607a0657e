/**
 * The action cache with the mesh behind it: results of this node are vouched for as they are stored; a result that is not
 * here is looked for at members, checked, and served once all its blobs are here (rule 2: presence is a promise).
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { ResultEntry } from '../../mesh/core/registers/types.ts';
import { parseDigestKey } from '../../mesh/net/data/wire.ts';
import { type Digest, digestKey } from '../../protos/digest.ts';
import type { ActionResult } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import {
  ResultsRequestSchema,
  ResultsResponseSchema,
  type VouchedResult,
  VouchedResultSchema,
} from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { digestOf } from '../../protos/hasher.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import type { ActionCache, ActionKey } from '../storage/action-cache.ts';
import type { BlobStore } from '../storage/blob-store.ts';
import { createResultClosures } from '../storage/result-closure.ts';
import type { Fetches } from './fetches.ts';
import * as limits from './limits.ts';
import type { Registers } from './registers.ts';
import { fromWireKey, type ResultFinder } from './result-finder.ts';
import { apart, keyOf, type SandboxClass, type Vouching, withoutVoucher, withVoucher } from './vouching.ts';

export interface PeerActionsOptions {
  readonly local: ActionCache;
  readonly blobs: Pick<BlobStore, 'get' | 'missing'>;
  readonly vouching: Vouching;
  readonly finder: ResultFinder;
  /** The coordinators, while somebody speaks to them for this node. */
  readonly registers?: () => Registers | undefined;
  /** Results that are not taken from anybody: an audit found them wrong. */
  readonly isDropped?: (key: ActionKey, result: ActionResult) => boolean;
  readonly fetches: Pick<Fetches, 'fetch'>;
  /** A result of this node's own was stored. */
  readonly onStored?: (key: ActionKey) => void;
  readonly onFound?: (key: ActionKey, from: string, executor: string) => void;
  /** A member told something that is not so; a sentence. */
  readonly onRefused?: (peer: string, reason: string) => void;
  /** A result is known, but its blobs could not be had; a sentence. */
  readonly onIncomplete?: (reason: string) => void;
}

export interface PeerActions {
  /** The cache for results that come in this way. */
  as(sandboxClass: SandboxClass): ActionCache;
  /** Keeps a result with the word that was checked, or signed, for it; its blobs are here. */
  keep(key: ActionKey, result: ActionResult, vouched: VouchedResult): Promise<void>;
  /** Answers a member that asks for results: those whose blobs are all here. */
  answer(body: Uint8Array): Promise<Uint8Array>;
  /** A result of this cache as others take it, with all blobs that it names; `undefined` when there is none. */
  share(key: ActionKey): Promise<{ readonly told: Uint8Array; readonly needed: Digest[] } | undefined>;
  /** Keeps results that a member tells unasked: those that are believed, new here, and whose blobs are all here. */
  take(body: Uint8Array): Promise<Uint8Array>;
}

export function createPeerActions(options: PeerActionsOptions): PeerActions {
  const {
    local,
    blobs,
    vouching,
    finder,
    registers = () => undefined,
    isDropped = () => false,
    fetches,
    onStored = () => {},
    onFound = () => {},
    onRefused = () => {},
    onIncomplete = () => {},
  } = options;
  const looking = new Map<string, Promise<ActionResult | undefined>>();

  /** Brings every blob that the result names; false when one of them cannot be had. */
  async function bring(result: ActionResult, fn: Digest['fn'], hints: readonly string[]): Promise<boolean> {
    const fetch = (digest: Digest): Promise<boolean> => fetches.fetch(digest, { hints });
    const closures = createResultClosures({
      get: async (digest) => (await blobs.get(digest)) ?? ((await fetch(digest)) ? await blobs.get(digest) : undefined),
    });
    const { needed, missing } = await closures.of(result, fn);
    if (missing.length > 0) return false;
    const absent = await blobs.missing(needed);
    for (let at = 0; at < absent.length; at += limits.wantsPerTurn) {
      const brought = await Promise.all(absent.slice(at, at + limits.wantsPerTurn).map(fetch));
      if (brought.includes(false)) return false;
    }
    return true;
  }

  /** Keeps what a member told, if it is believed and all that it names can be had. */
  async function accept(key: ActionKey, from: string, vouched: VouchedResult): Promise<ActionResult | undefined> {
    const what = `the result of action ${digestKey(key.action)}`;
    const checked = vouching.check(key, vouched);
    if (checked.refused !== undefined) {
      if (!checked.isLie) return undefined;
      finder.bench(from);
      onRefused(from, `its result of action ${digestKey(key.action)} was not taken: ${checked.refused}`);
      return undefined;
    }
    const { result, executor } = checked;
    if (isDropped(key, result)) return undefined;
    const hints = [...new Set([from, executor.peerId])];
    try {
      if (!(await bring(result, key.action.fn, hints))) {
        onIncomplete(`${what} is known to ${from}, but its blobs did not come`);
        return undefined;
      }
      await local.put(key, withVoucher(result, vouched));
    } catch (error) {
      // A result that names nonsense, or blobs that went while it was stored, is no result.
      if (!(error instanceof StatusError)) throw error;
      onIncomplete(`${what} from ${from} was not kept: ${error.reason}`);
      return undefined;
    }
    onFound(key, from, executor.peerId);
    return result;
  }

  /** What the coordinators say, fetched from who holds it. */
  async function fromRegister(key: ActionKey, { result, executor, holders }: ResultEntry) {
    const digest = parseDigestKey(result);
    if (digest.sizeBytes > limits.resultBytesMax) return undefined;
    const hints = [...new Set([executor, ...holders.map(({ holder }) => holder)])];
    const bytes = (await blobs.get(digest)) ?? ((await fetches.fetch(digest, { hints })) && (await blobs.get(digest)));
    if (!bytes) return undefined;
    const vouched = parseVouched(bytes);
    const checked = vouched && vouching.check(key, vouched);
    // Nobody else should come across it.
    if (!checked || (checked.refused !== undefined && checked.isLie)) registers()?.invalidate(key, result, 'wrong');
    return vouched && (await accept(key, executor, vouched));
  }

  async function lookFor(key: ActionKey): Promise<ActionResult | undefined> {
    const looked = registers()?.lookUp(key);
    // Members are asked meanwhile: what was made while nobody led its shard is in no register.
    const copies = finder.find(key)[Symbol.asyncIterator]();
    const firstCopy = looked && copies.next();
    const register = (await looked)?.register;
    if (register?.kind === 'result') {
      const result = await fromRegister(key, register);
      if (result) {
        void copies.return?.();
        return result;
      }
    }
    // Whoever asks gets what the register says, or nothing: a copy of anything else would be another answer.
    const isTold = (name: string): boolean =>
      register === undefined || (register.kind === 'result') === (name === register.result);
    for (let next = await (firstCopy ?? copies.next()); !next.done; next = await copies.next()) {
      const { from, vouched } = next.value;
      if (!isTold(nameOf(key, vouched))) continue;
      const result = await accept(key, from, vouched);
      if (result) return result;
    }
    return undefined;
  }

  async function get(key: ActionKey, callOptions: Parameters<ActionCache['get']>[1]) {
    const stored = await local.get(key, callOptions);
    if (stored) return apart(stored).result;
    const name = `${digestKey(key.action)} ${key.instance}`;
    const running = looking.get(name);
    if (running) return await inTime(running);
    const found = lookFor(key).finally(() => looking.delete(name));
    looking.set(name, found);
    return await inTime(found);
  }

  async function told(key: ActionKey): Promise<VouchedResult> {
    const stored = await local.get(key);
    if (!stored) return create(VouchedResultSchema);
    const { result, vouched } = apart(stored);
    // What was stored before this node was in a mesh is its own.
    return vouched ?? vouching.vouch(key, result, 'unknown');
  }

  return {
    as: (sandboxClass) => ({
      get,
      async put(key, result, callOptions) {
        const own = withoutVoucher(result);
        const vouched = vouching.vouch(key, own, sandboxClass);
        await local.put(key, withVoucher(own, vouched), callOptions);
        onStored(key);
        // In the background: the client has what it came for.
        registers()
          ?.publish(key, own, vouched)
          .catch((error: unknown) => onIncomplete(`a result was not published: ${toStatusError(error).reason}`));
      },
    }),

    async keep(key, result, vouched) {
      await local.put(key, withVoucher(result, vouched));
      onStored(key);
    },

    async share(key) {
      const vouched = await told(key);
      const checked = vouching.check(key, vouched);
      if (checked.refused !== undefined) return undefined;
      const { needed } = await createResultClosures(blobs).of(checked.result, key.action.fn);
      return { told: toBinary(ResultsResponseSchema, create(ResultsResponseSchema, { results: [vouched] })), needed };
    },

    async take(body) {
      for (const vouched of fromBinary(ResultsResponseSchema, body).results.slice(0, limits.resultsPerCall)) {
        const key = keyOf(vouched);
        const checked = key && vouching.check(key, vouched);
        if (!key || !checked || checked.refused !== undefined || (await local.get(key))) continue;
        await local.put(key, withVoucher(checked.result, vouched));
      }
      return new Uint8Array();
    },

    async answer(body) {
      const { keys } = fromBinary(ResultsRequestSchema, body);
      if (keys.length > limits.resultsPerCall) throw new StatusError('INVALID_ARGUMENT', 'too many results asked for');
      const results: VouchedResult[] = [];
      let bytes = 0;
      for (const key of keys) {
        const vouched = await told(fromWireKey(key));
        const sizeBytes = toBinary(VouchedResultSchema, vouched).byteLength;
        const fits = sizeBytes <= limits.resultBytesMax && bytes + sizeBytes <= limits.resultsBytesMax;
        if (fits) bytes += sizeBytes;
        results.push(fits ? vouched : create(VouchedResultSchema));
      }
      return toBinary(ResultsResponseSchema, create(ResultsResponseSchema, { results }));
    },
  };
}

/** `undefined` when it takes longer than a client waits. */
async function inTime<T>(work: Promise<T>): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), limits.bringMs);
  return await Promise.race([work, late.promise]).finally(() => clearTimeout(timer));
}

/** The name under which registers know a result. */
function nameOf({ action }: ActionKey, vouched: VouchedResult): string {
  return digestKey(digestOf(action.fn, toBinary(VouchedResultSchema, vouched)));
}

function parseVouched(bytes: Uint8Array): VouchedResult | undefined {
  try {
    return fromBinary(VouchedResultSchema, bytes);
  } catch {
    return undefined;
  }
}

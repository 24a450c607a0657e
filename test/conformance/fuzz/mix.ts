/** Rounds of everything: properties and abuse side by side with a client that must be served all the while. */
import fc from 'fast-check';
import assert from 'node:assert';
import { Capabilities } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { type Context, openContext, type Target } from '../context.ts';
import { put, readBlob, readName } from '../fixtures.ts';
import { abuses } from './abuse.ts';
import { properties } from './properties.ts';

/** A client that does nothing wrong waits at most so long for a small request. */
const patienceMs = 10_000;

export interface Round {
  /** Property runs and abuse cases. */
  readonly cases: number;
  /** Requests of the client that does nothing wrong. */
  readonly served: number;
}

/**
 * One round: `runs` runs of the cheapest property and fewer of the dearer ones, each abuse once, in parallel. The same
 * seed makes the same requests. Throws with the smallest failing case.
 */
export async function fuzzRound(target: Target, seed: number, runs: number): Promise<Round> {
  const context = await openContext(target, { seed });
  const random = mulberry32(seed);
  let over = false;
  let cases = 0;
  try {
    const bystander = serveAll(context, () => over);
    const work = [
      ...properties.map(async (one) => {
        const numRuns = Math.max(1, Math.round(runs / one.weight));
        await fc.assert(one.property(context) as fc.IAsyncProperty<unknown>, {
          seed,
          numRuns,
          includeErrorInReport: true,
        });
        cases += numRuns;
      }),
      (async () => {
        for (const abuse of abuses) {
          await abuse.run(context, random).catch((error: unknown) => {
            throw new Error(`${abuse.name}: ${(error as Error).message}`, { cause: error });
          });
          cases += 1;
        }
      })(),
    ];
    const results = await Promise.allSettled(work);
    over = true;
    const served = await bystander;
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
    return { cases, served };
  } finally {
    context.client.close();
  }
}

async function serveAll(context: Context, over: () => boolean): Promise<number> {
  const own = await openContext(context, { seed: 0x5e6e });
  let served = 0;
  try {
    while (!over()) {
      const options = { deadlineMs: patienceMs };
      const reply = await own.client.unary(
        Capabilities.method.getCapabilities,
        { instanceName: own.instance },
        options,
      );
      assert(reply.code === 'OK', `another client was refused: ${reply.code} ${reply.message}`);
      const bytes = own.fresh(1000);
      const read = await readBlob(own, readName(own, await put(own, bytes)), options);
      assert(
        read.code === 'OK' && read.bytes.equals(bytes),
        `another client cannot read: ${read.code} ${read.message}`,
      );
      served += 1;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return served;
  } finally {
    own.client.close();
  }
}

/** A small seeded generator: 32 bits of state are plenty to choose where to cut a frame. */
function mulberry32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Random operations on blobs that share chunks, against a model that knows of each whether it is a file, a list, or not
 * there. Who is evicted is the store's choice: there the model takes over what it finds, within what it may find.
 */
import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import type { BlobReader, Pin } from '../../../../node/storage/blob-store.ts';
import { type Blob, blobOf, chunksOf, readAll } from '../../../contract/blobs.ts';
import { randomFrom } from './random.ts';
import { type TempStore, tempStore } from './temp-store.ts';

const random = randomFrom(11);
const chunks = [900_000, 5_000, 700_000, 600_000, 1_100_000].map((size) =>
  blobOf(Buffer.alloc(size, random.bytes(4_096))),
);
/** Which chunks make up a blob; one comes twice in the last. */
const recipes = [
  [0, 1, 2, 3],
  [0, 1, 4, 2],
  [4, 4, 1],
] as const;
const wholes = recipes.map((recipe) => blobOf(Buffer.concat(recipe.map((at) => (chunks[at] as Blob).bytes))));

interface Model {
  readonly chunks: boolean[];
  readonly forms: ('file' | 'list' | undefined)[];
  /** By whole: what keeps it and, if it is a list, its chunks. */
  readonly holders: { readonly at: number; readonly reader?: BlobReader; readonly pin?: Pin }[];
}

const isHeld = ({ chunks, forms }: Model, at: number): boolean =>
  forms[at] === 'file' || (forms[at] === 'list' && (recipes[at] ?? []).every((chunk) => chunks[chunk]));

const isKept = (model: Model, at: number): boolean => model.holders.some((holder) => holder.at === at);
const isChunkKept = (model: Model, chunk: number): boolean =>
  model.holders.some(({ at }) => model.forms[at] === 'list' && recipes[at]?.some((part) => part === chunk));

type Step =
  | { readonly kind: 'putChunk' | 'loseChunk'; readonly chunk: number; readonly how: 'gone' | 'flipped' }
  | { readonly kind: 'put' | 'arrive' | 'splice' | 'read' | 'open' | 'pin' | 'copy'; readonly at: number }
  | { readonly kind: 'putAllChunks' | 'letGo' | 'gc' | 'restart' | 'verify' };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('putChunk', 'loseChunk'),
    chunk: fc.nat(chunks.length - 1),
    how: fc.constantFrom('gone', 'flipped'),
  }),
  fc.record({
    kind: fc.constantFrom('put', 'arrive', 'splice', 'splice', 'splice', 'read', 'open', 'pin', 'copy'),
    at: fc.nat(wholes.length - 1),
  }),
  fc.record({ kind: fc.constantFrom('putAllChunks', 'putAllChunks', 'letGo', 'gc', 'restart', 'verify') }),
);

async function letGo(model: Model): Promise<void> {
  for (const { reader, pin } of model.holders.splice(0)) {
    pin?.[Symbol.dispose]();
    await reader?.[Symbol.asyncDispose]();
  }
}

async function flip(path: string): Promise<void> {
  const bytes = await readFile(path);
  bytes[1_000] = (bytes[1_000] ?? 0) ^ 1;
  await chmod(path, 0o644);
  await writeFile(path, bytes);
}

async function perform(subject: TempStore, model: Model, step: Step): Promise<void> {
  const { blobs } = subject.store;
  if ('chunk' in step) {
    const chunk = chunks[step.chunk] as Blob;
    if (step.kind === 'putChunk') {
      expect(await blobs.putMany([chunk])).toEqual([undefined]);
      model.chunks[step.chunk] = true;
    } else if (model.chunks[step.chunk] && chunk.digest.sizeBytes > 8_000) {
      if (step.how === 'gone') await rm(subject.fileOf(chunk.digest));
      else await flip(subject.fileOf(chunk.digest));
      expect((await blobs.get(chunk.digest)) === undefined).toBe(true);
      model.chunks[step.chunk] = false;
    }
    return;
  }
  if ('at' in step) {
    const { at } = step;
    const whole = wholes[at] as Blob;
    const parts = (recipes[at] ?? []).map((chunk) => (chunks[chunk] as Blob).digest);
    const wasHeld = isHeld(model, at);
    switch (step.kind) {
      case 'put':
        await blobs.put(whole.digest, chunksOf(whole.bytes, 300_000));
        if (!wasHeld) model.forms[at] = 'file';
        return;
      case 'arrive': {
        await using arrival = await blobs.arrive(whole.digest);
        await arrival.write(1_000_000, [whole.bytes.subarray(1_000_000)]);
        await arrival.write(0, [whole.bytes.subarray(0, 1_000_000)]);
        await arrival.finish();
        if (!wasHeld) model.forms[at] = 'file';
        return;
      }
      case 'splice': {
        if ((recipes[at] ?? []).some((chunk) => !model.chunks[chunk])) {
          await expect(blobs.putChunked(whole.digest, parts)).rejects.toMatchObject({ code: 'NOT_FOUND' });
          return;
        }
        await blobs.putChunked(whole.digest, parts);
        if (!isKept(model, at)) model.forms[at] = 'list';
        else if (!wasHeld) model.forms[at] = 'file';
        return;
      }
      case 'read': {
        const bytes = await blobs.get(whole.digest);
        expect(bytes && Buffer.compare(bytes, whole.bytes)).toBe(wasHeld ? 0 : undefined);
        await using reader = await blobs.open(whole.digest);
        const part = reader && (await readAll(reader, { offset: 899_990, length: 1_000_000 }));
        expect(part?.equals(whole.bytes.subarray(899_990, 1_899_990))).toBe(wasHeld ? true : undefined);
        return;
      }
      case 'open': {
        const reader = await blobs.open(whole.digest);
        expect(reader !== undefined).toBe(wasHeld);
        if (reader) model.holders.push({ at, reader });
        return;
      }
      case 'pin': {
        const pin = await blobs.pin([whole.digest]);
        expect(pin.missing.length).toBe(wasHeld ? 0 : 1);
        if (wasHeld) model.holders.push({ at, pin });
        return;
      }
      case 'copy': {
        const path = `${subject.dataDir}-copy`;
        for (const how of ['copyTo', 'linkTo'] as const) {
          expect(await blobs[how](whole.digest, path, { executable: true })).toBe(wasHeld);
          if (wasHeld) expect((await readFile(path)).equals(whole.bytes)).toBe(true);
          await rm(path, { force: true });
        }
        return;
      }
    }
  }
  switch (step.kind) {
    case 'putAllChunks':
      expect((await blobs.putMany(chunks)).filter(Boolean)).toEqual([]);
      model.chunks.fill(true);
      return;
    case 'letGo':
      return letGo(model);
    case 'restart':
      await letGo(model);
      return subject.reopen();
    case 'verify':
      expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });
      return;
    case 'gc': {
      await subject.store.gc({ targetBytes: 0 });
      // Chunks first: a list is not asked for before the model knows what it still may be.
      for (const [at, { digest }] of chunks.entries()) {
        const isThere = (await blobs.missing([digest])).length === 0;
        if (!model.chunks[at]) expect(isThere).toBe(false);
        if (model.chunks[at] && isChunkKept(model, at)) expect(isThere).toBe(true);
        model.chunks[at] = isThere;
      }
      for (const [at, { digest }] of wholes.entries()) {
        const isThere = (await blobs.missing([digest])).length === 0;
        if (!isHeld(model, at)) expect(isThere).toBe(false);
        if (isHeld(model, at) && isKept(model, at)) expect(isThere).toBe(true);
        if (!isThere) model.forms[at] = undefined;
      }
    }
  }
}

/** What was missing has lost its list by the time it was asked for. */
async function check({ store }: TempStore, model: Model): Promise<void> {
  for (const [at, { digest }] of wholes.entries()) {
    expect((await store.blobs.missing([digest])).length, `blob ${at} is ${model.forms[at]}`).toBe(
      isHeld(model, at) ? 0 : 1,
    );
    if (!isHeld(model, at)) model.forms[at] = undefined;
  }
  for (const [at, { digest }] of chunks.entries()) {
    expect((await store.blobs.missing([digest])).length, `chunk ${at}`).toBe(model.chunks[at] ? 0 : 1);
  }
  const listed = model.forms.filter((form) => form === 'list').length;
  await expect.poll(() => store.stats().chunkedBlobs).toBe(listed);
  const files = model.forms.length - listed - model.forms.filter((form) => form === undefined).length;
  expect(store.stats().blobs).toBe(listed + files + model.chunks.filter(Boolean).length);
}

test('files and lists of shared chunks behave as blobs do, whatever becomes of their chunks', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 8, maxLength: 25 }), async (steps) => {
      await using subject = await tempStore({ durability: 'fast' });
      const model: Model = {
        chunks: chunks.map(() => false),
        forms: wholes.map(() => undefined),
        holders: [],
      };
      try {
        for (const step of [{ kind: 'putAllChunks' } as const, ...steps]) {
          await perform(subject, model, step);
          await check(subject, model);
        }
        await letGo(model);
        // A file whose place a list has taken keeps the chunks until it is removed.
        await expect.poll(() => subject.store.stats().pinnedBlobs).toBe(0);
        expect(await subject.store.verify()).toMatchObject({ dropped: [], strayFiles: 0 });
      } finally {
        await letGo(model);
      }
    }),
    // `POTLUCK_MODEL_RUNS=500` looks longer.
    { numRuns: Number(process.env['POTLUCK_MODEL_RUNS'] ?? 25) },
  );
});

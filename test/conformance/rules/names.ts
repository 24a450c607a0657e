/** Resource names: P5. */
import { randomUUID } from 'node:crypto';
import { type DigestFunction } from '../../../protos/digest.ts';
import type { Context } from '../context.ts';
import { digestOf, mustBeOk, mustRefuse, put, readBlob, readName, writeBlob, writeName, zstd } from '../fixtures.ts';
import { type Check, type Rule, part } from '../rule.ts';

export const nameRules: readonly Rule[] = [
  {
    id: 'P5',
    title: 'Resource names',
    says: 'An instance of any number of segments, the function as a segment for the newer functions only, and anything after the size on uploads.',
    source: 'REAPI, ContentAddressableStorage, naming of ByteStream resources',
    parts: [
      part('instances, functions, encodings, suffixes', async (context, check) => {
        const instances = new Set([context.instance]);
        if (!context.lacks(['instances'])) for (const name of ['', 'a', 'a/b/c', 'main/linux']) instances.add(name);
        const suffixes = ['', '/x', '/x/y.txt', `/blobs/${'ab'.repeat(32)}/7`];
        const compressors = context.lacks(['zstd']) ? [undefined] : [undefined, 'zstd'];
        const functions = context.functions.filter((fn) => fn === 'sha256' || fn === 'blake3');
        for (const instance of instances) {
          for (const compressor of compressors) {
            for (const fn of functions) {
              for (const suffix of suffixes) await roundTrip(context, check, { instance, compressor, fn, suffix });
            }
          }
        }
      }),
      part('names that are not', async (context, check) => {
        const digest = await put(context, context.fresh());
        const uuid = randomUUID();
        const { hash, sizeBytes } = digest;
        const reads: [string, string][] = [
          ['a leading slash', `/blobs/${hash}/${sizeBytes}`],
          ['an empty segment', `a//blobs/${hash}/${sizeBytes}`],
          ['identity as compressor', `compressed-blobs/identity/${hash}/${sizeBytes}`],
          ['an unknown compressor', `compressed-blobs/middleout/${hash}/${sizeBytes}`],
          ['an unknown function', `blobs/crc32/${hash}/${sizeBytes}`],
          ['nothing', ''],
          ['no blob', 'blobs'],
          ['the name of an upload', `uploads/${uuid}/blobs/${hash}/${sizeBytes}`],
        ];
        for (const [what, name] of reads) {
          const reply = await readBlob(context, name);
          mustRefuse(check, `Read, ${what}`, reply, 'INVALID_ARGUMENT', 'NOT_FOUND');
        }
        const writes: [string, string][] = [
          ['a leading slash', `/uploads/${uuid}/blobs/${hash}/${sizeBytes}`],
          ['an empty segment', `a//uploads/${uuid}/blobs/${hash}/${sizeBytes}`],
          ['a reserved word in the instance', `a/blobs/b/uploads/${uuid}/blobs/${hash}/${sizeBytes}`],
          ['no uuid', `uploads/blobs/${hash}/${sizeBytes}`],
          ['identity as compressor', `uploads/${uuid}/compressed-blobs/identity/${hash}/${sizeBytes}`],
          ['an unknown compressor', `uploads/${uuid}/compressed-blobs/middleout/${hash}/${sizeBytes}`],
          ['the name of a download', `blobs/${hash}/${sizeBytes}`],
        ];
        for (const [what, name] of writes) {
          mustRefuse(check, `Write, ${what}`, await writeBlob(context, name, context.fresh()), 'INVALID_ARGUMENT');
        }
      }),
      part('the segment of an old function', async (context, check) => {
        if (!context.functions.includes('sha256')) return;
        const { hash, sizeBytes } = await put(context, context.fresh(), 'sha256');
        const { code } = await readBlob(
          context,
          readName(context, { fn: 'sha256', hash: `sha256/${hash}`, sizeBytes }),
        );
        check.must(code === 'OK' || code === 'INVALID_ARGUMENT' || code === 'NOT_FOUND', `answered with ${code}`);
        check.choice(code === 'OK' ? 'a segment "sha256" is tolerated' : `a segment "sha256" is refused with ${code}`);
      }),
    ],
  },
];

async function roundTrip(
  context: Context,
  check: Check,
  form: { instance: string; compressor: string | undefined; fn: DigestFunction; suffix: string },
): Promise<void> {
  const bytes = context.fresh();
  const digest = digestOf(form.fn, bytes);
  const options = {
    instance: form.instance,
    ...(form.compressor === undefined ? {} : { compressor: form.compressor }),
  };
  const name = writeName(context, digest, { ...options, suffix: form.suffix });
  const content = form.compressor === undefined ? bytes : zstd.compress(bytes);
  if (!mustBeOk(check, `Write ${name}`, await writeBlob(context, name, content))) return;
  const read = await readBlob(context, readName(context, digest, options));
  if (!mustBeOk(check, `Read after Write ${name}`, read)) return;
  const back = form.compressor === undefined ? read.bytes : await zstd.decompress(read.bytes);
  check.must(back?.equals(bytes) ?? false, `Read after Write ${name}: other bytes`);
}

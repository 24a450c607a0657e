/**
 * Encodes collected directories as Directory blobs and as Tree blobs.
 *
 * @see REAPI v2.12, messages Tree and OutputDirectory (is_topologically_sorted)
 */
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { type Digest, type DigestFunction, digestKey, toWireDigest } from '../protos/digest.ts';
import {
  DirectorySchema,
  type FileNodeSchema,
  type NodePropertiesSchema,
  type SymlinkNodeSchema,
} from '../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../protos/hasher.ts';

export interface CollectedDirectory {
  /** Each list sorted by the UTF-8 bytes of the names. */
  readonly files: MessageInitShape<typeof FileNodeSchema>[];
  readonly symlinks: MessageInitShape<typeof SymlinkNodeSchema>[];
  readonly directories: { readonly name: string; readonly directory: EncodedDirectory }[];
  readonly nodeProperties?: MessageInitShape<typeof NodePropertiesSchema>;
}

export interface EncodedDirectory {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
  readonly children: readonly EncodedDirectory[];
}

export function encodeDirectory(fn: DigestFunction, collected: CollectedDirectory): EncodedDirectory {
  const message = create(DirectorySchema, {
    files: collected.files,
    symlinks: collected.symlinks,
    directories: collected.directories.map(({ name, directory }) => ({ name, digest: toWireDigest(directory.digest) })),
    ...(collected.nodeProperties ? { nodeProperties: collected.nodeProperties } : {}),
  });
  const bytes = toBinary(DirectorySchema, message);
  return {
    digest: digestOf(fn, bytes),
    bytes,
    children: collected.directories.map(({ directory }) => directory),
  };
}

/** Every distinct directory once, parents before their children: the root is first. */
export function topologicalOrder(root: EncodedDirectory): EncodedDirectory[] {
  const seen = new Set<string>();
  const childrenFirst: EncodedDirectory[] = [];
  const visit = (directory: EncodedDirectory) => {
    const key = digestKey(directory.digest);
    if (seen.has(key)) return;
    seen.add(key);
    for (const child of directory.children) visit(child);
    childrenFirst.push(directory);
  };
  visit(root);
  return childrenFirst.reverse();
}

/** The Tree of `topologicalOrder`: the root as field 1, then all others as field 2, each in its canonical bytes. */
export function encodeTree(inOrder: readonly EncodedDirectory[]): Uint8Array {
  const writer = new BinaryWriter();
  for (const [index, { bytes }] of inOrder.entries()) {
    writer.tag(index === 0 ? 1 : 2, WireType.LengthDelimited).bytes(bytes);
  }
  return writer.finish();
}

/**
 * A file system in memory that keeps apart what the programs see and what is on the medium. `losePower` drops what was not
 * synced: contents of files come back as they were, cut, or zeroed; names made, moved or removed in a directory that was
 * not synced are as before or as after, each for itself.
 */
import { dirname, basename } from 'node:path';
import type { FileStat, FsFile, FsPort } from '../../../../node/storage/fs-port.ts';
import type { Random } from './random.ts';

interface File {
  readonly kind: 'file';
  readonly inode: bigint;
  seen: Buffer;
  /** Undefined until it is synced once. */
  safe: Buffer | undefined;
  modifiedNs: bigint;
  links: number;
}

interface Dir {
  readonly kind: 'directory';
  seen: Map<string, Node>;
  safe: Map<string, Node>;
}

type Node = File | Dir;

export interface ForgetfulFs {
  /** Works until the power goes; after that its calls never return. */
  port(): FsPort;
  /** Calls `onOut` when so many more operations were begun. */
  losePowerAfter(operations: number, onOut: () => void): void;
  /** What is left is what the next `port` sees. */
  losePower(): void;
}

export function createForgetfulFs(random: Random): ForgetfulFs {
  const root: Dir = { kind: 'directory', seen: new Map(), safe: new Map() };
  let epoch = 0;
  let nextInode = 1n;
  let clockNs = 1n;
  let operationsLeft = Number.POSITIVE_INFINITY;
  let onOut = (): void => {};

  function fail(code: string, path: string): never {
    throw Object.assign(new Error(`${code}: ${path}`), { code });
  }

  function find(path: string): Node | undefined {
    let node: Node | undefined = root;
    for (const name of path.split('/').filter(Boolean)) {
      node = node?.kind === 'directory' ? node.seen.get(name) : undefined;
    }
    return node;
  }

  function dirAt(path: string): Dir {
    const node = find(path);
    return node?.kind === 'directory' ? node : fail('ENOENT', path);
  }

  function fileAt(path: string): File {
    const node = find(path);
    return node?.kind === 'file' ? node : fail('ENOENT', path);
  }

  function place(path: string, node: Node): void {
    dirAt(dirname(path)).seen.set(basename(path), node);
  }

  function newFile(content: Buffer): File {
    return { kind: 'file', inode: nextInode++, seen: content, safe: undefined, modifiedNs: clockNs++, links: 1 };
  }

  function statOf(file: File): FileStat {
    const { kind, inode, modifiedNs, links } = file;
    return { kind, sizeBytes: file.seen.length, inode, modifiedNs, links, mode: 0o444, uid: 0 };
  }

  /** What a crash leaves of contents that were not synced. */
  function remains({ seen, safe }: File): Buffer {
    if (safe?.equals(seen)) return seen;
    const cut = seen.subarray(0, random.below(seen.length + 1));
    const zeroed = Buffer.concat([cut, Buffer.alloc(seen.length - cut.length)]);
    return Buffer.from(random.pick([safe ?? Buffer.alloc(0), seen, cut, zeroed]));
  }

  function settle(dir: Dir): void {
    for (const name of new Set([...dir.seen.keys(), ...dir.safe.keys()])) {
      const [before, after] = [dir.safe.get(name), dir.seen.get(name)];
      if (before === after) continue;
      const left = random.next() < 0.5 ? before : after;
      if (left) dir.seen.set(name, left);
      else dir.seen.delete(name);
    }
    dir.safe = new Map(dir.seen);
    for (const node of dir.seen.values()) {
      if (node.kind === 'directory') settle(node);
      else node.safe = node.seen = remains(node);
    }
  }

  function portOf(mine: number): FsPort {
    /** Every call takes a turn or a few, so that calls under way at once end in any order. */
    async function operate<T>(action: () => T): Promise<T> {
      const isLast = operationsLeft-- === 0;
      if (isLast) onOut();
      for (let turns = random.below(3); turns >= 0; turns--) await new Promise(setImmediate);
      return mine === epoch ? action() : new Promise<T>(() => {});
    }

    const open = (file: File): FsFile => ({
      read: (into, position) =>
        operate(() => file.seen.copy(Buffer.from(into.buffer, into.byteOffset, into.byteLength), 0, position)),
      append: (chunks) =>
        operate(() => {
          file.seen = Buffer.concat([file.seen, ...chunks]);
          file.modifiedNs = clockNs++;
        }),
      write: (chunks, position) =>
        operate(() => {
          const written = Buffer.concat(chunks);
          const sizeBytes = Math.max(file.seen.byteLength, position + written.byteLength);
          file.seen = Buffer.concat([file.seen], sizeBytes);
          file.seen.set(written, position);
          file.modifiedNs = clockNs++;
        }),
      stat: () => operate(() => statOf(file)),
      sync: () =>
        operate(() => {
          file.safe = file.seen;
        }),
      chmod: () => operate(() => {}),
      close: () => operate(() => {}),
    });

    return {
      create: (path) =>
        operate(() => {
          if (find(path)) fail('EEXIST', path);
          const file = newFile(Buffer.alloc(0));
          place(path, file);
          return open(file);
        }),
      openRead: (path) => operate(() => open(fileAt(path))),
      stat: (path) => operate(() => statOf(fileAt(path))),
      rename: (from, to) =>
        operate(() => {
          place(to, fileAt(from));
          dirAt(dirname(from)).seen.delete(basename(from));
        }),
      link: (from, to) => operate(() => place(to, fileAt(from))),
      copy: (from, to) => operate(() => place(to, newFile(fileAt(from).seen))),
      chmod: () => operate(() => {}),
      unlink: (path) =>
        operate(() => {
          fileAt(path);
          dirAt(dirname(path)).seen.delete(basename(path));
        }),
      async makeDir(path) {
        if (find(path)) return false;
        place(path, { kind: 'directory', seen: new Map(), safe: new Map() });
        return true;
      },
      list: (path) =>
        operate(() => {
          const node = find(path);
          return node?.kind === 'directory' ? [...node.seen.keys()] : [];
        }),
      freeBytes: async () => Number.MAX_SAFE_INTEGER,
      syncDir: (path) =>
        operate(() => {
          const dir = dirAt(path);
          dir.safe = new Map(dir.seen);
        }),
    };
  }

  return {
    port: () => portOf(epoch),
    losePowerAfter(operations, whenOut) {
      operationsLeft = operations;
      onOut = whenOut;
    },
    losePower() {
      epoch++;
      operationsLeft = Number.POSITIVE_INFINITY;
      settle(root);
    },
  };
}

/**
 * Real pipes for the output of commands.
 *
 * What Node calls a pipe to a child is a socket, which `>/dev/stderr` in a script cannot open. Node makes no other, so a
 * named pipe is opened at both ends; the pair serves again when its last writer is gone.
 */
import { execFileSync } from 'node:child_process';
import { chownSync, closeSync, constants, mkdirSync, openSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import type { Owner } from './staging.ts';

export interface OutputPipes {
  readonly stdout: Socket;
  readonly stderr: Socket;
  /** The ends for the child: to be passed to it, then closed. */
  readonly writers: readonly [stdout: number, stderr: number];
  readonly closeWriters: () => void;
  /** Resolves when both have ended or were destroyed, and all was read. */
  readonly closed: Promise<void>;
}

export interface PipePool {
  open(): OutputPipes;
}

/**
 * @param directory - for the named pipes; emptied by its owner
 * @param owner - who the commands run as: only the owner of a pipe can open it anew
 */
export function createPipePool(directory: string, owner: Owner | undefined): PipePool {
  const idle: (readonly [string, string])[] = [];
  let made = 0;
  mkdirSync(directory, { recursive: true });

  const make = (): readonly [string, string] => {
    const pair = [join(directory, `${made}.out`), join(directory, `${made}.err`)] as const;
    made++;
    execFileSync('mkfifo', ['-m', '600', ...pair], { env: { PATH: '/usr/bin:/bin' } });
    if (owner) for (const path of pair) chownSync(path, owner.uid, owner.gid);
    return pair;
  };
  /** Reading first and without waiting: a pipe that has a reader can be opened for writing at once. */
  const openEnds = (path: string) => {
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const writer = openSync(path, constants.O_WRONLY);
    return { reader: new Socket({ fd: reader, readable: true, writable: false }), writer };
  };

  return {
    open() {
      const pair = idle.pop() ?? make();
      const [out, err] = [openEnds(pair[0]), openEnds(pair[1])];
      const ends = [out.reader, err.reader].map((reader) => whenClosed(reader));
      const closed = Promise.all(ends).then((sawEnds) => {
        // One that was given up may still have a writer.
        if (sawEnds.every(Boolean)) idle.push(pair);
        else for (const path of pair) rmSync(path, { force: true });
      });
      return {
        stdout: out.reader,
        stderr: err.reader,
        writers: [out.writer, err.writer],
        closeWriters: () => {
          for (const { writer } of [out, err]) closeSync(writer);
        },
        closed,
      };
    },
  };
}

/** Whether the end of the stream was seen before it was closed. */
function whenClosed(reader: Socket): Promise<boolean> {
  return new Promise((resolve) => {
    let sawEnd = false;
    reader.once('end', () => {
      sawEnd = true;
    });
    reader.on('error', () => {});
    reader.once('close', () => resolve(sawEnd));
  });
}

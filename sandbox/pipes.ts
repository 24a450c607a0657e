/**
 * Real pipes for the output of commands.
 *
 * What Node calls a pipe to a child is a socket, which `>/dev/stderr` in a script cannot open. Node makes no other, so
 * named pipes are opened at both ends. Each serves once and loses its name at once: a command may keep its pipe open for
 * reading or change its mode, and the next one must not notice.
 */
import { execFileSync } from 'node:child_process';
import { chownSync, closeSync, constants, mkdirSync, openSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { pipesMadeAtOnce } from './limits.ts';
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

interface Ends {
  readonly reader: Socket;
  readonly writer: number;
}

/**
 * @param directory - for the named pipes that wait; emptied by its owner
 * @param owner - who the commands run as: only the owner of a pipe can open it anew
 */
export function createPipePool(directory: string, owner: Owner | undefined): PipePool {
  const unused: string[] = [];
  let made = 0;
  mkdirSync(directory, { recursive: true });

  const make = () => {
    const paths = Array.from({ length: pipesMadeAtOnce }, () => join(directory, `pipe-${made++}`));
    execFileSync('mkfifo', ['-m', '600', ...paths], { env: { PATH: '/usr/bin:/bin' } });
    if (owner) for (const path of paths) chownSync(path, owner.uid, owner.gid);
    unused.push(...paths);
  };
  /** Reading first and without waiting: a pipe that has a reader can be opened for writing at once. */
  const openEnds = (): Ends => {
    if (unused.length === 0) make();
    const path = unused.pop() as string;
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const writer = openSync(path, constants.O_WRONLY);
      return { reader: new Socket({ fd: reader, readable: true, writable: false }), writer };
    } catch (error) {
      closeSync(reader);
      throw error;
    } finally {
      rmSync(path);
    }
  };
  const giveUp = ({ reader, writer }: Ends) => {
    reader.destroy();
    closeSync(writer);
  };

  return {
    open() {
      const out = openEnds();
      let err: Ends;
      try {
        err = openEnds();
      } catch (error) {
        giveUp(out);
        throw error;
      }
      return {
        stdout: out.reader,
        stderr: err.reader,
        writers: [out.writer, err.writer],
        closeWriters: () => {
          for (const { writer } of [out, err]) closeSync(writer);
        },
        closed: Promise.all([whenClosed(out.reader), whenClosed(err.reader)]).then(() => undefined),
      };
    },
  };
}

function whenClosed(reader: Socket): Promise<void> {
  return new Promise((resolve) => {
    reader.on('error', () => {});
    reader.once('close', () => resolve());
  });
}

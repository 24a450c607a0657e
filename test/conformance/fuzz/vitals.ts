/** What a process holds: memory, open files, sockets, children, temporary files. Linux only. */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';

export interface Vitals {
  readonly rssBytes: number;
  /** Heap and buffers after a collection, where one can be asked for. */
  readonly liveBytes?: number;
  readonly openFiles: number;
  readonly sockets: number;
  readonly children: number;
  readonly tempFiles: number;
}

/** What must return to where it was. */
export const counts = ['openFiles', 'sockets', 'children', 'tempFiles'] as const;

/** Where our node keeps what must be gone when nothing is under way. */
const tempFolders = ['tmp', 'sandbox/actions', 'sandbox/trash'];

export async function vitalsOf(pid: number, dataDir: string): Promise<Vitals> {
  const links = await Promise.all(
    (await readdir(`/proc/${pid}/fd`)).map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')),
  );
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return {
    rssBytes: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024,
    openFiles: links.filter((link) => link.startsWith('/')).length,
    sockets: links.filter((link) => link.startsWith('socket:')).length,
    children: (await childrenOf(pid)).length,
    tempFiles: (await Promise.all(tempFolders.map((folder) => countFiles(join(dataDir, folder))))).reduce(
      (a, b) => a + b,
      0,
    ),
  };
}

async function childrenOf(pid: number): Promise<string[]> {
  const tasks = await readdir(`/proc/${pid}/task`);
  const lists = await Promise.all(
    tasks.map((task) => readFile(`/proc/${pid}/task/${task}/children`, 'utf8').catch(() => '')),
  );
  return lists.flatMap((list) => list.split(' ').filter((child) => child !== ''));
}

async function countFiles(folder: string): Promise<number> {
  return (await readdir(folder).catch(() => [])).length;
}

/** The vitals of a process that has come to rest: two samples a second apart that agree in all but memory. */
export async function calm(sample: () => Promise<Vitals>): Promise<Vitals> {
  for (let before = await sample(); ; ) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const now = await sample();
    if (counts.every((count) => now[count] === before[count])) return now;
    before = now;
  }
}

/** Samples until nothing is above `before` (memory by no more than a fifth), or until `deadlineMs` are over; the last sample. */
export async function settled(sample: () => Promise<Vitals>, before: Vitals, deadlineMs: number): Promise<Vitals> {
  const endMs = performance.now() + deadlineMs;
  for (;;) {
    const now = await sample();
    const back = counts.every((count) => now[count] <= before[count]) && now.rssBytes <= before.rssBytes * 1.2;
    if (back || performance.now() > endMs) return now;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

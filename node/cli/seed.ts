/** `potluck seed`: hands blobs to members before they need them. */
import { resolve } from 'node:path';
import type { SeedReport, SeedRequest, SeedWhat } from '../peers/seed-jobs.ts';
import { valueOf } from './args.ts';
import { type Command, jsonFlag, type ParsedArgs } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { formatBytes } from './format.ts';
import { askMesh, meshSettings } from './mesh-admin.ts';
import { print, printError } from './terminal.ts';

export const seed: Command = {
  name: 'seed',
  summary: 'hand blobs to members before they need them',
  description:
    'Hands what an action needs, a tree, or a list of blobs to a member or to members of a site. What they have already is left out, so a command that was broken off goes on where it was. Needs a running node.',
  flags: {
    to: { value: 'SITE|PEER', about: 'a site, a peer id or the beginning of one' },
    action: { value: 'DIGEST', about: 'an action: its command, inputs, and outputs when they are known; HASH/SIZE' },
    tree: { value: 'DIGEST', about: 'a root directory with everything below it; HASH/SIZE' },
    blobs: { value: 'FILE', about: 'a file with a digest in each line, HASH/SIZE' },
    replicas: { value: 'COUNT', about: 'members of a site that get it', fallback: '1' },
    ...meshSettings,
    ...jsonFlag,
  },
  examples: [
    { about: 'inputs to the machines that will build', line: 'potluck seed --to berlin --replicas 2 --tree 5f2a…/120' },
    { about: 'a list', line: 'potluck seed --to 12D3KooW… --blobs outputs.txt' },
  ],
  async run(args) {
    const to = valueOf(args, 'to');
    if (to === undefined) throw new CliError('to whom? Give --to SITE or --to PEER.', exitCodes.usage);
    const replicas = Number(valueOf(args, 'replicas') ?? '1');
    if (!Number.isInteger(replicas) || replicas < 1) throw new CliError('--replicas: not a count', exitCodes.usage);
    const isJson = args.switches.has('json');
    let report = await step(args, { step: 'start', to, replicas, what: whatOf(args) });
    while (!report.isDone) {
      if (!isJson) printError(lineOf(report));
      report = await step(args, { step: 'progress', job: report.job });
    }
    print(isJson ? JSON.stringify(report) : lineOf(report));
    for (const { peer, error } of report.targets) if (error !== undefined) printError(`${peer}: ${error}`);
    return report.targets.some(({ error }) => error !== undefined) ? exitCodes.failed : exitCodes.ok;
  },
};

async function step(args: ParsedArgs, request: SeedRequest): Promise<SeedReport> {
  return (await askMesh(args, { do: 'seed', request })).answer;
}

function whatOf(args: ParsedArgs): SeedWhat {
  const [action, tree, blobs] = [valueOf(args, 'action'), valueOf(args, 'tree'), valueOf(args, 'blobs')];
  if ([action, tree, blobs].filter((one) => one !== undefined).length !== 1) {
    throw new CliError('what? Give one of --action, --tree and --blobs.', exitCodes.usage);
  }
  if (blobs !== undefined) return { kind: 'blobs', path: resolve(blobs) };
  return action === undefined ? { kind: 'tree', digest: tree ?? '' } : { kind: 'action', digest: action };
}

function lineOf({ targets }: SeedReport): string {
  return targets
    .map(({ peer, doneBlobs, totalBlobs, doneBytes, totalBytes }) => {
      const bytes = `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`;
      return `${peer}: ${doneBlobs} of ${totalBlobs} blobs, ${bytes}`;
    })
    .join('\n');
}

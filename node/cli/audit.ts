/** `potluck audit`: results that did not come out the same when their action was run again. */
import type { AuditedRun, Mismatch } from '../builds/audit/ledger.ts';
import type { AuditJob, AuditStatus } from '../builds/audit/auditor.ts';
import type { OutputDifference } from '../builds/audit/compare.ts';
import type { TopFrame } from '../builds/top.ts';
import { type Api, apiSettings, namesOf, openApi } from './api.ts';
import { actionName, localTime } from './builds.ts';
import { type Command, jsonFlag } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { count, formatTable, printable } from './format.ts';
import { print, printError } from './terminal.ts';

type NameOf = (node: string | null) => string;

/** Of one list on a screen; --json gives all. */
const shownMax = 20;
const pollMs = 500;

export const audit: Command = {
  name: 'audit',
  summary: 'show results that came out otherwise when run again, or run one again now',
  operands: '[ACTION]',
  operandsMax: 1,
  description:
    'Without ACTION: lists the mismatches that this node found or was told, newest first, with the outputs that differ and how. A sample of cache hits is run again while the node is idle (see --audit-percent of "potluck up"), somewhere else than where the result was made, and compared bit for bit.\n' +
    'With ACTION: runs it again now, waits for the end, and compares. What comes out is stored nowhere. ACTION is the digest of the action, or the beginning of one that was asked of this node. Exit status 1 says that it differs, or could not be run.',
  flags: { ...apiSettings, ...jsonFlag },
  examples: [
    { about: 'what was found so far', line: 'potluck audit' },
    { about: 'is this action deterministic?', line: 'potluck audit 5f2a77c01b' },
  ],
  async run(args) {
    const [action] = args.positionals;
    const api = await openApi(args);
    const isJson = args.switches.has('json');
    if (action !== undefined) return await auditNow(api, action, isJson);
    const status = await api.get<AuditStatus>('audit');
    if (isJson) print(JSON.stringify(status));
    else for (const line of describe(status, namesOf(await api.get<TopFrame>('top')))) print(line);
    return exitCodes.ok;
  },
};

async function auditNow(api: Api, action: string, isJson: boolean): Promise<number> {
  const path = `audit/${encodeURIComponent(action)}`;
  let job = await api.post<AuditJob>(path);
  if (!isJson) printError(`Running ${job.action} again…`);
  while (job.state === 'running') {
    await new Promise((resolve) => setTimeout(resolve, pollMs));
    job = await api.get<AuditJob>(path);
  }
  if (isJson) print(JSON.stringify(job));
  else if (job.error !== null) printError(`It could not be run again: ${printable(job.error)}`);
  else if (job.mismatch === null) print('It came out the same, bit for bit.');
  else for (const line of describeOne(job.mismatch, namesOf(await api.get<TopFrame>('top')))) print(line);
  return job.verdict === 'same' ? exitCodes.ok : exitCodes.failed;
}

function describe({ percent, audits, waiting, mismatches, refused }: AuditStatus, nameOf: NameOf): string[] {
  const { same, impossible, ...others } = audits;
  const differed = Object.values(others).reduce((sum, number) => sum + number, 0);
  const head = `${percent} % of cache hits are audited. Since the start: ${same} came out the same, ${differed} did not, ${impossible} could not be run again; ${count(waiting, 'hit')} wait until this machine is idle.`;
  const denouncers = refused.map(
    ({ time, peer, reason }) =>
      `${localTime(time)}  ${nameOf(peer)} denounced a result and proved nothing: ${printable(reason)}`,
  );
  if (mismatches.length === 0) return [head, 'No mismatch is known.', ...denouncers];
  return [
    head,
    ...mismatches.slice(0, shownMax).flatMap((mismatch) => ['', ...describeOne(mismatch, nameOf)]),
    ...(denouncers.length > 0 ? ['', ...denouncers] : []),
    ...(mismatches.length > shownMax ? ['', `and ${mismatches.length - shownMax} older; --json lists them`] : []),
  ];
}

const verdicts: Readonly<Record<Mismatch['verdict'], string>> = {
  wrong: 'WRONG: run again twice, it came out otherwise both times, and the same',
  nonDeterministic: 'NOT DETERMINISTIC: it does not come out the same twice',
  unconfirmed: 'unconfirmed: run again, it came out otherwise; nobody else could run it a third time',
  refuted: 'refuted: run again, it came out otherwise once, and as it was known the next time',
};
const consequences: Readonly<Record<Mismatch['dropped'], string>> = {
  everywhere: 'the result was dropped, here and at members',
  here: 'the result is not used here any more; members decide for themselves',
  no: 'the result is still used',
};

function describeOne(mismatch: Mismatch, nameOf: NameOf): string[] {
  const who = ({ node }: AuditedRun): string => nameOf(node === '' ? null : node);
  const { known, again, third, toldBy } = mismatch;
  return [
    `${mismatch.action}  ${actionName(mismatch)}`,
    `  ${localTime(mismatch.time)}  ${verdicts[mismatch.verdict]}; ${consequences[mismatch.dropped]}`,
    `  known from ${who(known)}, run again by ${who(again)}${third ? `, a third time by ${who(third)}` : ''}${toldBy === null ? '' : `; told by ${nameOf(toldBy)}`}`,
    ...mismatch.differences.flatMap(differenceLines),
    ...(mismatch.more > 0 ? [`  and ${count(mismatch.more, 'output')} more`] : []),
    ...mismatch.streams.flatMap((stream) =>
      differenceLines({ ...stream, what: `${stream.what} (no mismatch by itself)` }),
    ),
  ];
}

function differenceLines({ output, what, sizes, first, summary = [] }: OutputDifference): string[] {
  const size = sizes && (sizes[0] === sizes[1] ? `, ${sizes[0]} bytes` : `, ${sizes[0]} and ${sizes[1]} bytes`);
  const context =
    first &&
    formatTable([
      [`    first differing byte: ${first.offset}`, 'known', first.one],
      ['', 'again', first.other],
    ]);
  return [
    `  ${printable(output)}: ${printable(what)}${size ?? ''}`,
    ...(context ?? []),
    ...summary.map((line) => `    ${printable(line)}`),
  ];
}

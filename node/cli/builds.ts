/** `potluck builds` and `potluck builds show`: what this node recorded about builds. */
import type { ActionRecord, BuildReport, BuildSummary } from '../builds/records.ts';
import type { TopFrame } from '../builds/top.ts';
import { apiSettings, namesOf, openApi, operandOf } from './api.ts';
import { type Command, jsonFlag } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { count, formatBytes, formatDuration, formatTable, printable } from './format.ts';
import { print } from './terminal.ts';

/** Of one table on a screen; --json gives all. */
const rowsMax = 30;
const slowestShown = 10;

export const builds: Command = {
  name: 'builds',
  summary: 'list the builds of this node and what they saved',
  description:
    'Lists the builds that clients of this node made, newest first: one for each invocation that a client names, the others under the name of this node. SAVED is the run time of everything that came from a cache or ran on peers, divided by the slots of this node: about how much longer the build would have taken alone and uncached.',
  flags: { ...apiSettings, ...jsonFlag },
  examples: [
    { about: 'for a person', line: 'potluck builds' },
    { about: 'the id of the newest, for a script', line: `potluck builds --json | jq -r '.builds[0].id'` },
  ],
  async run(args) {
    const api = await openApi(args);
    const answer = await api.get<{ builds: readonly BuildSummary[] }>('builds');
    if (args.switches.has('json')) {
      print(JSON.stringify(answer));
      return exitCodes.ok;
    }
    if (answer.builds.length === 0) {
      print('No build was recorded yet. They appear once a client of this node has built something.');
      return exitCodes.ok;
    }
    const header = ['ID', 'STARTED', 'TOOK', 'CLIENT', 'HITS', 'FROM PEERS', 'RAN HERE', 'ON PEERS', 'FAILED', 'SAVED'];
    for (const line of formatTable([header, ...answer.builds.slice(0, rowsMax).map(rowOf)])) print(line);
    if (answer.builds.length > rowsMax) print(`… and ${answer.builds.length - rowsMax} older; --json lists them`);
    return exitCodes.ok;
  },
};

function rowOf(build: BuildSummary): string[] {
  const { sources } = build;
  const tookMs = Date.parse(build.ended) - Date.parse(build.started);
  return [
    printable(build.id),
    localTime(build.started),
    build.active ? `${formatDuration(tookMs)}…` : formatDuration(tookMs),
    printable(build.tool) || '-',
    String(sources['hit-local']),
    String(sources['hit-peer']),
    String(sources.here + sources.joined),
    String(sources.peer),
    String(build.failed),
    formatDuration(build.savedMs),
  ];
}

export const buildsShow: Command = {
  name: 'builds show',
  summary: 'show one build: where results came from, who ran what, what was slow',
  operands: 'ID',
  operandsMax: 1,
  description: 'Shows one build. ID is the id that "potluck builds" lists, or the beginning of it.',
  flags: { ...apiSettings, ...jsonFlag },
  examples: [{ about: 'one build', line: 'potluck builds show 5f2a77c0' }],
  async run(args) {
    const id = operandOf(args, 'id', 'builds show');
    const api = await openApi(args);
    const report = await api.get<BuildReport>(`builds/${encodeURIComponent(id)}`);
    if (args.switches.has('json')) print(JSON.stringify(report));
    else for (const line of describe(report, namesOf(await api.get<TopFrame>('top')))) print(line);
    return exitCodes.ok;
  },
};

function describe(report: BuildReport, nameOf: (node: string | null) => string): string[] {
  const { sources, moved } = report;
  const tookMs = Date.parse(report.ended) - Date.parse(report.started);
  const received = [moved.subnet, moved.site, moved.other].map((link) => formatBytes(link.receivedBytes));
  const sent = [moved.subnet, moved.site, moved.other].map((link) => formatBytes(link.servedBytes));
  const rows = [
    ['Build', `${printable(report.id)}${report.active ? ' (under way)' : ''}`],
    ['Client', printable(report.tool) || 'names no tool'],
    ...(report.correlated ? [['Belongs to', printable(report.correlated)]] : []),
    ['Time', `${localTime(report.started)}, ${formatDuration(tookMs)}`],
    [
      'Hits',
      `${count(sources['hit-local'], 'result')} of this node, ${sources['hit-peer']} of peers; ${report.misses} lookups found nothing`,
    ],
    [
      'Executed',
      `${sources.here} here, ${sources.peer} on peers${sources.joined > 0 ? `, ${sources.joined} shared with another build` : ''}`,
    ],
    ...(sources.uploaded > 0 ? [['Brought', `${count(sources.uploaded, 'result')} that the client made itself`]] : []),
    ['Failed', `${report.failed}; ${count(report.retries, 'run')} begun again`],
    [
      'Saved',
      `about ${formatDuration(report.savedMs)} (${formatDuration(report.workElsewhereMs)} of run time that this machine did not spend)`,
    ],
    [
      'Moved',
      `from members ${received.join(', ')}; to members ${sent.join(', ')} (same subnet, same site, elsewhere; other builds included)`,
    ],
    ...(report.unrecorded > 0
      ? [['Not kept', `${count(report.unrecorded, 'action')} beyond what one record holds`]]
      : []),
  ];
  const shares = report.nodes.map(({ node, executed, hits, runMs }) => [
    `  ${nameOf(node)}`,
    String(executed),
    formatDuration(runMs),
    String(hits),
  ]);
  return [
    ...formatTable(rows),
    ...(shares.length > 0 ? ['', ...formatTable([['  WHO', 'RAN', 'RUN TIME', 'GAVE RESULTS'], ...shares])] : []),
    ...actionsTable('Slowest:', report.slowest.slice(0, slowestShown), nameOf),
    ...actionsTable('Failed:', report.failures.slice(-slowestShown), nameOf),
  ];
}

function actionsTable(
  title: string,
  actions: readonly ActionRecord[],
  nameOf: (node: string | null) => string,
): string[] {
  if (actions.length === 0) return [];
  const rows = actions.map((one) => [
    `  ${formatDuration(one.totalMs)}`,
    formatDuration(one.queuedMs),
    formatDuration(one.runMs),
    nameOf(one.node),
    one.outcome,
    shortAction(one.action),
    actionName(one),
  ]);
  return ['', title, ...formatTable([['  TOTAL', 'WAITED', 'RAN', 'WHERE', 'OUTCOME', 'ACTION', ''], ...rows])];
}

/** What a person calls an action. */
export function actionName({ mnemonic, target }: Pick<ActionRecord, 'mnemonic' | 'target'>): string {
  return printable([mnemonic, target].filter((text) => text !== '').join(' ')) || '-';
}

const hashCharsShown = 12;

/** Enough of the digest for `potluck explain`. */
export function shortAction(action: string): string {
  return action.split('/')[1]?.slice(0, hashCharsShown) ?? action;
}

/** As this machine writes it, to the second. */
export function localTime(iso: string): string {
  return new Date(iso).toLocaleString('sv-SE');
}

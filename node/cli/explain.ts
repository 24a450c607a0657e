/** `potluck explain`: why an action ran where it ran. */
import type { ActionRecord, ActionSource, Decision, Explanation, Step } from '../builds/records.ts';
import { reasonText } from '../builds/reasons.ts';
import type { TopFrame } from '../builds/top.ts';
import { apiSettings, namesOf, openApi, operandOf } from './api.ts';
import { actionName, localTime } from './builds.ts';
import { type Command, jsonFlag } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { formatDuration, formatTable, printable } from './format.ts';
import { print } from './terminal.ts';

type NameOf = (node: string | null) => string;

export const explain: Command = {
  name: 'explain',
  summary: 'say why an action ran where it ran',
  operands: 'ACTION',
  operandsMax: 1,
  description:
    'Shows every recorded request of this node for an action, newest first: where its result came from, what was expected here and elsewhere when that was decided, and each step on its way. ACTION is the digest of the action or at least four digits from its beginning; "potluck builds show" and the client\'s own log name it.',
  flags: { ...apiSettings, ...jsonFlag },
  examples: [{ about: 'one action', line: 'potluck explain 5f2a77c01b' }],
  async run(args) {
    const action = operandOf(args, 'action', 'explain');
    const api = await openApi(args);
    const explanation = await api.get<Explanation>(`explain/${encodeURIComponent(action)}`);
    if (args.switches.has('json')) {
      print(JSON.stringify(explanation));
      return exitCodes.ok;
    }
    const nameOf = namesOf(await api.get<TopFrame>('top'));
    const running = explanation.running.map((one) => [
      `${one.action}  ${actionName(one)}`,
      `  ${one.stage} for ${formatDuration(one.ageMs)}${one.node === null ? '' : ` on ${nameOf(one.node)}`}`,
      ...decisionLines(one.decision),
      ...stepLines(one.history, nameOf),
    ]);
    const requests = explanation.requests.map((one) => describe(one, nameOf));
    print([...running, ...requests].map((lines) => lines.join('\n')).join('\n\n'));
    return exitCodes.ok;
  },
};

function describe(request: ActionRecord & { readonly build: string }, nameOf: NameOf): string[] {
  const who = nameOf(request.node);
  const phases = [
    ['waited', request.queuedMs],
    ['inputs', request.fetchMs],
    ['ran', request.runMs],
    ['outputs', request.handOverMs],
  ] as const;
  const spent = phases.filter(([, ms]) => ms > 0).map(([phase, ms]) => `${phase} ${formatDuration(ms)}`);
  return [
    `${request.action}  ${actionName(request)}`,
    `  ${localTime(request.started)}, build ${printable(request.build)}: ${origins[request.source](who)}; ${request.outcome}`,
    ...(request.error === null ? [] : [`  ${printable(request.error)}`]),
    `  ${[...spent, `together ${formatDuration(request.totalMs)}`].join(', ')}`,
    ...decisionLines(request.decision),
    ...(request.token === null ? [] : [`  claim ${request.token}`]),
    ...stepLines(request.history, nameOf),
  ];
}

const origins: Readonly<Record<ActionSource, (who: string) => string>> = {
  'hit-local': () => 'the result was in the cache of this node',
  'hit-peer': (who) => `the result came from ${who}`,
  here: () => 'it ran here',
  peer: (who) => `it ran on ${who}`,
  joined: (who) => `another build had it run at the same time (${who})`,
  uploaded: () => 'the client ran it itself and brought the result',
};

function decisionLines(decision: Decision | null): string[] {
  if (!decision) return [];
  const { where, hereMs, elsewhereMs, why } = decision;
  const expected = (ms: number | null): string => (ms === null ? 'never' : formatDuration(ms));
  return [
    `  ${where === 'here' ? 'kept here' : 'offered to the mesh'}: ${printable(reasonText(why))}; expected ${expected(hereMs)} here, ${expected(elsewhereMs)} elsewhere`,
  ];
}

function stepLines(history: readonly Step[], nameOf: NameOf): string[] {
  const rows = history.map(({ afterMs, what, node }) => [
    `    +${formatDuration(afterMs)}`,
    node === null ? printable(what) : `${printable(what)}  (${nameOf(node)})`,
  ]);
  return formatTable(rows);
}

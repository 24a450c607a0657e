/** `potluck status`: asks the running node how it is. */
import { loadConfig } from '../config/load.ts';
import type { ExecutionStatus, NodeStatus } from '../status.ts';
import type { CoordinationStatus } from '../mesh/coordination-status.ts';
import type { OwnerStatus } from '../owner/requests.ts';
import { settingValues, valueOf } from './args.ts';
import { type Command, jsonFlag, settingFlags } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { count, formatBytes, formatDuration, formatTable, printable } from './format.ts';
import { lentText, welcomeText } from './lending.ts';
import { print } from './terminal.ts';

const settingsRead = settingFlags('http', 'bearer-token-file', 'tls-cert', 'tls-key');

/** The newest; --json gives all that the node remembers. */
const problemsShownMax = 5;

export const status: Command = {
  name: 'status',
  summary: 'show what the running node does',
  description: 'Asks the node over HTTP. Exit status 1 says that none answers.',
  flags: { ...settingsRead, ...jsonFlag },
  examples: [
    { about: 'the node of this machine', line: 'potluck status' },
    { about: 'actions that run now, for a script', line: 'potluck status --json' },
  ],
  async run(args) {
    const config = await loadConfig({
      flags: settingValues(args, settingsRead),
      file: valueOf(args, 'config'),
      env: process.env,
      platform: process.platform,
    });
    const { askStatus } = await import('./node-status.ts');
    const answer = await askStatus(config);
    if (args.switches.has('json')) print(JSON.stringify(answer));
    else for (const line of describe(answer)) print(line);
    return exitCodes.ok;
  },
};

function describe(status: NodeStatus): string[] {
  const { store, execution } = status;
  const { counters } = store;
  const rows = [
    [
      'Node',
      `Potluck ${status.version}, ${status.state} for ${formatDuration(status.uptimeSeconds * 1000)}, pid ${status.pid}`,
    ],
    ['gRPC', status.grpc.join(', ')],
    ['HTTP', status.http ?? 'off'],
    ['Data', `${status.dataDir} (durability: ${status.durability})`],
    ['Instances', status.instances?.map((name) => name || '(the empty name)').join(', ') ?? 'any'],
    [
      'Store',
      `${formatBytes(store.usedBytes)} of ${formatBytes(store.sizeLimitBytes)}: ${count(store.blobs, 'blob')}, ${count(store.results, 'action result')}`,
    ],
    [
      'Lookups',
      `${share(counters.resultHits, counters.resultMisses + counters.resultIncomplete)} of action results, ${share(counters.blobHits, counters.blobMisses)} of blobs`,
    ],
    [
      'Evicted',
      `${count(counters.evictedBlobs, 'blob')} (${formatBytes(counters.evictedBytes)}); ${counters.badBlobs} found bad`,
    ],
    ...(execution ? executionRows(execution) : [['Execution', 'off: this node only caches']]),
    ['Results', resultsText(status.offload)],
    ...meshRows(status.mesh),
    ...(status.mesh?.state === 'connected' && status.sharing ? sharingRows(status.sharing) : []),
    ...(status.owner ? [lendingRow(status.owner)] : []),
    ...(status.owner && execution?.guestLimitsInForce.length
      ? [['Guest limits', execution.guestLimitsInForce.join('; ')]]
      : []),
  ];
  const problems = status.recentProblems
    .slice(-problemsShownMax)
    .map(({ time, level, message }) => `  ${time} ${level}: ${printable(message)}`);
  return [...formatTable(rows), ...(problems.length > 0 ? ['', 'Recent problems:', ...problems] : [])];
}

function resultsText({ answered, guests }: NodeStatus['offload']): string {
  const own = `${answered['hit-local'] + answered['hit-peer']} from the cache, ${answered.here} run here, ${answered.peer} on peers`;
  return `${own}; ${guests.succeeded + guests.failed} for members`;
}

function executionRows(execution: ExecutionStatus): string[][] {
  return [
    [
      'Execution',
      `${execution.executing - execution.executingElsewhere} of ${count(execution.slots, 'slot')} busy, ${execution.executingElsewhere} on peers, ${execution.queued} queued`,
    ],
    ['Isolation', `${execution.isolation}: ${execution.isolationReason}`],
    ['Limits', execution.limitsInForce.join('; ') || 'wall time only'],
    ['Platform', execution.platform.join(', ') || 'no properties'],
  ];
}

function meshRows(mesh: NodeStatus['mesh']): string[][] {
  if (!mesh) return [['Mesh', 'off']];
  if (mesh.problem !== null) return [['Mesh', `cut off: ${printable(mesh.problem)}`]];
  if (mesh.state === 'alone') return [['Mesh', 'nobody else; "potluck invite" lets another machine in']];
  const { alive, suspect, dead, suspended } = mesh.members;
  const others = [
    `${count(alive, 'other member')} alive`,
    ...(suspect > 0 ? [`${suspect} suspect`] : []),
    ...(dead + suspended > 0 ? [`${dead + suspended} away`] : []),
  ];
  const office = mesh.administrator ? 'administrator' : mesh.issuer ? 'issuer' : 'member';
  const sites = Object.entries(mesh.sites).map(([site, members]) => `${printable(site) || '(no site)'} ${members}`);
  return [
    ['Mesh', mesh.revoked ? `${mesh.meshId}: this node was revoked` : `${mesh.meshId} (${office})`],
    ['Members', `${others.join(', ')}; ${count(mesh.connections, 'connection')}`],
    ...(sites.length > 0 ? [['Sites', sites.join(', ')]] : []),
    ['Reached at', mesh.addresses.join(', ') || 'nowhere'],
    ...(mesh.coordination ? [coordinationRow(mesh.coordination)] : []),
  ];
}

function coordinationRow({ shards, led, voting, leaderless, formedByForce }: CoordinationStatus): string[] {
  const parts = [
    `${count(shards, 'shard')}: ${led} led here, ${voting} kept here`,
    ...(leaderless > 0 ? [`${leaderless} without a leader (their actions are decided here alone)`] : []),
    ...(formedByForce > 0 ? [`${formedByForce} formed anew after most of their members were gone`] : []),
  ];
  return ['Coordination', parts.join('; ')];
}

function lendingRow(owner: OwnerStatus): string[] {
  const nobody = owner.paused || owner.when === 'never';
  return ['Guests', nobody ? lentText(owner) : `${lentText(owner)}; ${welcomeText(owner)}`];
}

function sharingRows(sharing: NonNullable<NodeStatus['sharing']>): string[][] {
  const { subnet, site, other } = sharing.links;
  const from = [subnet, site, other].map(({ receivedBytes }) => formatBytes(receivedBytes));
  return [
    [
      'From others',
      `${count(sharing.foundResults, 'action result')}, ${count(sharing.receivedBlobs, 'blob')} (subnet ${from[0]}, site ${from[1]}, elsewhere ${from[2]})`,
    ],
    ['To others', `${count(sharing.servedBlobs, 'blob')} (${formatBytes(sharing.servedBytes)})`],
  ];
}

function share(hits: number, misses: number): string {
  const all = hits + misses;
  return all === 0 ? 'none' : `${Math.round((100 * hits) / all)} % hits (${hits} of ${all})`;
}

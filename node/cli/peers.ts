/** `potluck peers`: who is in the mesh. */
import type { PeerLine } from '../mesh/status.ts';
import { type Command, jsonFlag } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { formatDuration, formatTable, printable } from './format.ts';
import { askMesh, meshSettings } from './mesh-admin.ts';
import { print, printError } from './terminal.ts';

export const peers: Command = {
  name: 'peers',
  summary: 'show the members of the mesh',
  description:
    'Lists the other members as this node sees them. Without a running node it lists those that are remembered.',
  flags: { ...meshSettings, ...jsonFlag },
  examples: [
    { about: 'for a person', line: 'potluck peers' },
    {
      about: 'ids of the live ones, for a script',
      line: `potluck peers --json | jq -r '.peers[] | select(.status == "alive").peerId'`,
    },
  ],
  async run(args) {
    const { answer, running } = await askMesh(args, { do: 'peers' });
    if (args.switches.has('json')) {
      print(JSON.stringify({ ...answer, running }));
      return exitCodes.ok;
    }
    if (answer.meshId === null || answer.peers.length === 0) {
      print('Nobody else is in the mesh. "potluck invite" lets another machine in.');
      return exitCodes.ok;
    }
    print(`Mesh ${answer.meshId}; this node is ${answer.peerId}`);
    const header = ['NAME', 'STATUS', 'SITE', 'ROUND TRIP', 'ADDRESS', 'ROLES', 'PEER'];
    for (const line of formatTable([header, ...answer.peers.map(rowOf)])) print(line);
    if (!running) printError('No node runs here now; these are remembered.');
    return exitCodes.ok;
  },
};

function rowOf(line: PeerLine): string[] {
  const { name, status, connected, site, roundTripMs, addresses, roles, peerId, lastSeen, drained } = line;
  const seen = lastSeen === null ? '' : `, seen ${formatDuration(Date.now() - Date.parse(lastSeen))} ago`;
  return [
    printable(name) || '-',
    `${status === 'alive' ? (connected ? 'alive' : 'alive, not connected') : `${status}${seen}`}${drained === null ? '' : `, drained: ${drained}`}`,
    printable(site) || '-',
    roundTripMs === null ? '-' : `${roundTripMs.toFixed(1)} ms`,
    printable(addresses[0] ?? '-'),
    roles.map(printable).join(',') || '-',
    peerId,
  ];
}

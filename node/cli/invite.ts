/** `potluck invite`: lets another machine into the mesh. */
import { parseDuration } from '../config/quantities.ts';
import { valueOf } from './args.ts';
import { type Command, jsonFlag } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { formatDuration } from './format.ts';
import { askMesh, meshSettings } from './mesh-admin.ts';
import { print, printError } from './terminal.ts';

const defaultTtl = '1h';
const defaultRoles = 'executor';

export const invite: Command = {
  name: 'invite',
  summary: 'let another machine into the mesh',
  description:
    'Prints an invitation that is good for one machine and a limited time: a long form to copy and a short one to type. Whoever has it can join, so hand it over with care. This node must be an issuer, which the first node of a mesh is, and must run for the other to join.',
  flags: {
    ttl: { value: 'TIME', about: 'how long it is good, at most 7d', fallback: defaultTtl },
    roles: {
      value: 'ROLES',
      about:
        'what the new member may be, separated by commas: executor (runs actions of others), publisher (its results are believed where only publishers are)',
      fallback: defaultRoles,
    },
    ...meshSettings,
    ...jsonFlag,
  },
  examples: [
    { about: 'for a colleague', line: 'potluck invite' },
    { about: 'for a CI runner, from a script', line: 'potluck invite --ttl 10m --roles executor,publisher --json' },
  ],
  async run(args) {
    const ttl = parseDuration(valueOf(args, 'ttl') ?? defaultTtl);
    if ('problem' in ttl) throw new CliError(`--ttl: ${ttl.problem}`, exitCodes.usage);
    const roles = (valueOf(args, 'roles') ?? defaultRoles)
      .split(',')
      .map((role) => role.trim())
      .filter((role) => role !== '');
    const { answer, running } = await askMesh(args, { do: 'invite', ttlMs: ttl.value, roles });
    if (args.switches.has('json')) {
      print(JSON.stringify({ ...answer, notAfter: new Date(answer.notAfterMs).toISOString() }));
      return exitCodes.ok;
    }
    print('On the other machine, within the next ' + `${formatDuration(answer.notAfterMs - Date.now())}:`);
    print('');
    print(`  potluck join ${answer.token}`);
    print('');
    print('or, to type it:');
    print('');
    print(`  potluck join ${answer.short}`);
    if (!running) printError('No node runs here now: start it ("potluck up"), or the other machine reaches nobody.');
    return exitCodes.ok;
  },
};

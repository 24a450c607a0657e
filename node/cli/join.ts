/** `potluck join`: brings this machine into a mesh. */
import { hostname } from 'node:os';
import { valueOf } from './args.ts';
import { type Command, jsonFlag } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { askMesh, meshSettings } from './mesh-admin.ts';
import { print } from './terminal.ts';

export const join: Command = {
  name: 'join',
  summary: 'join the mesh of an invitation',
  operands: 'INVITATION',
  operandsMax: 1,
  description:
    'Takes an invitation of "potluck invite" in either form. A running node is connected at once; otherwise the next "potluck up" connects.',
  flags: {
    name: { value: 'NAME', about: 'what others call this machine', fallback: 'its host name' },
    ...meshSettings,
    ...jsonFlag,
  },
  examples: [
    { about: 'copied', line: 'potluck join potluck-CiBhYjM0…' },
    { about: 'typed', line: 'potluck join 7K2M-QX4P-9RTV-B3HD@192.168.1.20:8982' },
  ],
  async run(args) {
    const [token] = args.positionals;
    if (token === undefined) throw new CliError('which invitation? See potluck join --help.', exitCodes.usage);
    const name = valueOf(args, 'name') ?? hostname();
    const { answer, running } = await askMesh(args, { do: 'join', token, name });
    if (args.switches.has('json')) print(JSON.stringify(answer));
    else {
      print(`Joined the mesh ${answer.meshId}${answer.roles.length > 0 ? ` as ${answer.roles.join(' and ')}` : ''}.`);
      print(running ? 'See who is there: potluck peers' : 'Start the node to take part: potluck up');
    }
    return exitCodes.ok;
  },
};

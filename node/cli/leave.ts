/** `potluck leave`: takes this machine out of its mesh. */
import { type Command, jsonFlag } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { askMesh, meshSettings } from './mesh-admin.ts';
import { print } from './terminal.ts';

export const leave: Command = {
  name: 'leave',
  summary: 'take this machine out of its mesh',
  description:
    'Says goodbye and forgets the membership; blobs stay. Joining again takes a new invitation. To keep a machine out against its will, see potluck revoke.',
  flags: {
    force: { about: "leave even with the administrator's key, which nobody else has" },
    ...meshSettings,
    ...jsonFlag,
  },
  examples: [{ about: 'this machine', line: 'potluck leave' }],
  async run(args) {
    const { answer } = await askMesh(args, { do: 'leave', force: args.switches.has('force') });
    if (args.switches.has('json')) print(JSON.stringify(answer));
    else print(`Left the mesh ${answer.meshId}.`);
    return exitCodes.ok;
  },
};

/** `potluck revoke`: ends the membership of a machine. */
import { type Command, jsonFlag } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { peerOf } from './issuer.ts';
import { askMesh, meshSettings } from './mesh-admin.ts';
import { print, printError } from './terminal.ts';

export const revoke: Command = {
  name: 'revoke',
  summary: 'end the membership of a machine for good',
  operands: 'PEER',
  operandsMax: 1,
  description:
    'Connected members cut the machine off within seconds; others when they next hear from a member. Its key is of no more use in this mesh. This node must be an issuer.',
  flags: { ...meshSettings, ...jsonFlag },
  examples: [{ about: 'a lost laptop', line: 'potluck revoke old-laptop' }],
  async run(args) {
    const { answer, running } = await askMesh(args, { do: 'revoke', peer: peerOf(args, 'revoke') });
    if (args.switches.has('json')) print(JSON.stringify(answer));
    else print(`${answer.peerId} was revoked.`);
    if (!running) printError('No node runs here now: the others hear of it when it runs again.');
    return exitCodes.ok;
  },
};

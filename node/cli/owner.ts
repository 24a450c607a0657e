/** `potluck owner`: tells the node that the machine's owner is back, or gone, before it would notice. */
import { type Command, jsonFlag } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { askOwner } from './lending.ts';
import { meshSettings } from './mesh-admin.ts';

export const owner: Command = {
  name: 'owner',
  summary: "say that this machine's owner is back, or away",
  operands: 'back|away',
  operandsMax: 1,
  description:
    'For scripts of a desktop, run when the screen is unlocked and locked. "back" sends guests away at once, as a key would; "away" lets them in without waiting for a quiet minute, unless the machine is busy, hot, on battery or short of memory. Needs a running node.',
  flags: { ...meshSettings, ...jsonFlag },
  examples: [{ about: 'when the screen is locked', line: 'potluck owner away' }],
  async run(args) {
    const [presence] = args.positionals;
    if (presence !== 'back' && presence !== 'away') {
      throw new CliError('back or away? Usage: potluck owner back|away', exitCodes.usage);
    }
    return askOwner(args, { do: 'owner', presence });
  },
};

/** `potluck lend`: how much of this machine members may use, and when. */
import { valueOf } from './args.ts';
import { type Command, jsonFlag } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { askOwner } from './lending.ts';
import { meshSettings } from './mesh-admin.ts';

const times = ['idle', 'always', 'never'] as const;

export const lend: Command = {
  name: 'lend',
  summary: "say how much of this machine members' actions may use, and when",
  description:
    'Wins over the settings "lend" and "lend-slots", and holds across restarts. "idle": nobody has used the machine for a minute or so, it is on mains, cool, and has memory to spare. "always": whatever its owner does; heat and short memory still send guests away. Without flags it says what holds.',
  flags: {
    when: { value: times.join('|'), about: 'when guests are welcome' },
    slots: { value: 'COUNT', about: 'guests at once, at most' },
    ...meshSettings,
    ...jsonFlag,
  },
  examples: [
    { about: 'two cores while nobody is here', line: 'potluck lend --slots 2 --when idle' },
    { about: 'a machine that has no other work', line: 'potluck lend --when always' },
  ],
  async run(args) {
    const when = valueOf(args, 'when');
    const slots = valueOf(args, 'slots');
    const known = times.find((name) => name === when);
    if (when !== undefined && known === undefined) {
      throw new CliError(`--when: "${when}" is not one of ${times.join(', ')}`, exitCodes.usage);
    }
    if (slots !== undefined && !/^\d{1,4}$/.test(slots)) {
      throw new CliError(`--slots: "${slots}" is not a whole number`, exitCodes.usage);
    }
    return askOwner(args, { do: 'lend', ...(known && { when: known }), ...(slots && { slots: Number(slots) }) });
  },
};

/** `potluck pause`: no guests until `potluck resume`. */
import { type Command, jsonFlag } from './command.ts';
import { askOwner } from './lending.ts';
import { meshSettings } from './mesh-admin.ts';

export const pause: Command = {
  name: 'pause',
  summary: "run no members' actions here until resume",
  description:
    "Other members' actions that run here are frozen at once and given back within seconds; their builds go on elsewhere. Builds of this machine go on, and may use others. It holds across restarts.",
  flags: { ...meshSettings, ...jsonFlag },
  examples: [{ about: 'before a presentation', line: 'potluck pause' }],
  run: (args) => askOwner(args, { do: 'pause' }),
};

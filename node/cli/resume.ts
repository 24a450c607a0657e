/** `potluck resume`: ends `potluck pause`. */
import { type Command, jsonFlag } from './command.ts';
import { askOwner } from './lending.ts';
import { meshSettings } from './mesh-admin.ts';

export const resume: Command = {
  name: 'resume',
  summary: "let members' actions run here again",
  description: 'Ends "potluck pause". What is lent, and when, is what it was before.',
  flags: { ...meshSettings, ...jsonFlag },
  examples: [{ about: 'afterwards', line: 'potluck resume' }],
  run: (args) => askOwner(args, { do: 'resume' }),
};

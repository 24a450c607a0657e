/** `potluck status`: asks the running node how it is. */
import { loadConfig } from '../config/load.ts';
import { settingValues, valueOf } from './args.ts';
import { type Command, jsonFlag, settingFlags } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { askStatus } from './node-status.ts';
import { print } from './terminal.ts';

const settingsRead = settingFlags('http', 'bearer-token-file', 'tls-cert', 'tls-key');

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
    const answer = await askStatus(config);
    if (args.switches.has('json')) print(JSON.stringify(answer));
    else for (const line of describe(answer)) print(line);
    return exitCodes.ok;
  },
};

function describe(answer: Record<string, unknown>): string[] {
  return Object.entries(answer).map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
}

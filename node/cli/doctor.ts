/** `potluck doctor`: looks for what could keep a node from serving well on this machine. */
import { loadConfig } from '../config/load.ts';
import { settingValues, valueOf } from './args.ts';
import { type Command, jsonFlag, settingFlags } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { print } from './terminal.ts';
import { packageVersion } from './version.ts';

const settingsRead = settingFlags(
  'data-dir',
  'listen',
  'http',
  'cache-size',
  'bwrap',
  'mesh',
  'mesh-listen',
  'mesh-data-listen',
);
const marks = { ok: 'ok     ', warning: 'warning', problem: 'PROBLEM' } as const;

export const doctor: Command = {
  name: 'doctor',
  summary: 'check this machine and say what to mend',
  description:
    'Checks the program, data directory, disk, isolation of actions, limits, addresses and clock. Warnings say what could be better; exit status 1 says that there is a problem, with which a node will not serve.',
  flags: { ...settingsRead, ...jsonFlag },
  examples: [
    { about: 'everything, with the defaults', line: 'potluck doctor' },
    { about: 'for a bug report', line: 'potluck doctor --json' },
  ],
  async run(args) {
    const config = await loadConfig({
      flags: settingValues(args, settingsRead),
      file: valueOf(args, 'config'),
      env: process.env,
      platform: process.platform,
    });
    const { examine } = await import('./checks.ts');
    const findings = await examine(config);
    const healthy = findings.every(({ verdict }) => verdict !== 'problem');
    if (args.switches.has('json')) {
      print(JSON.stringify({ version: packageVersion(), healthy, findings }));
    } else {
      for (const { check, verdict, found, fix } of findings) {
        print(`${marks[verdict]}  ${check}: ${found}`);
        if (fix) print(`         -> ${fix}`);
      }
    }
    return healthy ? exitCodes.ok : exitCodes.failed;
  },
};

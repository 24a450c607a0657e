/** `potluck drain` and `undrain`: whether actions of this node may run on a machine. */
import { type Command, jsonFlag, type ParsedArgs } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { askMesh, meshSettings } from './mesh-admin.ts';
import { print } from './terminal.ts';

export const drain: Command = {
  name: 'drain',
  summary: 'hand no more actions of this node to a machine',
  operands: 'PEER',
  operandsMax: 1,
  description:
    'Actions of this node avoid the machine until "potluck undrain"; others go on using it, and blobs are fetched from it as before. What runs there now ends there. "potluck peers" shows who is drained and why: a machine whose actions fail far too often is drained without anybody asking, and let back when it has proved itself. Needs a running node, which forgets it when it stops.',
  flags: { ...meshSettings, ...jsonFlag },
  examples: [{ about: 'a machine with a broken compiler', line: 'potluck drain old-laptop' }],
  run: (args) => ask(args, true),
};

export const undrain: Command = {
  name: 'undrain',
  summary: 'let a drained machine run actions of this node again',
  operands: 'PEER',
  operandsMax: 1,
  description: 'Takes back "potluck drain", or trusts a machine again that was drained for its faults.',
  flags: { ...meshSettings, ...jsonFlag },
  examples: [{ about: 'it was repaired', line: 'potluck undrain old-laptop' }],
  run: (args) => ask(args, false),
};

async function ask(args: ParsedArgs, drained: boolean): Promise<number> {
  const [peer] = args.positionals;
  const command = drained ? 'drain' : 'undrain';
  if (peer === undefined) {
    throw new CliError(`which machine? Usage: potluck ${command} PEER; see potluck peers`, exitCodes.usage);
  }
  const { answer } = await askMesh(args, { do: 'drain', peer, drained });
  if (args.switches.has('json')) print(JSON.stringify(answer));
  else if (drained) print(`Actions of this node avoid ${answer.peerId} from now on.`);
  else print(`Actions of this node may run on ${answer.peerId} again.`);
  return exitCodes.ok;
}

/** `potluck issuer add|remove`: says who may invite. */
import { type Command, jsonFlag, type ParsedArgs } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { askMesh, meshSettings } from './mesh-admin.ts';
import { print } from './terminal.ts';

const flags = { ...meshSettings, ...jsonFlag };

export const issuerAdd: Command = {
  name: 'issuer add',
  summary: 'let a member invite others',
  operands: 'PEER',
  operandsMax: 1,
  description:
    'Makes a member an issuer: it can invite, renew memberships and revoke. It hears of it as soon as it is connected. Takes the administrator key, which the first node of the mesh has.',
  flags,
  examples: [{ about: 'by name, peer id or the beginning of one', line: 'potluck issuer add build-server' }],
  async run(args) {
    const { answer } = await askMesh(args, { do: 'issuer add', peer: peerOf(args, 'issuer add') });
    if (args.switches.has('json')) print(JSON.stringify(answer));
    else print(`${answer.peerId} is an issuer now.`);
    return exitCodes.ok;
  },
};

export const issuerRemove: Command = {
  name: 'issuer remove',
  summary: 'take the right to invite from a member',
  operands: 'PEER',
  operandsMax: 1,
  description:
    'Members that this issuer admitted, and that this node knows, stay members until their certificates end, and renew with another issuer. Any other certificate of this issuer is void. The issuer itself stays a member; see potluck revoke.',
  flags,
  examples: [{ about: 'a laptop that was lent out', line: 'potluck issuer remove old-laptop' }],
  async run(args) {
    const { answer } = await askMesh(args, { do: 'issuer remove', peer: peerOf(args, 'issuer remove') });
    if (args.switches.has('json')) print(JSON.stringify(answer));
    else print(`${answer.peerId} is no issuer any more.`);
    return exitCodes.ok;
  },
};

/** The one operand. */
export function peerOf(args: ParsedArgs, command: string): string {
  const [peer] = args.positionals;
  if (peer !== undefined) return peer;
  throw new CliError(`which peer? See potluck peers, and potluck ${command} --help.`, exitCodes.usage);
}

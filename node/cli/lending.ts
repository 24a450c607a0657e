/** How the answers of `pause`, `resume`, `lend` and `owner` are told. */
import type { OwnerRequest, OwnerStatus } from '../owner/requests.ts';
import type { ParsedArgs } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { count } from './format.ts';
import { askMesh } from './mesh-admin.ts';
import { print, printError } from './terminal.ts';

export async function askOwner(args: ParsedArgs, request: OwnerRequest): Promise<number> {
  const { answer: status, running } = await askMesh<OwnerRequest['do']>(args, request);
  if (args.switches.has('json')) print(JSON.stringify({ ...status, running }));
  else {
    print(`${lentText(status)}.`);
    if (!running) printError('No node runs here now; it will hold from its next start on.');
    else if (!status.paused && status.when !== 'never') print(`Guests ${welcomeText(status)}.`);
  }
  return exitCodes.ok;
}

/** Such as "Lends 4 slots while idle". */
export function lentText({ paused, when, slots }: OwnerStatus): string {
  if (paused) return 'Paused: no actions of other members run here before "potluck resume"';
  const much = slots === null ? 'all slots' : count(slots, 'slot');
  if (when === 'never') return 'Lends nothing';
  return when === 'always' ? `Lends ${much} always` : `Lends ${much} while idle`;
}

/** Such as "not welcome now: memory is short". */
export function welcomeText({ guestsWelcome, reason }: OwnerStatus): string {
  return guestsWelcome ? 'welcome now' : `not welcome now: ${reason}`;
}

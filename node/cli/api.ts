/** Asks the running node for what is below `/api/`, for the commands that show it. */
import { loadConfig } from '../config/load.ts';
import type { TopFrame } from '../builds/top.ts';
import { settingValues, valueOf } from './args.ts';
import { type ParsedArgs, settingFlags } from './command.ts';
import { CliError, exitCodes } from './exit-codes.ts';
import { printable } from './format.ts';

/** What a command needs to find the node. */
export const apiSettings = settingFlags('http', 'bearer-token-file', 'tls-cert', 'tls-key');

export interface Api {
  /** Throws CliError when no node answers, or with what it said against it. */
  get<T>(path: string): Promise<T>;
  post<T>(path: string): Promise<T>;
}

export async function openApi(args: ParsedArgs): Promise<Api> {
  const config = await loadConfig({
    flags: settingValues(args, apiSettings),
    file: valueOf(args, 'config'),
    env: process.env,
    platform: process.platform,
  });
  const { askNode } = await import('./node-status.ts');
  return {
    get: (path) => askNode(config, `/api/${path}`),
    post: (path) => askNode(config, `/api/${path}`, 'POST'),
  };
}

/** The one operand. Throws CliError when it is not given. */
export function operandOf(args: ParsedArgs, what: string, command: string): string {
  const [operand] = args.positionals;
  if (operand !== undefined) return operand;
  throw new CliError(`which ${what}? Usage: potluck ${command} ${what.toUpperCase()}`, exitCodes.usage);
}

const idCharsShown = 8;

/** Names of peers for people: as the mesh knows them, else the end of the peer id; this node is `here`. */
export function namesOf({ peers, peerId: self }: Pick<TopFrame, 'peers' | 'peerId'>): (node: string | null) => string {
  const names = new Map(peers.map(({ peerId, name }) => [peerId, name]));
  return (node) => (node === null || node === self ? 'here' : printable(names.get(node) || node.slice(-idCharsShown)));
}

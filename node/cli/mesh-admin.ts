/** Hands the owner's request to the node that serves from a data directory, or does it there when none does. */
import type { MeshConfig, NodeConfig } from '../config/config.ts';
import { loadConfig } from '../config/load.ts';
import type { AdminRequest, Answers } from '../mesh/admin-requests.ts';
import { settingValues, valueOf } from './args.ts';
import { type ParsedArgs, settingFlags } from './command.ts';
import { CliError } from './exit-codes.ts';

/** What a command needs to find the node, and to act in its place. */
export const meshSettings = settingFlags('data-dir', 'mesh-listen');

export interface Asked<K extends AdminRequest['do']> {
  readonly answer: Answers[K];
  /** Whether a running node answered. */
  readonly running: boolean;
}

/** Throws CliError with what the node said against it. */
export async function askMesh<K extends AdminRequest['do']>(
  args: ParsedArgs,
  request: AdminRequest & { readonly do: K },
): Promise<Asked<K>> {
  const config = await loadConfig({
    flags: settingValues(args, meshSettings),
    file: valueOf(args, 'config'),
    env: process.env,
    platform: process.platform,
  });
  const { post } = await import('./mesh-socket.ts');
  const body = await post(config.dataDir, JSON.stringify(request));
  if (body !== undefined) return { answer: JSON.parse(body) as Answers[K], running: true };
  const [{ administer }, { ownMembership }] = await Promise.all([
    import('../mesh/admin.ts'),
    import('../mesh/ownership.ts'),
  ]);
  const context = { dataDir: config.dataDir, config: meshOf(config), active: () => undefined };
  // Looking takes nothing from anybody.
  using _ = request.do === 'peers' ? undefined : ownMembership(config.dataDir);
  return { answer: (await administer(request, context)) as Answers[K], running: false };
}

function meshOf({ mesh }: NodeConfig): MeshConfig {
  if (mesh) return mesh;
  throw new CliError('the configuration turns the mesh off (mesh: off)');
}

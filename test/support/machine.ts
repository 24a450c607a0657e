/** A machine with a node of its own: a host of a network lab, or this machine by another name. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { post } from '../../node/cli/mesh-socket.ts';
import { type ActionClient, openActionClient } from './actions.ts';
import type { NetworkLab } from './network-lab.ts';
import { entry, type NodeProcess, startNode } from './node-process.ts';
import { until } from './until.ts';

export interface Machine extends AsyncDisposable {
  readonly name: string;
  readonly dataDir: string;
  /** Begins every command line on this machine. */
  prefix(): readonly string[];
  /** The node that runs; throws when none does. */
  node(): NodeProcess;
  /** Starts the node, with further arguments. */
  up(...args: readonly string[]): Promise<NodeProcess>;
  /** Runs `potluck` here, on the data directory of this machine, and returns its stdout. */
  potluck(...args: readonly string[]): Promise<string>;
  /** Takes an invitation of another machine whose node runs. */
  join(issuer: Machine): Promise<void>;
  /** Its peer id in the mesh. */
  peerId(): Promise<string>;
  /** A client of its node, from outside of its network too. The caller disposes of it. */
  client(): ActionClient;
  /** Says to its node that its owner is there, or is gone. */
  owner(presence: 'back' | 'away'): Promise<void>;
  /** How many others it sees alive. */
  sees(): Promise<number>;
  /** Bytes of whole blobs that came from others since its node started. */
  receivedBytes(): Promise<number>;
  /** How many actions of its own clients ran on other machines since its node started. */
  ranElsewhere(): Promise<number>;
}

export interface MachineOptions {
  readonly name: string;
  readonly dataDir: string;
  /** Where it is a host of that name; without, it is on loopback. */
  readonly lab?: NetworkLab | undefined;
  /** Which host of the lab, unless it is the one of the machine's name. */
  readonly host?: string;
  /** Of `potluck up`, at each start. */
  readonly args?: readonly string[];
  /** Further environment of its node. */
  readonly env?: NodeJS.ProcessEnv;
}

interface SharedStatus {
  readonly mesh: { readonly peerId: string | null; readonly members: { readonly alive: number } };
  readonly sharing: { readonly receivedBytes: number } | null;
}

export function createMachine({ name, dataDir, lab, host = name, args = [], env = {} }: MachineOptions): Machine {
  const prefix = (): readonly string[] => (lab ? lab.host(host).command(process.execPath).slice(0, -1) : []);
  /** Sockets of the file system are reached from every network namespace. */
  const socket = (what: string): string => `unix:${dataDir}.${what}.sock`;
  let running: NodeProcess | undefined;

  const node = (): NodeProcess => {
    if (!running) throw new Error(`no node runs on ${name}`);
    return running;
  };
  const status = async (): Promise<SharedStatus> => (await node().status()) as unknown as SharedStatus;

  const potluck: Machine['potluck'] = async (...line) => {
    const [program, ...rest] = [...prefix(), process.execPath, entry, ...line, '--data-dir', dataDir];
    return (await promisify(execFile)(program, rest)).stdout;
  };
  return {
    name,
    dataDir,
    prefix,
    node,
    potluck,
    async up(...more) {
      running = await startNode({
        dataDir,
        args: ['--listen', socket('grpc'), ...args, ...more],
        http: socket('http'),
        prefix: prefix(),
        env,
      });
      return running;
    },
    async join(issuer) {
      const { token } = JSON.parse(await issuer.potluck('invite', '--json')) as { token: string };
      await potluck('join', token, '--name', name);
    },
    async peerId() {
      const { mesh } = await status();
      if (mesh.peerId === null) throw new Error(`${name} is in no mesh`);
      return mesh.peerId;
    },
    async owner(presence) {
      const answer = await post(dataDir, JSON.stringify({ do: 'owner', presence }));
      if (answer === undefined) throw new Error(`no node runs on ${name}`);
    },
    client: () => openActionClient(socket('grpc')),
    sees: async () => (await status()).mesh.members.alive,
    receivedBytes: async () => (await status()).sharing?.receivedBytes ?? 0,
    ranElsewhere: () => node().metric('potluck_actions_total', { source: 'peer' }),
    async [Symbol.asyncDispose]() {
      await running?.[Symbol.asyncDispose]();
    },
  };
}

/** Resolves when each of the machines sees all the others alive. */
export async function allMeet(machines: readonly Machine[], timeoutMs = 60_000): Promise<void> {
  await until(async () => {
    const seen = await Promise.all(machines.map((one) => one.sees()));
    return seen.every((count) => count === machines.length - 1);
  }, timeoutMs);
}

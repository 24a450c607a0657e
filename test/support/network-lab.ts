/**
 * A small network for real processes: every host is a network namespace of its own, hosts of one subnet hang on a bridge
 * (multicast works there), subnets are joined by a router. Bridges and router live in a further namespace, so this
 * machine's own network is never touched. Needs Linux, root and iproute2; lossy links need
 * nftables and slow ones Python 3 as well (a relay of our own holds packets back: not every kernel has netem).
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

export interface LabHost {
  readonly name: string;
  readonly subnet: string;
  readonly address: string;
  /** The command line that runs `program` on this host: program first. */
  command(program: string, ...args: readonly string[]): [string, ...string[]];
  /** Runs a program on this host to its end and returns its stdout. */
  run(program: string, ...args: readonly string[]): string;
}

export interface NetworkLab extends Disposable {
  host(name: string): LabHost;
  /** Bandwidth of the host's link in each direction. */
  limit(name: string, megabitsPerSecond: number): void;
  /** Ends that. */
  unlimit(name: string): void;
  /** Share of packets lost on the way to the host; 0 ends it. */
  lose(name: string, percent: number): void;
  /** Holds back every packet between the two subnets, each way. Resolves once it does. */
  delay(subnet: string, other: string, delayMs: number): Promise<void>;
  /** Nothing passes between the two subnets any more, or again. */
  cut(subnet: string, other: string, isCut: boolean): void;
  /** Unplugs the host, or plugs it in again. */
  plug(name: string, isPlugged: boolean): void;
  /** Packets of `from` no longer reach `to`; those of `to` still reach `from`. */
  muteOneWay(from: string, to: string, isMuted: boolean): void;
  /** Another address for the host, in its subnet: the one before is gone. */
  readdress(name: string): LabHost;
  /** Ends every process on the host at once, as `kill -9`. */
  killAll(name: string): void;
}

/** Why no lab can be made here; undefined when it can. */
export function labMissing(): string | undefined {
  if (process.platform !== 'linux') return 'network namespaces exist on Linux only';
  if (process.getuid?.() !== 0) return 'making network namespaces needs root';
  const probe = `plk-probe-${process.pid}`;
  try {
    run('ip', 'netns', 'add', probe);
    run('ip', 'netns', 'del', probe);
    return undefined;
  } catch (error) {
    return `"ip netns add" fails here (apt-get install iproute2): ${(error as Error).message.split('\n')[0]}`;
  }
}

const delayProgram = fileURLToPath(new URL('delay.py', import.meta.url));

let labs = 0;

/** Subnets by name, each with the names of its hosts. Everything is gone when the lab is disposed of. */
export function openNetworkLab(subnets: Readonly<Record<string, readonly string[]>>): NetworkLab {
  const prefix = `plk-${process.pid}-${(labs += 1)}`;
  const core = `${prefix}-core`;
  const namespaces: string[] = [];
  const hosts = new Map<string, { host: LabHost; port: string; subnetIndex: number; last: number }>();

  function addNamespace(name: string): void {
    run('ip', 'netns', 'add', name);
    namespaces.push(name);
    run('ip', '-n', name, 'link', 'set', 'lo', 'up');
  }

  function addressOf(subnetIndex: number, last: number): string {
    return `10.77.${subnetIndex + 1}.${last}`;
  }

  function makeHost(name: string, subnet: string, address: string): LabHost {
    const command: LabHost['command'] = (program, ...args) => [
      'ip',
      'netns',
      'exec',
      `${prefix}-${name}`,
      program,
      ...args,
    ];
    return { name, subnet, address, command, run: (program, ...args) => run(...command(program, ...args)) };
  }

  function setAddress(name: string, subnetIndex: number, last: number): void {
    const ns = `${prefix}-${name}`;
    run('ip', '-n', ns, 'addr', 'flush', 'dev', 'eth0');
    run('ip', '-n', ns, 'addr', 'add', `${addressOf(subnetIndex, last)}/24`, 'dev', 'eth0');
    run('ip', '-n', ns, 'route', 'replace', 'default', 'via', addressOf(subnetIndex, 1));
  }

  function entry(name: string) {
    const found = hosts.get(name);
    if (!found) throw new Error(`the lab has no host ${name}; it has ${[...hosts.keys()].join(', ')}`);
    return found;
  }

  function dispose(): void {
    const made = namespaces.splice(0).reverse();
    for (const namespace of made) killIn(namespace);
    for (const namespace of made) run('ip', 'netns', 'del', namespace);
  }

  try {
    addNamespace(core);
    // Delayed packets come back to the router on another device than they first came in by.
    for (const setting of ['ip_forward=1', 'conf.all.rp_filter=0', 'conf.default.rp_filter=0']) {
      run('ip', 'netns', 'exec', core, 'sysctl', '-q', '-w', `net.ipv4.${setting}`);
    }
    for (const [subnetIndex, [subnet, names]] of Object.entries(subnets).entries()) {
      const bridge = `br${subnetIndex}`;
      run('ip', '-n', core, 'link', 'add', bridge, 'type', 'bridge', 'mcast_snooping', '0');
      run('ip', '-n', core, 'addr', 'add', `${addressOf(subnetIndex, 1)}/24`, 'dev', bridge);
      run('ip', '-n', core, 'link', 'set', bridge, 'up');
      for (const name of names) {
        const last = hosts.size + 2;
        const port = `p${hosts.size}`;
        addNamespace(`${prefix}-${name}`);
        run(
          'ip',
          '-n',
          core,
          'link',
          'add',
          port,
          'type',
          'veth',
          'peer',
          'name',
          'eth0',
          'netns',
          `${prefix}-${name}`,
        );
        run('ip', '-n', core, 'link', 'set', port, 'master', bridge, 'up');
        run('ip', '-n', `${prefix}-${name}`, 'link', 'set', 'eth0', 'up');
        setAddress(name, subnetIndex, last);
        hosts.set(name, { host: makeHost(name, subnet, addressOf(subnetIndex, last)), port, subnetIndex, last });
      }
    }
  } catch (error) {
    dispose();
    throw error;
  }

  return {
    host: (name) => entry(name).host,
    limit(name, megabitsPerSecond) {
      const { port } = entry(name);
      // The burst is what the link may send at once: one millisecond's worth, and never less than a large packet.
      const burstBytes = Math.max(64 * 1024, Math.round((megabitsPerSecond * 1e6) / 8 / 1000));
      const shape = ['root', 'tbf', 'rate', `${megabitsPerSecond}mbit`, 'burst', String(burstBytes), 'latency', '50ms'];
      run('tc', '-n', core, 'qdisc', 'replace', 'dev', port, ...shape);
      run('tc', '-n', `${prefix}-${name}`, 'qdisc', 'replace', 'dev', 'eth0', ...shape);
    },
    unlimit(name) {
      run('tc', '-n', core, 'qdisc', 'del', 'dev', entry(name).port, 'root');
      run('tc', '-n', `${prefix}-${name}`, 'qdisc', 'del', 'dev', 'eth0', 'root');
    },
    lose(name, percent) {
      const nft = (...args: string[]) => run('ip', 'netns', 'exec', `${prefix}-${name}`, 'nft', ...args);
      nft('add', 'table', 'inet', 'lossy');
      nft('delete', 'table', 'inet', 'lossy');
      if (percent === 0) return;
      nft('add', 'table', 'inet', 'lossy');
      nft('add', 'chain', 'inet', 'lossy', 'in', '{ type filter hook input priority 0; }');
      nft(
        'add',
        'rule',
        'inet',
        'lossy',
        'in',
        'iifname',
        'eth0',
        'numgen',
        'random',
        'mod',
        '100',
        '<',
        String(percent),
        'drop',
      );
    },
    async delay(subnet, other, delayMs) {
      const indexes = [subnet, other].map((one) => Object.keys(subnets).indexOf(one));
      const [here, there] = indexes as [number, number];
      const device = `late${here}x${there}`;
      const table = String(100 + here * 16 + there);
      const [program, ...args] = [
        'ip',
        'netns',
        'exec',
        core,
        'python3',
        delayProgram,
        device,
        String(delayMs),
      ] as const;
      const relay = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      await Promise.race([
        once(relay.stdout, 'data'),
        once(relay, 'exit').then(([code]) => Promise.reject(new Error(`${delayProgram} ended with ${String(code)}`))),
      ]);
      run('ip', '-n', core, 'link', 'set', device, 'up');
      run('ip', '-n', core, 'route', 'add', 'default', 'dev', device, 'table', table);
      for (const [from, to] of [
        [here, there],
        [there, here],
      ] as const) {
        run('ip', '-n', core, 'rule', 'add', 'iif', `br${from}`, 'to', `${addressOf(to, 0)}/24`, 'lookup', table);
      }
    },
    cut(subnet, other, isCut) {
      const [here, there] = [subnet, other].map((one) => Object.keys(subnets).indexOf(one)) as [number, number];
      for (const [from, to] of [
        [here, there],
        [there, here],
      ] as const) {
        const rule = ['iif', `br${from}`, 'to', `${addressOf(to, 0)}/24`, 'priority', '50', 'blackhole'];
        run('ip', '-n', core, 'rule', isCut ? 'add' : 'del', ...rule);
      }
    },
    plug(name, isPlugged) {
      run('ip', '-n', core, 'link', 'set', entry(name).port, isPlugged ? 'up' : 'down');
    },
    muteOneWay(from, to, isMuted) {
      const { host } = entry(to);
      run('ip', '-n', `${prefix}-${from}`, 'route', isMuted ? 'add' : 'del', 'blackhole', `${host.address}/32`);
    },
    readdress(name) {
      const known = entry(name);
      const last = known.last < 100 ? known.last + 100 : known.last - 100;
      setAddress(name, known.subnetIndex, last);
      const host = makeHost(name, known.host.subnet, addressOf(known.subnetIndex, last));
      hosts.set(name, { ...known, host, last });
      return host;
    },
    killAll: (name) => {
      killIn(`${prefix}-${entry(name).host.name}`);
    },
    [Symbol.dispose]: dispose,
  };
}

function killIn(namespace: string): void {
  for (const pid of run('ip', 'netns', 'pids', namespace).split('\n').filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It ended by itself in between.
    }
  }
}

function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

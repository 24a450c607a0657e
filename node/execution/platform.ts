/**
 * Which platform properties of an action this node satisfies.
 *
 * Every property must be offered by the node; an action that asks for more is refused at once rather than run somewhere it
 * did not ask for. Names and values are compared as they are written.
 *
 * @see REAPI v2.12, message Platform and its lexicon (OSFamily, ISA; several ISA values must all hold)
 */
import { arch, availableParallelism, platform, totalmem } from 'node:os';
import type { Platform_Property } from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { StatusError } from '../../protos/status.ts';

export interface PlatformProperty {
  readonly name: string;
  readonly value: string;
}

/** `Linux` beside the lexicon's `linux`: so it stands in the toolchain files that many Bazel users have. */
const osFamilies: Record<string, readonly string[]> = {
  linux: ['linux', 'Linux'],
  darwin: ['macos'],
  freebsd: ['freebsd'],
  win32: ['windows'],
};
const instructionSets: Record<string, string> = { x64: 'x86-64', ia32: 'x86-32', arm64: 'arm-a64', arm: 'arm-a32' };

/**
 * Properties that change nothing about where an action may run here: a salt for cache keys, and the explicit wish for
 * what the sandbox does anyway. `container-image` is satisfied only by `none`: an image cannot be provided.
 */
const heldByEveryNode: readonly PlatformProperty[] = [
  { name: 'container-image', value: 'none' },
  { name: 'network', value: 'off' },
  { name: 'dockerNetwork', value: 'off' },
];
const anyValue = new Set(['cache-silo-key']);

/**
 * What this machine is, by the lexicon, and what it has: `cores` and `memory-gib` are offered in powers of two up to what
 * there is, so that asking for four finds whoever has at least four.
 */
export function machineProperties(): PlatformProperty[] {
  const isa = instructionSets[arch()];
  const glibc = glibcVersion();
  return [
    ...(osFamilies[platform()] ?? []).map((value) => ({ name: 'OSFamily', value })),
    ...(isa === undefined ? [] : [{ name: 'ISA', value: isa }]),
    ...(glibc === undefined ? [] : [{ name: 'glibc', value: glibc }]),
    ...powersUpTo(availableParallelism()).map((value) => ({ name: 'cores', value })),
    ...powersUpTo(totalmem() / 2 ** 30).map((value) => ({ name: 'memory-gib', value })),
  ];
}

function powersUpTo(amount: number): string[] {
  const powers: string[] = [];
  for (let power = 1; power <= amount; power *= 2) powers.push(String(power));
  return powers;
}

/** Of the C library that this process runs on; `undefined` where it is another one. */
function glibcVersion(): string | undefined {
  if (platform() !== 'linux') return undefined;
  // Without it the report looks for the names of all addresses.
  Object.assign(process.report, { excludeNetwork: true });
  const { header } = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return header?.glibcVersionRuntime;
}

export interface PlatformOffer {
  readonly properties: readonly PlatformProperty[];
  /** All of them, as others are told: sorted `name=value`, at most 60 of at most 128 characters. */
  readonly capabilities: readonly string[];
  /**
   * Throws FAILED_PRECONDITION naming every property that is not offered, and all that are. `anywhere`: a member that
   * offers them all will do.
   */
  check(wanted: readonly Platform_Property[], where: 'here' | 'anywhere'): void;
  /**
   * What an action asks of whoever runs it, sorted. One that does not say for which system it is was made on this one, and
   * goes to its like.
   */
  requires(wanted: readonly Platform_Property[]): readonly string[];
}

/**
 * @param configured - what the operator says this node has, beside what it finds out itself
 * @param elsewhere - the capabilities of members
 * @param inMesh - what this node offers as a member, beside all that
 */
export function createPlatformOffer(
  configured: readonly PlatformProperty[],
  elsewhere: () => Iterable<readonly string[]> = () => [],
  inMesh: () => readonly string[] = () => [],
): PlatformOffer {
  const properties = [...machineProperties(), ...configured];
  const keyOf = ({ name, value }: { name: string; value: string }): string => `${name}=${value}`;
  const held = new Set(heldByEveryNode.map(keyOf));
  const ofMachine = new Set(properties.map(keyOf));
  const offered = { has: (key: string): boolean => ofMachine.has(key) || inMesh().includes(key) };
  const asked = (wanted: readonly Platform_Property[]): string[] =>
    wanted
      .filter(({ name }) => !anyValue.has(name))
      .map(keyOf)
      .filter((key) => offered.has(key) || !held.has(key));
  const firstOf = (name: string): string[] =>
    properties
      .filter((one) => one.name === name)
      .slice(0, 1)
      .map(keyOf);
  return {
    properties,
    // What the operator said comes first when there is no room for all.
    capabilities: [...new Set([...configured, ...properties].map(keyOf))]
      .filter((key) => key.length <= capabilityCharsMax)
      .slice(0, capabilitiesMax)
      .sort(),
    check(wanted, where) {
      const lacking = asked(wanted).filter((key) => !offered.has(key));
      if (lacking.length === 0) return;
      const members = where === 'anywhere' ? [...elsewhere()] : [];
      const required = asked(wanted);
      if (members.some((member) => required.every((key) => member.includes(key)))) return;
      const theirs = [...new Set(members.flat())].filter((key) => !offered.has(key)).sort();
      throw new StatusError(
        'FAILED_PRECONDITION',
        `no worker has the platform ${lacking.join(', ')}; this node offers ${[...ofMachine, ...inMesh()].join(', ')}` +
          (theirs.length > 0 ? `; members offer beside that ${theirs.join(', ')}` : '') +
          ' (started with --platform NAME=VALUE a node offers more)',
      );
    },
    requires(wanted) {
      const named = new Set(wanted.map(({ name }) => name));
      const implied = ['OSFamily', 'ISA'].filter((name) => !named.has(name)).flatMap(firstOf);
      return [...new Set([...asked(wanted), ...implied])].sort();
    },
  };
}

/** What a membership record carries (docs/protocol.md, "Membership"), less what the mesh itself adds. */
const capabilitiesMax = 60;
const capabilityCharsMax = 128;

/**
 * Which platform properties of an action this node satisfies.
 *
 * Every property must be offered by the node; an action that asks for more is refused at once rather than run somewhere it
 * did not ask for. Names and values are compared as they are written.
 *
 * @see REAPI v2.12, message Platform and its lexicon (OSFamily, ISA; several ISA values must all hold)
 */
import { arch, platform } from 'node:os';
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

/** What this machine is, by the lexicon. */
export function machineProperties(): PlatformProperty[] {
  const isa = instructionSets[arch()];
  return [
    ...(osFamilies[platform()] ?? []).map((value) => ({ name: 'OSFamily', value })),
    ...(isa === undefined ? [] : [{ name: 'ISA', value: isa }]),
  ];
}

export interface PlatformOffer {
  readonly properties: readonly PlatformProperty[];
  /** Throws FAILED_PRECONDITION naming every property that is not offered, and all that are. */
  check(wanted: readonly Platform_Property[]): void;
}

/** @param configured - what the operator says this node has, beside what it finds out itself */
export function createPlatformOffer(configured: readonly PlatformProperty[]): PlatformOffer {
  const properties = [...machineProperties(), ...configured];
  const keyOf = ({ name, value }: PlatformProperty): string => `${name}=${value}`;
  const offered = new Set([...properties, ...heldByEveryNode].map(keyOf));
  return {
    properties,
    check(wanted) {
      const lacking = wanted.filter((one) => !anyValue.has(one.name) && !offered.has(keyOf(one)));
      if (lacking.length === 0) return;
      throw new StatusError(
        'FAILED_PRECONDITION',
        `no worker has the platform ${lacking.map(keyOf).join(', ')}; this node offers ${properties.map(keyOf).join(', ')} ` +
          '(started with --platform NAME=VALUE it offers more)',
      );
    },
  };
}

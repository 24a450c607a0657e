/** Addresses as people write them, `host:port`, and as libp2p does. */
import { isIPv4, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import type { NodeId } from '../../core/ids.ts';

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Reads `host:port` or `[v6]:port`; `undefined` when it is neither. */
export function parseHostPort(text: string): HostPort | undefined {
  const [, v6, name, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([\w.-]{1,253})):(\d{1,5})$/.exec(text) ?? [];
  const host = v6 ?? name;
  const port = Number(digits);
  return host === undefined || port > 65_535 || (v6 !== undefined && !isIPv6(v6)) ? undefined : { host, port };
}

export function hostPortText({ host, port }: HostPort): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** `undefined` for a text that is no address. */
export function toMultiaddr(text: string, peer?: NodeId): Multiaddr | undefined {
  const address = parseHostPort(text);
  if (!address) return undefined;
  const { host, port } = address;
  const protocol = isIPv4(host) ? 'ip4' : isIPv6(host) ? 'ip6' : 'dns';
  const suffix = peer === undefined ? '' : `/p2p/${peer}`;
  return multiaddr(`/${protocol}/${host}/tcp/${port}${suffix}`);
}

/** `undefined` for a multiaddr that is no plain TCP address. */
export function fromMultiaddr(address: Multiaddr): string | undefined {
  const [network, transport, ...rest] = address.getComponents();
  if (!network?.value || transport?.name !== 'tcp' || !/^(ip[46]|dns[46]?)$/.test(network.name)) return undefined;
  if (rest.some(({ name }) => name !== 'p2p')) return undefined;
  return hostPortText({ host: network.value, port: Number(transport.value) });
}

/** Networks that exist on this machine only: whoever hears of their addresses finds somebody else there, or nobody. */
const ownNetworks = /^(docker|br-|virbr|cni|podman)/;

/** Leaves out loopback and the machine's own networks, unless nothing else is left. */
export function announced(addresses: Multiaddr[]): Multiaddr[] {
  const hidden = new Set<string>();
  for (const [name, all] of Object.entries(networkInterfaces())) {
    for (const { address, internal } of all ?? []) if (internal || ownNetworks.test(name)) hidden.add(address);
  }
  const useful = addresses.filter((address) => !hidden.has(address.getComponents()[0]?.value ?? ''));
  return useful.length > 0 ? useful : addresses;
}

/** An address to listen on as others can reach it: all interfaces become those of this machine, IPv4 first. */
export function reachable({ host, port }: HostPort): string[] {
  if (host !== '0.0.0.0' && host !== '::') return [hostPortText({ host, port })];
  const all = Object.entries(networkInterfaces()).flatMap(([name, some]) =>
    ownNetworks.test(name) ? [] : (some ?? []),
  );
  const outside = all.filter(({ internal, family }) => !internal && (family === 'IPv4' || host === '::'));
  return byReach(outside.map(({ address }) => hostPortText({ host: address, port })));
}

/** IPv4 first: it is what people type, and what every machine in an office has. */
export function byReach(addresses: readonly string[]): string[] {
  const rank = (text: string): number => (isIPv4(parseHostPort(text)?.host ?? '') ? 0 : 1);
  return [...addresses].sort((a, b) => rank(a) - rank(b));
}

/** The IPv4 or IPv6 network of an address of this machine, such as `192.168.1.0/24`; '' when it is none of ours. */
export function subnetOf(host: string): string {
  for (const all of Object.values(networkInterfaces())) {
    for (const { address, netmask, family } of all ?? []) {
      if (address !== host) continue;
      if (family === 'IPv6') return `${address.split(':').slice(0, 4).join(':')}::/64`;
      const mask = netmask.split('.').map(Number);
      const network = address.split('.').map((part, at) => Number(part) & (mask[at] ?? 0));
      const bits = mask.reduce((sum, part) => sum + part.toString(2).replaceAll('0', '').length, 0);
      return `${network.join('.')}/${bits}`;
    }
  }
  return '';
}

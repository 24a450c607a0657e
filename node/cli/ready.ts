/** What `potluck up` says once it serves, to a person and to a program. */
import { hostname } from 'node:os';
import type { NodeConfig } from '../config/config.ts';
import { formatBytes, formatTable } from './format.ts';
import { packageVersion } from './version.ts';

/** What is known once the node serves. Addresses have the ports that were picked. */
export interface ServingFacts {
  readonly grpc: readonly string[];
  readonly http: string | undefined;
  readonly isolation: 'bubblewrap' | 'none';
  /** A sentence: why that isolation, and what to do for a better one. */
  readonly isolationReason: string;
}

/** The first line of `--log-format json`. Fields are only ever added. */
export function readyEvent(config: NodeConfig, facts: ServingFacts): Record<string, unknown> {
  return {
    event: 'ready',
    grpc: facts.grpc[0],
    http: facts.http ?? null,
    dataDir: config.dataDir,
    addresses: facts.grpc,
    isolation: facts.isolation,
    version: packageVersion(),
    pid: process.pid,
  };
}

export function readyText(config: NodeConfig, facts: ServingFacts): string[] {
  const scheme = config.tls ? 'https' : 'http';
  const rows = [
    ...facts.grpc.map((address, index) => [index === 0 ? '  gRPC' : '', address]),
    ['  HTTP', facts.http === undefined ? 'off' : `${httpUrl(scheme, facts.http)}  (cache, /metrics, /api/status)`],
    ['  Data', `${config.dataDir}, up to ${formatBytes(config.cacheSizeBytes)}`],
    ['  Slots', config.slots === 0 ? 'none: this node only caches' : `${config.slots} actions at once`],
    ['  Isolation', `${facts.isolation}: ${facts.isolationReason}`],
  ];
  return [
    `Potluck ${packageVersion()} serves.`,
    ...formatTable(rows),
    '',
    ...bazelrcText(config, facts),
    '',
    'Without Bazel: potluck run -- echo hello     Stop: Ctrl-C',
  ];
}

function bazelrcText(config: NodeConfig, facts: ServingFacts): string[] {
  const [address = ''] = facts.grpc;
  const url = address.startsWith('unix:') ? address : `${config.tls ? 'grpcs' : 'grpc'}://${reachable(address)}`;
  const instance = config.instances?.find((name) => name !== '');
  const common = [
    ...(instance && !config.instances?.includes('') ? [`build --remote_instance_name=${instance}`] : []),
    ...(config.tls?.clientCaFile ? ['build --tls_client_certificate=CERT.pem --tls_client_key=KEY.pem'] : []),
    ...(config.tls ? [`build --tls_certificate=${config.tls.certFile}`] : []),
    ...(config.bearerTokenFile && !address.startsWith('unix:')
      ? [`build --remote_header="authorization=Bearer TOKEN"  # TOKEN: the text of ${config.bearerTokenFile}`]
      : []),
  ];
  const cacheOnly = [`build --remote_cache=${url}`, ...common];
  if (config.slots === 0) return ['Paste into .bazelrc:', ...cacheOnly.map(indent)];
  return [
    'Paste into .bazelrc, to build in the sandbox and share results:',
    ...[`build --remote_executor=${url}`, ...common].map(indent),
    'or, to build where you are and only share results:',
    ...cacheOnly.map(indent),
  ];
}

/** An address of all interfaces is none to connect to: other machines know this one by its name. */
function reachable(address: string): string {
  return address.replace(/^(0\.0\.0\.0|\[::\])(?=:)/, hostname());
}

function httpUrl(scheme: string, address: string): string {
  return address.startsWith('unix:') ? address : `${scheme}://${address}`;
}

function indent(line: string): string {
  return `  ${line}`;
}

/** Puts a node's configuration together: flags over environment over file over defaults, every problem in one report. */
import { access, constants } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { parseListenAddress } from '../reapi/listen-address.ts';
import type { MeshConfig, NodeConfig } from './config.ts';
import { defaultCacheSizeBytes, defaultDataDir } from './defaults.ts';
import { nearest } from './nearest.ts';
import { environmentName, type SettingName, settingNames, type SettingValue } from './settings.ts';
import { type FlagValues, fromEnvironment, fromFile, fromFlags, type RawValue } from './sources.ts';

export interface ConfigSources {
  readonly flags: FlagValues;
  /** The file of `--config`; without it `POTLUCK_CONFIG` is asked. */
  readonly file?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly platform: NodeJS.Platform;
}

/** Every problem of a configuration, each a line that names where the value stood and what is allowed. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.problems = problems;
  }
}

/** Throws a ConfigError that holds all problems at once. */
export async function loadConfig(sources: ConfigSources): Promise<NodeConfig> {
  const problems: string[] = [];
  const file = sources.file ?? (sources.env.POTLUCK_CONFIG || undefined);
  const layers = [
    fromFlags(sources.flags),
    fromEnvironment(sources.env),
    file === undefined ? new Map<SettingName, RawValue>() : await fromFile(resolve(file), problems),
  ];
  const sourceOf = (name: SettingName): RawValue | undefined => layers.find((layer) => layer.has(name))?.get(name);

  problems.push(...mistypedVariables(sources.env));
  const schemas = layers.some((layer) => layer.size > 0) ? await import('./schemas.ts') : undefined;

  function read<N extends SettingName, D>(name: N, fallback: D): SettingValue<N> | D {
    const raw = sourceOf(name);
    if (raw === undefined || !schemas) return fallback;
    const result = schemas.schemaOf(name).safeParse(raw.value);
    if (result.success) return result.data;
    for (const issue of result.error.issues) problems.push(`${raw.source}: ${issue.message}`);
    return fallback;
  }

  const dataDir = read('data-dir', defaultDataDir(sources.env, sources.platform));
  const listen = read('listen', [parseListenAddress('127.0.0.1:8980')]);
  const http = read('http', parseListenAddress('127.0.0.1:8981'));
  const certFile = read('tls-cert', undefined);
  const keyFile = read('tls-key', undefined);
  const clientCaFile = read('tls-client-ca', undefined);
  const bearerTokenFile = read('bearer-token-file', undefined);
  const maxActionTimeoutMs = read('max-action-timeout', 24 * 3_600_000);
  const defaultActionTimeoutMs = read('default-action-timeout', Math.min(30 * 60_000, maxActionTimeoutMs));
  const config: NodeConfig = {
    dataDir,
    listen: listen.map(({ text }) => text),
    http: http?.text,
    cacheSizeBytes: read('cache-size', undefined) ?? (await defaultCacheSizeBytes(dataDir)),
    slots: read('slots', availableParallelism()),
    instances: read('instance', undefined),
    durability: read('durability', 'full'),
    tls: certFile !== undefined && keyFile !== undefined ? { certFile, keyFile, clientCaFile } : undefined,
    bearerTokenFile,
    bwrapPath: read('bwrap', undefined),
    defaultActionTimeoutMs,
    maxActionTimeoutMs,
    platformProperties: read('platform', []),
    validateHttpActionResults: read('http-action-results', 'checked') === 'checked',
    remoteAsset: read('remote-asset', 'off') === 'on',
    mesh: readMesh(),
    auditPercent: read('audit-percent', 1),
    logFormat: read('log-format', 'text'),
  };

  function readMesh(): MeshConfig | undefined {
    const meshListen = read('mesh-listen', '0.0.0.0:8982');
    const mesh: MeshConfig = {
      listen: meshListen,
      dataListen: read('mesh-data-listen', meshListen.replace(/:\d+$/, meshListen.endsWith(':0') ? ':0' : ':8983')),
      bootstrap: read('mesh-peer', []),
      site: read('site', ''),
      discovery: read('mesh-discovery', 'on') === 'on',
      trust: read('trust', 'members'),
      uploadBytesPerSecond: read('mesh-upload-rate', undefined),
      replicas: read('replicas', 1),
      lend: { when: read('lend', 'idle'), slots: read('lend-slots', undefined) },
    };
    return read('mesh', 'on') === 'on' ? mesh : undefined;
  }

  const named = (name: SettingName): string => sourceOf(name)?.source ?? `--${name}`;
  if (defaultActionTimeoutMs > maxActionTimeoutMs) {
    problems.push(`${named('default-action-timeout')}: must not exceed max-action-timeout`);
  }
  const credentials = { certFile, keyFile, clientCaFile, bearerTokenFile };
  problems.push(...(await credentialProblems(credentials, named)));
  const guarded = certFile !== undefined && (clientCaFile ?? bearerTokenFile) !== undefined;
  for (const [name, address] of [...listen.map((one) => ['listen', one] as const), ['http', http] as const]) {
    if (address === undefined || address.local || guarded) continue;
    problems.push(
      `${named(name)}: ${address.text} can be reached from other machines; that takes --tls-cert and --tls-key with either --tls-client-ca or --bearer-token-file`,
    );
  }

  if (problems.length > 0) throw new ConfigError(problems);
  return config;
}

interface Credentials {
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  readonly clientCaFile: string | undefined;
  readonly bearerTokenFile: string | undefined;
}

async function credentialProblems(
  { certFile, keyFile, clientCaFile, bearerTokenFile }: Credentials,
  named: (name: SettingName) => string,
): Promise<string[]> {
  const problems: string[] = [];
  const files: Partial<Record<SettingName, string | undefined>> = {
    'tls-cert': certFile,
    'tls-key': keyFile,
    'tls-client-ca': clientCaFile,
    'bearer-token-file': bearerTokenFile,
  };
  for (const [name, path] of Object.entries(files) as [SettingName, string | undefined][]) {
    if (path === undefined) continue;
    await access(path, constants.R_OK).catch((error: NodeJS.ErrnoException) => {
      problems.push(`${named(name)}: ${path} cannot be read (${error.code})`);
    });
  }
  if (certFile !== undefined && keyFile === undefined) problems.push(`${named('tls-cert')}: needs --tls-key beside it`);
  if (keyFile !== undefined && certFile === undefined) problems.push(`${named('tls-key')}: needs --tls-cert beside it`);
  if (clientCaFile !== undefined && certFile === undefined) {
    problems.push(`${named('tls-client-ca')}: needs --tls-cert and --tls-key beside it`);
  }
  return problems;
}

/** `POTLUCK_` variables that are no settings. */
const otherVariables = ['POTLUCK_CONFIG', 'POTLUCK_DEBUG', 'POTLUCK_REMOTE'];

/** A variable that is almost a setting would be missed silently; one that is nothing like any is not ours to judge. */
function mistypedVariables(env: NodeJS.ProcessEnv): string[] {
  const prefix = 'POTLUCK_';
  const known = [...settingNames.map(environmentName), ...otherVariables].map((name) => name.slice(prefix.length));
  return Object.keys(env).flatMap((variable) => {
    const name = variable.slice(prefix.length);
    if (!variable.startsWith(prefix) || known.includes(name)) return [];
    const meant = nearest(name, known);
    return meant === undefined ? [] : [`${variable}: no such setting; did you mean ${prefix}${meant}?`];
  });
}

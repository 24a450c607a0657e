/**
 * Every setting once: its name is the flag (`--cache-size`), the key in the file (`cache-size:`) and, in capitals, the
 * environment variable (`POTLUCK_CACHE_SIZE`). Flags, help, file and environment are all read from this table.
 */
import { isAbsolute, resolve } from 'node:path';
import { StatusError } from '../../protos/status.ts';
import { type ListenAddress, parseListenAddress } from '../reapi/listen-address.ts';
import { sizeLimitMinBytes } from '../storage/limits.ts';
import type { PlatformProperty } from './config.ts';
import { parseDuration, type Parsed, parseSize } from './quantities.ts';

export interface Setting<T, List extends boolean = boolean> {
  /** What stands for the value in help texts. */
  readonly value: string;
  readonly about: string;
  /** What holds when nothing is given, for help texts. */
  readonly fallback: string;
  /** Given several times as a flag, separated by commas in the environment, a list in the file. */
  readonly list: List;
  /** Of a list: what to say when there is nothing in it; without it that is allowed. */
  readonly emptyProblem?: string;
  readonly parse: (text: string) => Parsed<T>;
}

function oneOf<const T extends string>(...allowed: readonly T[]): (text: string) => Parsed<T> {
  return (text) => {
    const value = allowed.find((name) => name === text);
    return value === undefined ? { problem: `is not one of ${allowed.join(', ')}` } : { value };
  };
}

function parsePath(text: string): Parsed<string> {
  return text.trim() === '' ? { problem: 'is not a path' } : { value: isAbsolute(text) ? text : resolve(text) };
}

function parseAddress(text: string): Parsed<ListenAddress> {
  try {
    return { value: parseListenAddress(text.trim()) };
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    return { problem: error.reason.replace(/^"[^"]*" /, '') };
  }
}

/** Members reach each other over TCP, so no Unix socket will do. */
function parseMeshAddress(text: string): Parsed<string> {
  const address = parseAddress(text);
  if ('problem' in address) return address;
  if (address.value.path !== undefined) return { problem: 'is a Unix socket, which no other machine reaches' };
  return { value: address.value.text };
}

function parseSite(text: string): Parsed<string> {
  if (/^[A-Za-z0-9._-]{0,64}$/.test(text)) return { value: text };
  return { problem: 'is not a site name; use up to 64 letters, digits, ".", "_" and "-"' };
}

function parseCacheSize(text: string): Parsed<number> {
  const size = parseSize(text);
  if ('problem' in size || size.value >= sizeLimitMinBytes) return size;
  return { problem: `is too small; the least is ${sizeLimitMinBytes / 2 ** 20}MiB` };
}

const slotsMax = 4096;

/** More copies than this only fill disks. */
const replicasMax = 16;

function parseSlots(text: string): Parsed<number> {
  const value = /^\d{1,4}$/.test(text.trim()) ? Number(text) : Number.NaN;
  return value <= slotsMax ? { value } : { problem: `is not a whole number from 0 to ${slotsMax}` };
}

function parseReplicas(text: string): Parsed<number> {
  const value = /^\d{1,2}$/.test(text.trim()) ? Number(text) : Number.NaN;
  return value >= 1 && value <= replicasMax ? { value } : { problem: `is not a whole number from 1 to ${replicasMax}` };
}

function parsePercent(text: string): Parsed<number> {
  const value = /^\d{1,3}(\.\d+)?$/.test(text.trim()) ? Number(text) : Number.NaN;
  return value <= 100 ? { value } : { problem: 'is not a number from 0 to 100' };
}

/** Words that separate an instance name from the rest of a resource name; REAPI keeps them out of instance names. */
const reserved = ['blobs', 'uploads', 'actions', 'actionResults', 'operations', 'capabilities', 'compressed-blobs'];

function parseInstance(text: string): Parsed<string> {
  const segments = text.split('/');
  if (text !== '' && segments.includes(''))
    return { problem: 'is not an instance name; it has an empty part between slashes' };
  const word = segments.find((segment) => reserved.includes(segment));
  return word === undefined ? { value: text } : { problem: `is not an instance name; the protocol reserves "${word}"` };
}

function parsePlatform(text: string): Parsed<PlatformProperty> {
  const at = text.indexOf('=');
  if (at < 1) return { problem: 'is not a platform property; write NAME=VALUE, such as OSFamily=linux' };
  return { value: { name: text.slice(0, at), value: text.slice(at + 1) } };
}

type Texts = Omit<Setting<unknown>, 'list' | 'parse'>;

function setting<T>(parse: (text: string) => Parsed<T>, texts: Texts): Setting<T, false> {
  return { list: false, ...texts, parse };
}

function listSetting<T>(parse: (text: string) => Parsed<T>, texts: Texts): Setting<T, true> {
  return { list: true, ...texts, parse };
}

export const settings = {
  'data-dir': setting(parsePath, {
    value: 'DIR',
    about: 'where blobs and action results are kept',
    fallback: '$XDG_CACHE_HOME/potluck, else ~/.cache/potluck; on macOS ~/Library/Caches/potluck',
  }),
  listen: listSetting(parseAddress, {
    value: 'ADDRESS',
    about: 'where gRPC is served: HOST:PORT or unix:/PATH; port 0 picks a free one',
    fallback: '127.0.0.1:8980',
    emptyProblem: 'names no address',
  }),
  http: setting(
    (text): Parsed<ListenAddress | undefined> => (text === 'off' ? { value: undefined } : parseAddress(text)),
    {
      value: 'ADDRESS',
      about: 'where the HTTP cache, /metrics and /api/status are served, or "off"',
      fallback: '127.0.0.1:8981',
    },
  ),
  'cache-size': setting(parseCacheSize, {
    value: 'SIZE',
    about: 'the most disk that blobs may take, such as 50GB or 20GiB',
    fallback: '50 GB, or a tenth of the disk when that is less',
  }),
  slots: setting(parseSlots, {
    value: 'COUNT',
    about: 'actions that run at once; 0 makes the node a cache only',
    fallback: 'the number of cores',
  }),
  instance: listSetting(parseInstance, {
    value: 'NAME',
    about: 'serve only these instance names',
    fallback: 'any',
  }),
  durability: setting(oneOf('full', 'fast'), {
    value: 'full|fast',
    about: '"fast" does not sync files to disk: a power cut may lose what was acknowledged',
    fallback: 'full',
  }),
  'tls-cert': setting(parsePath, { value: 'FILE', about: 'PEM certificate chain; turns TLS on', fallback: 'no TLS' }),
  'tls-key': setting(parsePath, { value: 'FILE', about: 'PEM private key of --tls-cert', fallback: 'none' }),
  'tls-client-ca': setting(parsePath, {
    value: 'FILE',
    about: 'PEM authority that must have signed the certificate of every client',
    fallback: 'none',
  }),
  'bearer-token-file': setting(parsePath, {
    value: 'FILE',
    about: 'file with the token that clients must send as "authorization: Bearer TOKEN"',
    fallback: 'none',
  }),
  bwrap: setting(parsePath, {
    value: 'FILE',
    about: 'the bubblewrap program that isolates actions',
    fallback: '"bwrap" on the PATH',
  }),
  'default-action-timeout': setting(parseDuration, {
    value: 'TIME',
    about: 'for actions that name no timeout',
    fallback: '30m',
  }),
  'max-action-timeout': setting(parseDuration, {
    value: 'TIME',
    about: 'actions that ask for more are refused',
    fallback: '24h',
  }),
  platform: listSetting(parsePlatform, {
    value: 'NAME=VALUE',
    about: 'platform property that actions may ask for, beside those the node finds out',
    fallback: 'none',
  }),
  'http-action-results': setting(oneOf('checked', 'any'), {
    value: 'checked|any',
    about: 'what PUT /ac/ accepts: only action results whose blobs are held, or any bytes',
    fallback: 'checked',
  }),
  'remote-asset': setting(oneOf('on', 'off'), {
    value: 'on|off',
    about: '"on" serves the Remote Asset API: clients may have this machine fetch http, https and file URLs',
    fallback: 'off',
  }),
  mesh: setting(oneOf('on', 'off'), {
    value: 'on|off',
    about: '"off" keeps this node out of its mesh; "on" listens to nobody before somebody was invited',
    fallback: 'on',
  }),
  'mesh-listen': setting(parseMeshAddress, {
    value: 'ADDRESS',
    about: 'where members reach this node to talk: HOST:PORT',
    fallback: '0.0.0.0:8982',
  }),
  'mesh-data-listen': setting(parseMeshAddress, {
    value: 'ADDRESS',
    about: 'where members fetch blobs from this node: HOST:PORT',
    fallback: 'the host of --mesh-listen, port 8983',
  }),
  'mesh-peer': listSetting(parseMeshAddress, {
    value: 'ADDRESS',
    about: 'a member to begin with, for meshes that span networks: HOST:PORT of its --mesh-listen',
    fallback: 'none; remembered members and those on the local network are found without',
  }),
  'mesh-discovery': setting(oneOf('on', 'off'), {
    value: 'on|off',
    about: 'whether to look for members by multicast DNS, and to answer those who look',
    fallback: 'on',
  }),
  'mesh-upload-rate': setting(parseSize, {
    value: 'SIZE',
    about: 'what members may fetch from this node in a second, such as 20MB; 0 on a link that is paid by volume',
    fallback: 'no bound',
  }),
  replicas: setting(parseReplicas, {
    value: 'COUNT',
    about: 'nodes of this site that hold what this one made, itself included: copies for when it is switched off',
    fallback: '1',
  }),
  trust: setting(oneOf('members', 'publishers', 'self'), {
    value: 'members|publishers|self',
    about: 'whose action results are taken from the mesh; "publishers" are members invited with that role',
    fallback: 'members',
  }),
  site: setting(parseSite, {
    value: 'NAME',
    about: 'where this machine is; members of one site are asked first',
    fallback: 'none',
  }),
  lend: setting(oneOf('idle', 'always', 'never'), {
    value: 'idle|always|never',
    about:
      'when members\' actions may run here, until "potluck lend" says otherwise; they always yield to memory and heat',
    fallback: 'idle',
  }),
  'lend-slots': setting(parseSlots, {
    value: 'COUNT',
    about: "members' actions that run here at once, at most",
    fallback: 'as many as --slots',
  }),
  'audit-percent': setting(parsePercent, {
    value: 'PERCENT',
    about: 'of cache hits, that are run again while this node is idle and compared bit for bit; 0 for none',
    fallback: '1',
  }),
  'log-format': setting(oneOf('text', 'json'), {
    value: 'text|json',
    about: 'for a person, or one JSON object a line',
    fallback: 'text',
  }),
} as const;

export type SettingName = keyof typeof settings;
export type SettingValue<N extends SettingName> =
  (typeof settings)[N] extends Setting<infer T, infer List> ? (List extends true ? T[] : T) : never;
export const settingNames = Object.keys(settings) as SettingName[];

export function environmentName(name: string): string {
  return `POTLUCK_${name.toUpperCase().replaceAll('-', '_')}`;
}

export function isSettingName(name: string): name is SettingName {
  return Object.hasOwn(settings, name);
}

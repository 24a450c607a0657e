/**
 * In what two ar archives differ: members, their contents, and the fields of their headers.
 *
 * @see ar(5) of FreeBSD and System V ABI chapter 7, "Archive File"
 */
import { type ByteSource, compareRanges, type Range } from './bytes.ts';
import * as limits from './limits.ts';

const magic = '!<arch>\n';
const thinMagic = '!<thin>\n';
const headerBytes = 60;
const headerEnd = '`\n';

/** Text fields of a member's header that tell of machine and moment, by their place. */
const fields = [
  ['timestamp', 16, 12],
  ['uid', 28, 6],
  ['gid', 34, 6],
  ['mode', 40, 8],
] as const;

interface Member {
  readonly name: string;
  readonly header: Readonly<Record<string, string>>;
  readonly content: Range;
}

/** Lines that say in what they differ; `undefined` when one of them is no archive that can be read. */
export async function compareArchives(one: ByteSource, other: ByteSource): Promise<string[] | undefined> {
  const [ours, theirs] = [await readMembers(one), await readMembers(other)];
  if (!ours || !theirs) return undefined;
  const lines: string[] = [];
  const order = (members: readonly Member[]): string => members.map(({ name }) => name).join('\n');
  for (const name of theirs.keys()) if (!ours.has(name)) lines.push(`member ${name} is only in the second`);
  for (const [name, member] of ours) {
    const match = theirs.get(name);
    if (!match) {
      lines.push(`member ${name} is only in the first`);
      continue;
    }
    for (const [field] of fields) {
      const [a, b] = [member.header[field], match.header[field]];
      if (a !== b) lines.push(`member ${name}: ${field} ${a} in the first, ${b} in the second`);
    }
    const at = await compareRanges(one, member.content, other, match.content);
    if (at === undefined) continue;
    const sizes =
      member.content.length === match.content.length
        ? ''
        : `, ${member.content.length} and ${match.content.length} bytes`;
    lines.push(`member ${name}: contents differ from byte ${at} on${sizes}`);
  }
  if (lines.length === 0 && order([...ours.values()]) !== order([...theirs.values()])) {
    lines.push('the same members in another order');
  }
  return lines;
}

/** By name; a name that comes again is numbered. */
async function readMembers(source: ByteSource): Promise<Map<string, Member> | undefined> {
  const start = Buffer.from(await source.read(0, magic.length)).toString('latin1');
  if (start !== magic && start !== thinMagic) return undefined;
  const members = new Map<string, Member>();
  const seen = new Map<string, number>();
  let longNames = '';
  for (let at = magic.length; at + headerBytes <= source.sizeBytes; ) {
    const header = Buffer.from(await source.read(at, headerBytes)).toString('latin1');
    const size = Number(header.slice(48, 58));
    if (header.slice(58) !== headerEnd || !Number.isInteger(size) || size < 0) return undefined;
    if (members.size >= limits.archiveMembersMax) return members;
    const raw = header.slice(0, 16).trimEnd();
    let content: Range = { offset: at + headerBytes, length: size };
    let name = raw.replace(/\/$/, '');
    if (raw === '/' || raw === '/SYM64/' || raw === '__.SYMDEF') name = 'symbol table';
    else if (raw === '//') {
      name = 'table of names';
      longNames = await readText(source, content);
    } else if (/^\/\d+$/.test(raw)) {
      const from = Number(raw.slice(1));
      const end = longNames.indexOf('\n', from);
      name = longNames.slice(from, Math.min(end < 0 ? Infinity : end, from + limits.nameCharsMax)).replace(/\/$/, '');
    } else if (raw.startsWith('#1/')) {
      const length = Number(raw.slice(3));
      if (!Number.isInteger(length) || length < 0 || length > size) return undefined;
      const text = await readText(source, { offset: content.offset, length: Math.min(length, limits.nameCharsMax) });
      name = text.split('\0', 1)[0] ?? '';
      content = { offset: content.offset + length, length: size - length };
    }
    // Members of a thin archive are files beside it; only its tables are inside.
    const isOutside = start === thinMagic && name !== 'symbol table' && name !== 'table of names';
    if (isOutside) content = { offset: content.offset, length: 0 };
    const header_ = Object.fromEntries(
      fields.map(([field, from, length]) => [field, header.slice(from, from + length).trim()]),
    );
    const number = (seen.get(name) ?? 0) + 1;
    seen.set(name, number);
    const text = number === 1 ? name : `${name} (${number})`;
    members.set(text, { name: text, header: header_, content });
    const end = at + headerBytes + (isOutside ? 0 : size);
    at = end + (end % 2);
  }
  return members;
}

async function readText(source: ByteSource, { offset, length }: Range): Promise<string> {
  return Buffer.from(await source.read(offset, Math.min(length, limits.namesBytesMax))).toString('latin1');
}

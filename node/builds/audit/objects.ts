/**
 * In what two ELF files differ: which sections, and whether it is but the build id.
 *
 * @see System V ABI, chapter 4, "Object Files"
 */
import { type ByteSource, compareRanges, type Range } from './bytes.ts';
import * as limits from './limits.ts';

const magic = Buffer.from([0x7f, 0x45, 0x4c, 0x46]);
const fileHeaderBytes = 64;
const occupiesNoSpace = 8;
const buildIdSection = '.note.gnu.build-id';
/** Owner "GNU" and three words before it. */
const buildIdNoteHeaderBytes = 16;

interface Section {
  readonly type: number;
  readonly flags: string;
  readonly content: Range;
}

/** Lines that say in what they differ; `undefined` when one of them is no ELF file that can be read. */
export async function compareObjects(one: ByteSource, other: ByteSource): Promise<string[] | undefined> {
  const [ours, theirs] = [await readSections(one), await readSections(other)];
  if (!ours || !theirs) return undefined;
  const lines: string[] = [];
  for (const name of theirs.keys()) if (!ours.has(name)) lines.push(`section ${name} is only in the second`);
  for (const [name, section] of ours) {
    const match = theirs.get(name);
    if (!match) {
      lines.push(`section ${name} is only in the first`);
      continue;
    }
    if (section.type !== match.type || section.flags !== match.flags)
      lines.push(`section ${name}: type or flags differ`);
    const at = await compareRanges(one, section.content, other, match.content);
    if (at === undefined) continue;
    if (name === buildIdSection) {
      const ids = await Promise.all([buildId(one, section), buildId(other, match)]);
      lines.push(`build id ${ids[0]}, in the second ${ids[1]}: it follows from what was linked`);
      continue;
    }
    const [a, b] = [section.content.length, match.content.length];
    lines.push(`section ${name}: differs from byte ${at} on${a === b ? '' : `, ${a} and ${b} bytes`}${hint(name)}`);
  }
  if (lines.length === 0) lines.push('all sections are equal; headers or padding differ');
  return lines;
}

/** What such a difference often comes from. */
function hint(name: string): string {
  if (name === '.comment') return ' (the versions of compilers)';
  if (/^\.(debug|zdebug|rela?\.debug|gnu_debuglink)/.test(name)) return ' (debugging information, such as paths)';
  return '';
}

async function buildId(source: ByteSource, { content }: Section): Promise<string> {
  const note = await source.read(content.offset, Math.min(content.length, 128));
  return Buffer.from(note.subarray(buildIdNoteHeaderBytes)).toString('hex');
}

/** By name; a name that comes again is numbered. */
async function readSections(source: ByteSource): Promise<Map<string, Section> | undefined> {
  const header = Buffer.from(await source.read(0, fileHeaderBytes));
  if (header.byteLength < 52 || !header.subarray(0, 4).equals(magic)) return undefined;
  const is64 = header[4] === 2;
  const isLittle = header[5] === 1;
  if (is64 && header.byteLength < fileHeaderBytes) return undefined;
  const half = (buffer: Buffer, at: number): number => (isLittle ? buffer.readUInt16LE(at) : buffer.readUInt16BE(at));
  const word = (buffer: Buffer, at: number): number => (isLittle ? buffer.readUInt32LE(at) : buffer.readUInt32BE(at));
  const wide = (buffer: Buffer, at: number): number =>
    is64 ? Number(isLittle ? buffer.readBigUInt64LE(at) : buffer.readBigUInt64BE(at)) : word(buffer, at);

  const tableAt = wide(header, is64 ? 0x28 : 0x20);
  const entryBytes = half(header, is64 ? 0x3a : 0x2e);
  const count = half(header, is64 ? 0x3c : 0x30);
  const namesIndex = half(header, is64 ? 0x3e : 0x32);
  if (entryBytes < (is64 ? 64 : 40) || count > limits.sectionsMax) return undefined;
  const table = Buffer.from(await source.read(tableAt, entryBytes * count));
  if (table.byteLength < entryBytes * count) return undefined;
  const entry = (index: number) => {
    const raw = table.subarray(index * entryBytes, (index + 1) * entryBytes);
    return {
      nameAt: word(raw, 0),
      type: word(raw, 4),
      flags: wide(raw, 8).toString(16),
      content: { offset: wide(raw, is64 ? 0x18 : 0x10), length: wide(raw, is64 ? 0x20 : 0x14) },
    };
  };
  if (namesIndex >= count) return undefined;
  const { offset, length } = entry(namesIndex).content;
  const names = Buffer.from(await source.read(offset, Math.min(length, limits.namesBytesMax)));
  const sections = new Map<string, Section>();
  for (let index = 1; index < count; index += 1) {
    const { nameAt, type, flags, content } = entry(index);
    const end = names.indexOf(0, nameAt);
    const nameEnd = Math.min(end === -1 ? names.byteLength : end, nameAt + limits.nameCharsMax);
    const name = names.toString('latin1', nameAt, nameEnd) || `number ${index}`;
    const text = sections.has(name) ? `${name} (number ${index})` : name;
    // Sections such as .bss have a size and no bytes.
    const range = type === occupiesNoSpace ? { offset: content.offset, length: 0 } : content;
    sections.set(text, {
      type,
      flags: type === occupiesNoSpace ? `${flags}/${content.length}` : flags,
      content: range,
    });
  }
  return sections;
}

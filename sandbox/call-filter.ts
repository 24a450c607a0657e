/**
 * Refuses the system calls of the kernel's key store: no namespace divides it, and an action would read, use and change
 * the keys of the session that the node was started in (tried: a key added before the node started could be read).
 *
 * @see seccomp(2), and linux/filter.h for the instructions of a classic BPF program
 */
import { endianness } from 'node:os';

/** One way of calling the kernel, and its numbers of add_key, request_key and keyctl. */
interface CallingConvention {
  /** AUDIT_ARCH_… of linux/audit.h */
  readonly architecture: number;
  readonly calls: readonly number[];
}

/** Those that a processor runs, its 32-bit one included. */
const conventions: Readonly<Record<string, readonly CallingConvention[]>> = {
  x64: [
    { architecture: 0xc000003e, calls: [248, 249, 250] },
    { architecture: 0x40000003, calls: [286, 287, 288] },
  ],
  arm64: [
    { architecture: 0xc00000b7, calls: [217, 218, 219] },
    { architecture: 0x40000028, calls: [309, 310, 311] },
  ],
};

const load = 0x20;
const and = 0x54;
const jumpIfEqual = 0x15;
const answer = 0x06;
const allow = 0x7fff0000;
/** SECCOMP_RET_ERRNO with ENOSYS: what programs hear from a kernel without a key store. */
const refuse = 0x00050000 | 38;
/** Places in struct seccomp_data. */
const callNumber = 0;
const architectureOfCall = 4;
/** Marks a call of the x32 convention, whose numbers are the same for these calls. */
const withoutX32 = ~0x40000000 >>> 0;

/** A program for `bwrap --seccomp`; `undefined` where the numbers are not known. */
export function callFilter(processor: string = process.arch): Uint8Array | undefined {
  const known = conventions[processor];
  if (!known || endianness() !== 'LE') return undefined;
  const program: (readonly [code: number, whenTrue: number, whenFalse: number, operand: number])[] = [
    [load, 0, 0, architectureOfCall],
  ];
  for (const { architecture, calls } of known) {
    program.push([jumpIfEqual, 0, calls.length + 4, architecture], [load, 0, 0, callNumber], [and, 0, 0, withoutX32]);
    for (const [index, call] of calls.entries()) program.push([jumpIfEqual, calls.length - index, 0, call]);
    program.push([answer, 0, 0, allow], [answer, 0, 0, refuse]);
  }
  program.push([answer, 0, 0, allow]);
  const bytes = Buffer.alloc(program.length * 8);
  for (const [index, [code, whenTrue, whenFalse, operand]] of program.entries()) {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(whenTrue, index * 8 + 2);
    bytes.writeUInt8(whenFalse, index * 8 + 3);
    bytes.writeUInt32LE(operand, index * 8 + 4);
  }
  return bytes;
}

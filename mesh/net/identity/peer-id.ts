/**
 * Peer ids of Ed25519 keys, in libp2p's text form: base58btc of an identity multihash over the key's protobuf encoding.
 * The key can be read back from the id, so an id alone is enough to check a signature.
 *
 * @see libp2p peer-ids specification, "Ed25519"
 */

const alphabet = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
const values = new Map(Array.from(alphabet, (letter, value) => [letter, value]));
/** Identity multihash of 36 bytes; PublicKey { Type: Ed25519, Data: 32 bytes }. */
const prefix = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20);
const idLengthMax = 64;

/** The peer id of an Ed25519 public key of 32 bytes. */
export function peerIdOf(publicKey: Uint8Array): string {
  const bytes = new Uint8Array(prefix.byteLength + publicKey.byteLength);
  bytes.set(prefix);
  bytes.set(publicKey, prefix.byteLength);
  return encodeBase58(bytes);
}

/** The public key in a peer id; `undefined` when it is no id of an Ed25519 key. */
export function publicKeyOf(peerId: string): Uint8Array | undefined {
  const bytes = peerId.length <= idLengthMax ? decodeBase58(peerId) : undefined;
  if (bytes?.byteLength !== prefix.byteLength + 32) return undefined;
  if (!prefix.every((byte, at) => bytes[at] === byte)) return undefined;
  return bytes.subarray(prefix.byteLength);
}

function encodeBase58(bytes: Uint8Array): string {
  let zeros = 0;
  while (bytes[zeros] === 0) zeros += 1;
  let number = bytes.length === 0 ? 0n : BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
  let text = '';
  for (; number > 0n; number /= 58n) text = (alphabet[Number(number % 58n)] as string) + text;
  return '1'.repeat(zeros) + text;
}

function decodeBase58(text: string): Uint8Array | undefined {
  let number = 0n;
  for (const letter of text) {
    const value = values.get(letter);
    if (value === undefined) return undefined;
    number = number * 58n + BigInt(value);
  }
  const hex = number === 0n ? '' : number.toString(16);
  const zeros = /^1*/.exec(text)?.[0].length ?? 0;
  return Buffer.concat([Buffer.alloc(zeros), Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex')]);
}

/** An issuer that is killed at the moment it would sign: `node killed-issuer.ts DATA_DIR NOW_MS < request.json`. */
import { json } from 'node:stream/consumers';
import { openIdentity } from '../../../../mesh/net/identity/identity.ts';
import { admit } from '../../../../mesh/net/identity/issuer.ts';

const [dataDir = '', nowMs] = process.argv.slice(2);
const identity = openIdentity({ dataDir, nowMs: () => Number(nowMs) });
if (!identity) throw new Error('no identity');
const request = (await json(process.stdin)) as Parameters<typeof admit>[1];
const bytes = (text: unknown): Uint8Array => Buffer.from(text as string, 'base64');
const dying: never[] = [];
const key = {
  ...identity.key,
  sign: () => {
    process.kill(process.pid, 'SIGKILL');
    return dying[0] as never;
  },
};
admit(
  { ...identity, key },
  { ...request, nonce: bytes(request.nonce), invitationId: bytes(request.invitationId), proof: bytes(request.proof) },
);
throw new Error('signed nothing');

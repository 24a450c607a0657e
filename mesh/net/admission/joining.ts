/** The joining side: dials the issuer that an invitation names, proves to hold it, and takes the grant. */
import { randomBytes } from 'node:crypto';
import { noise } from '@chainsafe/libp2p-noise';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { keys } from '@libp2p/crypto';
import type { MessageStream } from '@libp2p/interface';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { createLibp2p } from 'libp2p';
import {
  type Contact,
  type Grant,
  GrantSchema,
  HelloSchema,
  JoinGrantSchema,
} from '../../../protos/gen/potluck/mesh/v1/admission_pb.ts';
import { StatusError } from '../../../protos/status.ts';
import type { NodeId } from '../../core/ids.ts';
import { toMultiaddr } from '../host/addresses.ts';
import { addressDialMs } from '../host/limits.ts';
import { certificateBytes, type CertifiedMember, verifyMembership } from '../identity/certificate.ts';
import { invitationId, isProof, prove, type Token } from '../identity/invitation.ts';
import { createVerifier, openKey, type SigningKey } from '../identity/keys.ts';
import { readMesh } from '../identity/mesh.ts';
import { createRevocations } from '../identity/revocations.ts';
import { identityPaths, isShared, writeState } from '../identity/state.ts';
import { Refused, within } from './door.ts';
import { readFrame, writeFrame } from './framing.ts';
import { guarded } from './guarded.ts';
import * as limits from './limits.ts';

export interface Joined {
  readonly meshId: string;
  readonly member: CertifiedMember;
  readonly issuer: NodeId;
  /** Where the issuer was reached. */
  readonly address: string;
  readonly contacts: readonly Contact[];
}

export interface JoinOptions {
  readonly dataDir: string;
  /** For people; the host's name as a rule. */
  readonly name: string;
  readonly nowMs?: () => number;
}

/**
 * Joins the mesh of an invitation. The membership is on disk when this resolves. Throws FAILED_PRECONDITION when this node
 * shares a mesh with others already, PERMISSION_DENIED when the issuer refused, UNAVAILABLE when it was not reached.
 */
export async function join(token: Token, options: JoinOptions): Promise<Joined> {
  const { dataDir, name, nowMs = Date.now } = options;
  if (isShared(dataDir, nowMs())) {
    throw new StatusError('FAILED_PRECONDITION', 'this node is in a mesh with others already; "potluck leave" first');
  }
  const key = openKey(identityPaths(dataDir).key);
  const problems: string[] = [];
  let refused = false;
  for (const address of token.addresses) {
    const outcome = await ask(key, token, address, name);
    if ('grant' in outcome) return accept(dataDir, key, token, outcome, address, nowMs());
    problems.push(`${address}: ${outcome.problem}`);
    refused ||= outcome.refused;
  }
  throw new StatusError(
    refused ? 'PERMISSION_DENIED' : 'UNAVAILABLE',
    `not joined. ${problems.join('; ')}. ${
      refused
        ? 'Invitations are good once and for a limited time: ask for a new one.'
        : 'Is the inviting node running, and its port open in the firewall between the two machines?'
    }`,
  );
}

type Outcome =
  | { readonly grant: Grant; readonly issuer: NodeId }
  | { readonly problem: string; readonly refused: boolean };

/** One try at one address, with a libp2p of its own that can do nothing but this. */
async function ask(key: SigningKey, token: Token, address: string, name: string): Promise<Outcome> {
  const target = toMultiaddr(address, token.issuer);
  if (!target) return { problem: 'no address', refused: false };
  let outcome: Outcome | undefined;
  const dialled = async (connection: MessageStream, issuer: NodeId): Promise<void> => {
    outcome = { problem: 'it closed the connection at our invitation', refused: true };
    const grant = await within(connection, (signal) => exchange(connection, key.peerId, issuer, token, name, signal));
    outcome = { grant, issuer };
    throw new Refused('joined; the connection is of no more use');
  };
  const accepted = (): Promise<void> => Promise.reject(new Refused('this node is joining'));
  const door = { dialled, accepted };
  const node = await createLibp2p({
    privateKey: keys.privateKeyFromRaw(Buffer.concat([key.seed(), key.publicKey])),
    transports: [tcp()],
    connectionEncrypters: [guarded(tls(), door), guarded(noise(), door)],
    connectionManager: { addressDialTimeout: addressDialMs + limits.admissionMs },
    connectionMonitor: { enabled: false },
    connectionGater: { denyDialMultiaddr: () => false },
  });
  try {
    await node.dial(target);
  } catch (error) {
    outcome ??= { problem: error instanceof Error ? error.message : String(error), refused: false };
  } finally {
    await node.stop();
  }
  return outcome ?? { problem: 'it did not ask for our invitation', refused: true };
}

async function exchange(
  connection: MessageStream,
  joiner: NodeId,
  issuer: NodeId,
  token: Token,
  name: string,
  signal: AbortSignal,
): Promise<Grant> {
  const joining = { issuer, joiner, nonce: randomBytes(limits.nonceBytes) };
  const proof = prove(token.secret, 'join', joining);
  const value = { invitationId: invitationId(token.secret), nonce: joining.nonce, proof, name };
  const hello = toBinary(HelloSchema, create(HelloSchema, { kind: { case: 'join', value } }));
  await writeFrame(connection, hello, { signal });
  const granted = fromBinary(JoinGrantSchema, await readFrame(connection, { maxBytes: limits.grantBytesMax, signal }));
  if (!isProof(granted.proof, prove(token.secret, 'grant', joining, granted.grant))) {
    throw new Refused('whoever answered does not know the invitation');
  }
  return fromBinary(GrantSchema, granted.grant);
}

function accept(
  dataDir: string,
  key: SigningKey,
  token: Token,
  { grant, issuer }: { readonly grant: Grant; readonly issuer: NodeId },
  address: string,
  nowMs: number,
): Joined {
  const mesh = readMesh(grant.mesh);
  const verifier = createVerifier();
  const revocations = createRevocations(mesh, verifier);
  for (const notice of grant.revocations) revocations.add(notice);
  const bytes = grant.certificate ? certificateBytes(grant.certificate) : new Uint8Array();
  const { member, reason } = verifyMembership({ mesh, verifier, revocations }, bytes, key.peerId, nowMs);
  if (token.meshId !== undefined && token.meshId !== mesh.id) {
    throw new StatusError('PERMISSION_DENIED', 'the issuer granted another mesh than the invitation names');
  }
  if (!member || !grant.certificate) {
    throw new StatusError(
      'PERMISSION_DENIED',
      `the issuer granted a certificate that is ${reason}${/expired|yet/.test(reason ?? '') ? '; compare the clocks of the two machines' : ''}`,
    );
  }
  writeState(dataDir, { mesh: mesh.bytes, certificate: grant.certificate, revocations: revocations.all() });
  return { meshId: mesh.id, member, issuer, address, contacts: grant.contacts };
}

/**
 * The door of a node: what happens on an encrypted connection, whose far peer id is authenticated, before any protocol of
 * libp2p runs on it. Both ends prove membership; whoever dials speaks first, and a stranger who dials hears nothing.
 *
 * A second thing can be said there: a request to join, which ends the connection either way.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageStream } from '@libp2p/interface';
import {
  type Contact,
  GrantSchema,
  type Hello,
  HelloSchema,
  JoinGrantSchema,
  type JoinRequest,
} from '../../../protos/gen/potluck/mesh/v1/admission_pb.ts';
import type { NodeId } from '../../core/ids.ts';
import { type CertifiedMember, printable } from '../identity/certificate.ts';
import type { Identity } from '../identity/identity.ts';
import { prove } from '../identity/invitation.ts';
import { admit } from '../identity/issuer.ts';
import { readFrame, writeFrame } from './framing.ts';
import * as limits from './limits.ts';

/** Decides on encrypted connections. Both resolve when the far end is a member, and throw otherwise. */
export interface Door {
  /** This node dialled. */
  dialled(connection: MessageStream, far: NodeId): Promise<void>;
  /** The far end dialled. */
  accepted(connection: MessageStream, far: NodeId): Promise<void>;
}

export interface DoorOptions {
  readonly identity: Identity;
  readonly onMember: (member: CertifiedMember, certificate: Uint8Array) => void;
  /** A new member was signed for; it will dial. */
  readonly onJoined: (peerId: NodeId, name: string) => void;
  /** For the log: who was turned away, and why. The far end is not told. */
  readonly onRefused: (far: NodeId, reason: string) => void;
  /** Who else a new member can turn to. */
  readonly contacts: () => readonly Contact[];
}

/** Ends a connection on purpose. */
export class Refused extends Error {
  override readonly name = 'Refused';
}

export function createDoor(options: DoorOptions): Door {
  const { identity } = options;

  function ownHello(): Uint8Array {
    const kind = { case: 'member', value: { certificate: identity.certificate() } } as const;
    return toBinary(HelloSchema, create(HelloSchema, { kind }));
  }

  function check(far: NodeId, hello: Hello | undefined): void {
    if (hello?.kind.case !== 'member') throw refuse(far, 'said no hello');
    const { certificate } = hello.kind.value;
    const { member, reason } = identity.verifyMember(far, certificate);
    if (!member) throw refuse(far, `certificate: ${reason}`);
    options.onMember(member, certificate);
  }

  function refuse(far: NodeId, reason: string): Refused {
    options.onRefused(far, reason);
    return new Refused(`${far} is not admitted: ${reason}`);
  }

  return {
    async dialled(connection, far) {
      await within(connection, async (signal) => {
        await writeFrame(connection, ownHello(), { signal });
        const answer = await readFrame(connection, { maxBytes: limits.helloBytesMax, signal }).catch(() => {
          throw refuse(far, 'it closed the connection at our certificate');
        });
        check(far, parseHello(answer));
      });
    },

    async accepted(connection, far) {
      await within(connection, async (signal) => {
        const hello = parseHello(await readFrame(connection, { maxBytes: limits.helloBytesMax, signal }));
        if (hello?.kind.case === 'join') {
          const grant = grantTo(far, hello.kind.value);
          await writeFrame(connection, grant, { signal });
          // The grant is on its way until the far end hangs up.
          const parting = AbortSignal.any([signal, AbortSignal.timeout(limits.partingMs)]);
          await readFrame(connection, { maxBytes: 0, signal: parting }).catch(() => {});
          throw new Refused('joined; it dials again as a member');
        }
        check(far, hello);
        await writeFrame(connection, ownHello(), { signal });
      });
    },
  };

  function grantTo(far: NodeId, request: JoinRequest): Uint8Array {
    const joining = { issuer: identity.peerId, joiner: far, nonce: request.nonce };
    const { invitationId, proof, name } = request;
    const admission = admit(identity, { ...joining, invitationId, proof, name });
    if ('refused' in admission) throw refuse(far, `join: ${admission.refused}`);
    const grant = toBinary(
      GrantSchema,
      create(GrantSchema, {
        mesh: identity.mesh.bytes,
        certificate: admission.certificate,
        revocations: identity.revocations.all(),
        contacts: options.contacts().slice(0, limits.contactsMax),
      }),
    );
    options.onJoined(far, printable(name));
    const granted = create(JoinGrantSchema, { grant, proof: prove(admission.secret, 'grant', joining, grant) });
    return toBinary(JoinGrantSchema, granted);
  }
}

/** Runs one admission under its time limit; whatever goes wrong ends the connection. */
export async function within<T>(connection: MessageStream, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Refused('no answer in time')), limits.admissionMs);
  try {
    return await work(late.signal);
  } catch (error) {
    connection.abort(error instanceof Error ? error : new Refused(String(error)));
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function parseHello(bytes: Uint8Array): Hello | undefined {
  try {
    return fromBinary(HelloSchema, bytes);
  } catch {
    return undefined;
  }
}

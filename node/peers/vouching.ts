/**
 * Whose word a result is. Who ran an action, or took its result from a client, signs the stored bytes together with all
 * that they depend on (protos/potluck/mesh/v1/results.proto); who gets the result checks that, and the mesh's policy says
 * whose word is believed.
 *
 * A vouched result is kept whole inside the stored result's auxiliary metadata, so it is passed on exactly as it was signed,
 * and is taken out before a client sees the result.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type Any, anyIs, anyPack, anyUnpack } from '@bufbuild/protobuf/wkt';
import type { Token } from '../../mesh/core/ids.ts';
import { type CertifiedMember, openStatement, signStatement } from '../../mesh/net/identity/certificate.ts';
import type { Identity } from '../../mesh/net/identity/identity.ts';
import { type DigestFunction, digestFunctions, makeDigest } from '../../protos/digest.ts';
import {
  type ActionResult,
  ActionResultSchema,
  ExecutedActionMetadataSchema,
} from '../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import {
  type ResultStatement,
  ResultStatementSchema,
  type VouchedResult,
  VouchedResultSchema,
} from '../../protos/gen/potluck/mesh/v1/results_pb.ts';
import type { ActionKey } from '../storage/action-cache.ts';

/** Whose results are believed: every member's, those of members with the role `publisher`, or this node's own. */
export type Trust = 'members' | 'publishers' | 'self';

/** How a result was made: in which sandbox, or brought by a client. */
export type SandboxClass = 'bubblewrap' | 'none' | 'upload' | 'unknown';

/** How a run ended when it did not end well, and what its executor has to say. */
export interface Ending {
  /** Canonical code, such as 4 for DEADLINE_EXCEEDED; 0 when it ran to an end. */
  readonly statusCode: number;
  readonly statusMessage: string;
  /** A sentence for a person; may be empty. */
  readonly message: string;
  /** A blob, "hash/size"; empty without one. */
  readonly serverLog: string;
}

export interface Vouching {
  /** Signs a result of this node's own, made under `token` when the action was claimed. */
  vouch(
    key: ActionKey,
    result: ActionResult,
    sandboxClass: SandboxClass,
    run?: { readonly token?: Token | undefined; readonly ending?: Ending },
  ): VouchedResult;
  /** The result, when this key is what it was made for and its signer is believed; else why not. */
  check(key: ActionKey, vouched: VouchedResult): CheckedResult | RefusedResult;
}

export interface RefusedResult {
  readonly refused: string;
  /** Whoever tells it does not keep to the mesh; otherwise it is only not believed here, or not any more. */
  readonly isLie: boolean;
}

export interface CheckedResult {
  readonly refused?: undefined;
  readonly result: ActionResult;
  readonly executor: CertifiedMember;
  readonly sandboxClass: string;
  /** Undefined for a result that nobody had claimed. */
  readonly token: Token | undefined;
  readonly ending: Ending;
}

const domain = 'potluck/result/1';
/** Members with it are believed under the policy `publishers`. */
export const publisherRole = 'publisher';

export type VouchingIdentity = Pick<Identity, 'peerId' | 'mesh' | 'key' | 'verifier' | 'certificate' | 'verifyMember'>;

export function createVouching(identity: VouchingIdentity, trust: Trust): Vouching {
  function believes(member: CertifiedMember): boolean {
    if (member.peerId === identity.peerId) return true;
    if (trust === 'publishers') return member.roles.includes(publisherRole);
    return trust === 'members';
  }

  return {
    vouch({ instance, action }, result, sandboxClass, { token, ending } = {}) {
      const statement = create(ResultStatementSchema, {
        meshId: identity.mesh.id,
        instance,
        digestFunction: action.fn,
        actionHash: action.hash,
        actionSizeBytes: BigInt(action.sizeBytes),
        result: toBinary(ActionResultSchema, result),
        executor: identity.peerId,
        sandboxClass,
        ...ending,
        ...(token && {
          token: {
            generation: BigInt(token.generation),
            term: BigInt(token.term),
            counter: BigInt(token.counter),
          },
        }),
      });
      return create(VouchedResultSchema, {
        statement: signStatement(identity.key, domain, ResultStatementSchema, statement),
        certificate: identity.certificate(),
      });
    },

    check(key, { statement: signed, certificate }) {
      const claimed = signed && parseStatement(signed.payload);
      if (!claimed) return lie('it is malformed');
      const statement = openStatement(identity.verifier, claimed.executor, domain, ResultStatementSchema, signed);
      if (!statement) return lie('its signature is wrong');
      if (statement.meshId !== identity.mesh.id) return lie('it was made for another mesh');
      if (!isFor(key, statement)) return lie('it was made for another action or instance');
      const { member, reason } = identity.verifyMember(statement.executor, certificate);
      if (!member) return { refused: `the certificate of who signed it is ${reason}`, isLie: false };
      if (!believes(member))
        return { refused: `the policy "${trust}" does not believe ${member.peerId}`, isLie: false };
      const result = parseResult(statement.result);
      if (!result) return lie('it holds no ActionResult');
      const { sandboxClass, token, statusCode, statusMessage, message, serverLog } = statement;
      return {
        result,
        executor: member,
        sandboxClass,
        token: token && {
          generation: Number(token.generation),
          term: Number(token.term),
          counter: Number(token.counter),
        },
        ending: { statusCode, statusMessage, message, serverLog },
      };
    },
  };
}

function lie(refused: string): RefusedResult {
  return { refused, isLie: true };
}

/** What a vouched result is about, as it says itself; `undefined` for nonsense. Throws INVALID_ARGUMENT for a bad digest. */
export function keyOf({ statement: signed }: VouchedResult): ActionKey | undefined {
  const statement = signed && parseStatement(signed.payload);
  if (!statement || !Object.hasOwn(digestFunctions, statement.digestFunction)) return undefined;
  const fn = statement.digestFunction as DigestFunction;
  return { instance: statement.instance, action: makeDigest(fn, statement.actionHash, statement.actionSizeBytes) };
}

function isFor({ instance, action }: ActionKey, statement: ResultStatement): boolean {
  return (
    statement.instance === instance &&
    statement.digestFunction === action.fn &&
    statement.actionHash === action.hash &&
    statement.actionSizeBytes === BigInt(action.sizeBytes)
  );
}

function parseStatement(bytes: Uint8Array): ResultStatement | undefined {
  try {
    return fromBinary(ResultStatementSchema, bytes);
  } catch {
    return undefined;
  }
}

function parseResult(bytes: Uint8Array): ActionResult | undefined {
  try {
    return fromBinary(ActionResultSchema, bytes);
  } catch {
    return undefined;
  }
}

const isVoucher = (any: Any): boolean => anyIs(any, VouchedResultSchema);

/** The result without any voucher that whoever brought it had put in. */
export function withoutVoucher(result: ActionResult): ActionResult {
  const metadata = result.executionMetadata;
  if (!metadata?.auxiliaryMetadata.some(isVoucher)) return result;
  const others = metadata.auxiliaryMetadata.filter((any) => !isVoucher(any));
  return { ...result, executionMetadata: { ...metadata, auxiliaryMetadata: others } };
}

/** The result as it is stored. */
export function withVoucher(result: ActionResult, vouched: VouchedResult): ActionResult {
  const plain = withoutVoucher(result);
  const metadata = plain.executionMetadata ?? create(ExecutedActionMetadataSchema);
  const auxiliaryMetadata = [...metadata.auxiliaryMetadata, anyPack(VouchedResultSchema, vouched)];
  return { ...plain, executionMetadata: { ...metadata, auxiliaryMetadata } };
}

/** A stored result as clients see it, and the word that stands for it. */
export function apart(stored: ActionResult): { readonly result: ActionResult; readonly vouched?: VouchedResult } {
  const metadata = stored.executionMetadata;
  const any = metadata?.auxiliaryMetadata.find(isVoucher);
  const vouched = any && anyUnpack(any, VouchedResultSchema);
  if (!metadata || !vouched) return { result: stored };
  // What was signed is the result without its voucher, whether or not it had any other metadata.
  const payload = vouched.statement && parseStatement(vouched.statement.payload);
  const result = payload && parseResult(payload.result);
  return { result: result ?? stored, vouched };
}

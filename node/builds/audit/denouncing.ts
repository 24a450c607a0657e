/**
 * Tells members what did not come out the same again, and judges what they tell. A denouncement is believed for what it holds,
 * never for who sends it: the results of two members who ran the action anew, each signed by itself, neither of them
 * who made the result, both with other outputs.
 *
 * @see docs/adr/0033-audit.md
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { openStatement, signStatement } from '../../../mesh/net/identity/certificate.ts';
import { digestKey } from '../../../protos/digest.ts';
import { ActionResultSchema } from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { DenouncementSchema, SignedDenouncementSchema } from '../../../protos/gen/potluck/mesh/v1/audit_pb.ts';
import {
  type ResultStatement,
  ResultStatementSchema,
  type VouchedResult,
} from '../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { StatusError } from '../../../protos/status.ts';
import type { Clock } from '../../execution/clock.ts';
import { fromWireKey } from '../../peers/result-finder.ts';
import { createVouching, type Trust, type VouchingIdentity } from '../../peers/vouching.ts';
import type { ActionKey } from '../../storage/action-cache.ts';
import { fingerprint } from './compare.ts';
import { convinces, type Run } from './judge.ts';
import * as limits from './limits.ts';

/** What is held against a result. */
export interface Evidence {
  readonly key: ActionKey;
  readonly denounced: VouchedResult;
  readonly reruns: readonly [VouchedResult, VouchedResult];
}

/** A denouncement that holds. */
export interface Proven {
  readonly key: ActionKey;
  readonly denounced: VouchedResult;
  readonly known: Run;
  readonly again: Run;
  readonly third: Run;
  readonly auditor: string;
}

export interface Denouncing {
  /** Signs it and tells those members, as far as they answer. At most `denouncementsPerHour`. */
  tell(evidence: Evidence, members: readonly string[]): Promise<void>;
  /** Takes what a member tells. Throws INVALID_ARGUMENT for what does not hold, RESOURCE_EXHAUSTED for too many. */
  take(peer: string, body: Uint8Array): Promise<Uint8Array>;
}

export interface DenouncingOptions {
  readonly identity: () => VouchingIdentity | undefined;
  readonly trust: Trust;
  readonly ask: (peer: string, call: string, body: Uint8Array, options: { signal: AbortSignal }) => Promise<unknown>;
  readonly clock: Clock;
  readonly onProven: (proven: Proven) => void;
  /** A member told what proves nothing; a sentence. */
  readonly onRefused: (peer: string, reason: string) => void;
  readonly onLog: (reason: string) => void;
}

/** Of the data plane. */
export const denounceCall = 'denounce';
const domain = 'potluck/denouncement/1';
const hourMs = 3_600_000;

export function createDenouncing(options: DenouncingOptions): Denouncing {
  const { identity, trust, clock, onLog } = options;
  const counts = createHourly(() => clock.nowMs());

  return {
    async tell({ key, denounced, reruns }, members) {
      const self = identity();
      if (!self || members.length === 0) return;
      if (!counts.take(self.peerId)) return onLog('members are not told of a mismatch: too many within an hour');
      const statement = create(DenouncementSchema, {
        meshId: self.mesh.id,
        auditor: self.peerId,
        key: wireKey(key),
        denounced,
        reruns: [...reruns],
      });
      const signed = create(SignedDenouncementSchema, {
        statement: signStatement(self.key, domain, DenouncementSchema, statement),
        certificate: self.certificate(),
      });
      const body = toBinary(SignedDenouncementSchema, signed);
      await Promise.all(
        members.map((peer) =>
          options
            .ask(peer, denounceCall, body, { signal: AbortSignal.timeout(limits.tellMs) })
            .catch((error: Error) => {
              onLog(`${peer} was not told of the mismatch of action ${digestKey(key.action)}: ${error.message}`);
            }),
        ),
      );
    },

    async take(peer, body) {
      const self = identity();
      if (!self) throw new StatusError('UNAVAILABLE', 'this node leaves its mesh');
      if (!counts.take(peer)) throw new StatusError('RESOURCE_EXHAUSTED', 'too many denouncements within an hour');
      const proven = prove(self, trust, body);
      if (typeof proven !== 'string') options.onProven(proven);
      else {
        options.onRefused(peer, proven);
        throw new StatusError('INVALID_ARGUMENT', proven);
      }
      return new Uint8Array();
    },
  };
}

/** What it proves, or why it proves nothing. */
export function prove(self: VouchingIdentity, trust: Trust, body: Uint8Array): Proven | string {
  if (body.byteLength > limits.denouncementBytesMax) return 'it is too long';
  const signed = parse(() => fromBinary(SignedDenouncementSchema, body));
  const payload = signed?.statement?.payload;
  const claimed = payload && parse(() => fromBinary(DenouncementSchema, payload));
  if (!signed || !claimed) return 'it is malformed';
  const statement = openStatement(self.verifier, claimed.auditor, domain, DenouncementSchema, signed.statement);
  if (!statement) return 'its signature is wrong';
  if (statement.meshId !== self.mesh.id) return 'it was made for another mesh';
  const { member: auditor, reason } = self.verifyMember(statement.auditor, signed.certificate);
  if (!auditor) return `the certificate of who signed it is ${reason}`;
  const key = statement.key && parse(() => fromWireKey(statement.key as NonNullable<typeof statement.key>));
  if (!key || !statement.denounced) return 'it names no result';
  const known = knownRun(key, statement.denounced);
  if (!known) return 'what it denounces is no result of that action';
  const vouching = createVouching(self, trust);
  const runs: Run[] = [];
  for (const rerun of statement.reruns) {
    const checked = vouching.check(key, rerun);
    if (checked.refused !== undefined) return `a run that it shows is not believed: ${checked.refused}`;
    // What a client brought was run by nobody who says so.
    if (checked.sandboxClass === 'upload') return 'a run that it shows is none: a client brought the result';
    // A run that failed shows that it failed, and nothing about the result.
    if (checked.result.exitCode !== 0 || checked.ending.statusCode !== 0) return 'a run that it shows did not succeed';
    runs.push({ node: checked.executor.peerId, fingerprint: fingerprint(key.action.fn, checked.result) });
  }
  const [again, third] = runs;
  if (runs.length !== 2 || !again || !third || !convinces(known, again, third)) {
    return 'it takes two members who ran the action again, other than who made the result, with other outputs';
  }
  return { key, denounced: statement.denounced, known, again, third, auditor: auditor.peerId };
}

/** Who made a result and what came out, as the result says itself; whether that is true does not matter to who denounces it. */
export function knownRun({ action, instance }: ActionKey, vouched: VouchedResult): Run | undefined {
  const statement = statementOf(vouched);
  if (!statement || statement.instance !== instance || statement.actionHash !== action.hash) return undefined;
  const result = parse(() => fromBinary(ActionResultSchema, statement.result));
  const print = result && parse(() => fingerprint(action.fn, result));
  if (print === undefined) return undefined;
  return { node: statement.executor, fingerprint: print, isUpload: statement.sandboxClass === 'upload' };
}

export function statementOf({ statement }: VouchedResult): ResultStatement | undefined {
  return statement && parse(() => fromBinary(ResultStatementSchema, statement.payload));
}

function wireKey({ instance, action }: ActionKey) {
  const { fn: digestFunction, hash: actionHash, sizeBytes } = action;
  return { instance, digestFunction, actionHash, actionSizeBytes: BigInt(sizeBytes) };
}

function parse<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}

/** Counts by name within each hour. */
function createHourly(nowMs: () => number) {
  let counts = new Map<string, number>();
  let sinceMs = nowMs();
  return {
    /** False when the name has had its share. */
    take(name: string): boolean {
      if (nowMs() - sinceMs >= hourMs) {
        counts = new Map();
        sinceMs = nowMs();
      }
      const count = (counts.get(name) ?? 0) + 1;
      counts.set(name, count);
      return count <= limits.denouncementsPerHour;
    },
  };
}

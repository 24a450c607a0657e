/**
 * What one node says about itself, signed, and what others say about it, unsigned.
 *
 * Of two sayings about a node the one with the higher incarnation wins; within one incarnation dead wins over suspect
 * wins over here. Only the subject can raise its incarnation, because only it can sign the record that carries it.
 *
 * @see A. Das, I. Gupta, A. Motivala: SWIM (2002), section 4.2
 */
import type { NodeId } from '../ids.ts';

/** What a node tells the others about its machine. */
export interface Attributes {
  readonly site: string;
  readonly subnet: string;
  /** Address of the bulk data plane; the control plane is reached by node id. */
  readonly dataAddress: string;
  /** Processor cores that guests may use when the machine is idle. */
  readonly cores: number;
  readonly memoryBytes: number;
  readonly power: 'mains' | 'battery';
  readonly wired: boolean;
  /** Always-on machines rank first as coordinators; a machine that opted out coordinates nothing. */
  readonly coordinator: 'always-on' | 'eligible' | 'never';
  /** Names the disk this node runs on; another disk means another generation. */
  readonly storeGeneration: number;
  /** Slots lent to guests now; 0 while nobody else's actions are welcome. */
  readonly guestSlots: number;
  /** What its runner offers: sorted `name=value` texts. */
  readonly capabilities: readonly string[];
}

/** What a driver knows of its machine; the peer itself says what it lends. */
export type MachineAttributes = Omit<Attributes, 'guestSlots' | 'capabilities'>;

/** Said by the subject itself. `here` is running, the other two are announced absences. */
export type Presence = 'here' | 'suspended' | 'left';

export interface MemberRecord {
  readonly id: NodeId;
  readonly incarnation: number;
  readonly presence: Presence;
  readonly attributes: Attributes;
  /** Of the subject, over all other fields. */
  readonly signature: string;
}

export type Verdict = 'here' | 'suspect' | 'dead';

/** One saying about a node: its newest known record, and what `by` believes about that incarnation. */
export interface Rumour {
  readonly record: MemberRecord;
  readonly verdict: Verdict;
  readonly by: NodeId;
}

/** Status in one node's view. Suspect: no new work. Dead: locations hidden, claims reissued. */
export type MemberStatus = 'alive' | 'suspect' | 'dead' | 'suspended' | 'left';

/** Makes and checks signatures; pure, injected, so that the machine holds no key. */
export interface RecordSigner {
  sign(record: Omit<MemberRecord, 'signature'>): MemberRecord;
  verify(record: MemberRecord): boolean;
}

const weights: { readonly [V in Verdict]: number } = { here: 0, suspect: 1, dead: 2 };

/** Whether saying `a` about a node overrides saying `b` about the same node. */
export function overrides(a: Rumour, b: Rumour): boolean {
  if (a.record.incarnation !== b.record.incarnation) return a.record.incarnation > b.record.incarnation;
  return weights[a.verdict] > weights[b.verdict];
}

/** What a node with this record and verdict is to its observer. */
export function statusOf(record: MemberRecord, verdict: Verdict): MemberStatus {
  if (record.presence !== 'here') return record.presence;
  return verdict === 'here' ? 'alive' : verdict;
}

/**
 * A 32-bit fingerprint of one saying, for summaries. Suspicion passes and is left out, so that views which differ only
 * in it count as equal.
 */
export function fingerprint(record: MemberRecord, verdict: Verdict): number {
  let hash = 0x811c9dc5 ^ (record.incarnation * 4 + (verdict === 'dead' ? 1 : 0));
  for (let i = 0; i < record.id.length; i++) hash = Math.imul(hash ^ record.id.charCodeAt(i), 0x01000193);
  for (let i = 0; i < record.signature.length; i++) hash = Math.imul(hash ^ record.signature.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

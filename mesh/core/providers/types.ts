/**
 * What the provider index takes and gives. It answers "who has these blobs" by asking the few nodes that keep the records
 * of each blob, and tells those nodes what this one holds.
 *
 * A *place* is the first 52 bits of a blob's hash as an integer: where the blob stands among the nodes, and under what
 * its records are kept. Two blobs of one place would share their records; a record is a hint, and bytes prove themselves.
 * On the wire a place takes eight bytes (fixed64), and every list of numbers here is packed.
 */
import type { BlobKey, NodeId } from '../ids.ts';
import type { Membership } from '../membership/membership.ts';
import type { MemberStatus } from '../membership/records.ts';
import type { Rng } from '../rng.ts';
import type { Ring } from './ring.ts';

/** First 52 bits of a blob's hash, as an integer. */
export type Place = number;

export type ProviderMessage =
  /**
   * "This I hold": records of the sender only. Records in the regions of `clear` go first, then those of `remove`, then
   * `add` is added. Empty, it asks how the two nodes stand. Answered by `announced`.
   */
  | {
      readonly kind: 'announce';
      readonly seq: number;
      /** Drawn at each start of the sender: within one life, numbers only rise. */
      readonly life: number;
      /** Store generation of the sender; records of an earlier one are void. */
      readonly generation: number;
      readonly add: readonly Place[];
      readonly remove: readonly Place[];
      /** Regions, 0 .. regions - 1. */
      readonly clear: readonly number[];
    }
  /** What the receiver of an announcement now has of its sender: how many records, and a hash over them. */
  | {
      readonly kind: 'announced';
      readonly seq: number;
      readonly count: number;
      readonly hash: number;
      /** The sender's quota or this node's memory is spent; what was not taken is not in the count. */
      readonly full: boolean;
    }
  /** Asks what the receiver has of the sender, region by region, because the sums differ. */
  | { readonly kind: 'regionsAsked'; readonly seq: number }
  /** Triples of region, count and hash; regions without records are left out. */
  | { readonly kind: 'regions'; readonly seq: number; readonly summaries: readonly number[] }
  | { readonly kind: 'whoHas'; readonly seq: number; readonly places: readonly Place[] }
  /** One list for each place that was asked, in that order, of indices into `nodes`. */
  | {
      readonly kind: 'holders';
      readonly seq: number;
      readonly nodes: readonly NodeId[];
      readonly lists: readonly (readonly number[])[];
    };

/** Why a holder is not asked for a while. `wrong`: it sent other bytes than it said. */
export type BenchReason = 'wrong' | 'absent' | 'unreachable';

export type ProviderEvent =
  | { readonly kind: 'wake' }
  /** The machine slept: whatever was asked is old, and what was told may be lost. */
  | { readonly kind: 'gap' }
  | { readonly kind: 'message'; readonly from: NodeId; readonly message: ProviderMessage }
  /** What this node sees of a member changed; `members` of the configuration shows it already. */
  | { readonly kind: 'member'; readonly node: NodeId; readonly before: MemberStatus | undefined }
  /** Durable in the store, and to be announced. */
  | { readonly kind: 'stored'; readonly blobs: readonly BlobKey[] }
  /** Evicted, lost or rotten. */
  | { readonly kind: 'gone'; readonly blobs: readonly BlobKey[] }
  /**
   * Who holds these? Answered in parts by `found` effects within `findBudgetMs`. `thorough`: every node that keeps the
   * record is asked, because those that one of them named did not deliver.
   */
  | { readonly kind: 'find'; readonly find: number; readonly blobs: readonly BlobKey[]; readonly thorough: boolean }
  | { readonly kind: 'stopFind'; readonly find: number }
  /** The node failed to deliver what it had announced: none of its records is believed for a while. */
  | { readonly kind: 'bench'; readonly node: NodeId; readonly reason: BenchReason };

/** Holders of one blob, best guess first, without this node; none when nobody has it. */
export interface Found {
  readonly blob: BlobKey;
  readonly holders: readonly NodeId[];
  /** `asked`: two of its index nodes were. `budget`: too few answered in time, so a miss here proves little. */
  readonly sure: 'asked' | 'budget';
}

export type ProviderEffect =
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: ProviderMessage }
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  /** Each blob of a find is named once, over one or more of these; `done` with the last. */
  | { readonly kind: 'found'; readonly find: number; readonly found: readonly Found[]; readonly done: boolean }
  | { readonly kind: 'note'; readonly note: ProviderNote };

export type ProviderNote =
  | { readonly kind: 'benched'; readonly node: NodeId; readonly reason: BenchReason; readonly forMs: number }
  /** A member is back with the same disk: its records count again. */
  | { readonly kind: 'revived'; readonly node: NodeId; readonly records: number }
  /** A member came with another disk, or stayed away too long: its records were dropped. */
  | { readonly kind: 'dropped'; readonly node: NodeId; readonly records: number }
  /** An index node had something else of ours than it should: its regions are sent anew. */
  | { readonly kind: 'reconciled'; readonly node: NodeId; readonly regions: number };

export interface ProvidersConfig {
  readonly self: NodeId;
  /** Store generation of this node: another number whenever blobs may have vanished unannounced. */
  readonly generation: number;
  /** Every node's view of the members, itself included. */
  readonly members: Pick<Membership, 'get' | 'members'>;
  /** Makes a ring with the mesh's salt (see ring.ts); equal rings may be one object. */
  readonly ringOf: (nodes: readonly NodeId[]) => Ring;
  readonly rng: Rng;
  /** What the store holds. */
  readonly held: Iterable<BlobKey>;
}

/** What the sharing part of a node takes and gives; see sharing.ts. */
import type { FetchFailure, FetchNote, Part, PartOutcome, TransferOutcome, Want } from './fetch/types.ts';
import type { BlobKey, NodeId } from './ids.ts';
import type { Member, MembershipRecord } from './membership/membership.ts';
import type { MembershipMessage } from './membership/messages.ts';
import type { Attributes, MemberStatus, RecordSigner } from './membership/records.ts';
import type { KeepingMessage, Kept } from './keeping/types.ts';
import type { PinRecord, PromiseEvent, Purpose } from './promises/promises.ts';
import type { Found, ProviderMessage, ProviderNote } from './providers/types.ts';
import type { Ring } from './providers/ring.ts';
import type { Rng } from './rng.ts';

export type SharingMessage = MembershipMessage | ProviderMessage | KeepingMessage;

/** What a sharing node writes; each machine is restored from its own. */
export type SharingRecord =
  | { readonly of: 'membership'; readonly record: MembershipRecord }
  | { readonly of: 'promises'; readonly record: PinRecord };

export type SharingEvent =
  | { readonly kind: 'start'; readonly contacts: readonly NodeId[] }
  /** `from` is authenticated. */
  | { readonly kind: 'message'; readonly from: NodeId; readonly message: SharingMessage }
  | { readonly kind: 'wake' }
  | { readonly kind: 'gap'; readonly gapMs: number }
  /** Every persist up to and including this id is durable. */
  | { readonly kind: 'persisted'; readonly id: number }
  | { readonly kind: 'attributes'; readonly attributes: Attributes }
  | { readonly kind: 'goodbye'; readonly presence: 'suspended' | 'left' }
  /** About the store: what became durable by other ways than a fetch, was read, or was lost. */
  | Extract<PromiseEvent, { readonly kind: 'stored' }>
  | { readonly kind: 'used'; readonly blob: BlobKey }
  | { readonly kind: 'gone'; readonly blob: BlobKey }
  /** Keeps a blob that is here; answered by `pinned` or `pinRefused` of the same number. */
  | {
      readonly kind: 'pin';
      readonly pin: number;
      readonly blob: BlobKey;
      readonly purpose: Purpose;
      readonly forMs: number;
    }
  | { readonly kind: 'unpin'; readonly pin: number }
  /** Sets space aside; answered by `reserved` or `reserveRefused`. */
  | { readonly kind: 'reserve'; readonly reservation: number; readonly sizeBytes: number }
  | { readonly kind: 'release'; readonly reservation: number }
  /** Needs. Answered by `fetched` or `failed` for each, within its budget. */
  | { readonly kind: 'want'; readonly wants: readonly Want[] }
  | { readonly kind: 'unwant'; readonly want: number }
  /** Who has these? Answered by `found`. */
  | { readonly kind: 'find'; readonly find: number; readonly blobs: readonly BlobKey[] }
  | { readonly kind: 'stopFind'; readonly find: number }
  /** Asks two live holders of each blob to keep it; answered by `secured` within `budgetMs`. */
  | {
      readonly kind: 'secure';
      readonly secure: number;
      readonly blobs: readonly BlobKey[];
      readonly forMs: number;
      readonly budgetMs: number;
    }
  /** Answers to `transfer` and `assemble`: see fetch/types.ts. What is `stored` is durable. */
  | { readonly kind: 'progress'; readonly transfer: number; readonly receivedBytes: number }
  | { readonly kind: 'part'; readonly transfer: number; readonly blob: BlobKey; readonly outcome: PartOutcome }
  | { readonly kind: 'ended'; readonly transfer: number; readonly outcome: TransferOutcome }
  | { readonly kind: 'assembled'; readonly blob: BlobKey; readonly outcome: 'stored' | 'wrong' | 'noRoom' }
  | { readonly kind: 'roundTrip'; readonly node: NodeId; readonly roundTripMs: number }
  /** The serving side of the data plane. */
  | { readonly kind: 'asked'; readonly upload: number; readonly to: NodeId; readonly parts: readonly Part[] }
  | { readonly kind: 'sent'; readonly upload: number; readonly sentBytes: number };

export type SharingNote =
  | ProviderNote
  | FetchNote
  | { readonly kind: 'member'; readonly member: Member; readonly before: MemberStatus | undefined };

export type SharingEffect =
  | { readonly kind: 'persist'; readonly id: number; readonly record: SharingRecord }
  | { readonly kind: 'send'; readonly to: NodeId; readonly message: SharingMessage; readonly after?: number }
  | { readonly kind: 'wakeAt'; readonly atMs: number }
  | { readonly kind: 'evict'; readonly blob: BlobKey }
  | { readonly kind: 'pinned'; readonly pin: number; readonly blob: BlobKey; readonly untilMs: number }
  | { readonly kind: 'pinRefused'; readonly pin: number; readonly blob: BlobKey; readonly reason: 'absent' | 'budget' }
  | { readonly kind: 'reserved'; readonly reservation: number }
  | { readonly kind: 'reserveRefused'; readonly reservation: number }
  | { readonly kind: 'found'; readonly find: number; readonly found: readonly Found[]; readonly done: boolean }
  | { readonly kind: 'secured'; readonly secure: number; readonly kept: readonly Kept[] }
  | { readonly kind: 'transfer'; readonly transfer: number; readonly from: NodeId; readonly parts: readonly Part[] }
  | { readonly kind: 'cancelTransfer'; readonly transfer: number }
  | { readonly kind: 'assemble'; readonly blob: BlobKey }
  | { readonly kind: 'discard'; readonly blob: BlobKey }
  | { readonly kind: 'fetched'; readonly want: number; readonly blob: BlobKey; readonly from: NodeId | undefined }
  | { readonly kind: 'failed'; readonly want: number; readonly blob: BlobKey; readonly reason: FetchFailure }
  | { readonly kind: 'serve'; readonly upload: number }
  | {
      readonly kind: 'refuse';
      readonly upload: number;
      readonly tryNodes: readonly NodeId[];
      readonly retryAfterMs: number;
    }
  | { readonly kind: 'note'; readonly note: SharingNote };

export interface SharingConfig {
  readonly self: NodeId;
  readonly attributes: Attributes;
  readonly signer: RecordSigner;
  readonly rng: Rng;
  /** `createRing` with the mesh's salt, which was drawn when the mesh was made and is the same on every node. */
  readonly ringOf: (nodes: readonly NodeId[]) => Ring;
  readonly capacityBytes: number;
  /** What the blob store holds, least recently used first. */
  readonly held: readonly (readonly [BlobKey, number])[];
  /** What this node may send to others in a second, on average. */
  readonly uploadBytesPerSecond: number;
  /** Requests of other nodes served at once. */
  readonly uploadsMax: number;
}

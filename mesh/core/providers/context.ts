/** What the parts of the provider index share. */
import type { NodeId } from '../ids.ts';
import type { MemberStatus } from '../membership/records.ts';
import type { Ring } from './ring.ts';
import type { ProviderMessage, ProviderNote, ProvidersConfig } from './types.ts';

export interface Context extends Pick<ProvidersConfig, 'self' | 'rng' | 'members'> {
  nowMs(): number;
  /** Undefined until other members are known. */
  ring(): Ring | undefined;
  statusOf(node: NodeId): MemberStatus | undefined;
  send(to: NodeId, message: ProviderMessage): void;
  note(note: ProviderNote): void;
}

/** Count and hash of a set of places; see mixPlace. */
export interface Sum {
  count: number;
  hash: number;
}

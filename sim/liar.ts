/**
 * What a lying member says: it is authenticated and holds its own keys only, so it can accuse others, exaggerate what it
 * holds, and make up tokens and incarnations, but sign for nobody else. It does not lie inside Raft, whose fault model
 * is crashes (docs/protocol.md says what a lying coordinator can do).
 */
import type { NodeId, Token } from '../mesh/core/ids.ts';
import type { PeerMessage } from '../mesh/core/peer.ts';
import type { Rng } from '../mesh/core/rng.ts';
import { nodeName } from './node.ts';

/** Half of what a liar says is true. */
export function tamper(rng: Rng, self: NodeId, message: PeerMessage, nodes: number): PeerMessage {
  if (rng.below(2) === 0) return message;
  switch (message.kind) {
    case 'ping':
    case 'ack': {
      const lies = message.rumours.map((rumour) => {
        if (rumour.record.id === self) return rumour;
        if (rng.below(2) === 0) return { ...rumour, verdict: 'dead' as const, by: nodeName(rng.below(nodes)) };
        const incarnation = rumour.record.incarnation + rng.between(1, 1_000);
        return { ...rumour, record: { ...rumour.record, incarnation } };
      });
      return { ...message, rumours: lies };
    }
    case 'commit':
      return { ...message, claim: { ...message.claim, token: lie(rng, message.claim.token) } };
    case 'renewClaims':
      return { ...message, claims: message.claims.map((claim) => ({ ...claim, token: lie(rng, claim.token) })) };
    case 'register':
      return { ...message, claims: message.claims.map((claim) => ({ ...claim, token: lie(rng, claim.token) })) };
    case 'handOver':
      return { ...message, token: lie(rng, message.token) };
    default:
      return message;
  }
}

function lie(rng: Rng, token: Token): Token {
  switch (rng.below(3)) {
    case 0:
      return { ...token, counter: token.counter + rng.between(1, 3) };
    case 1:
      return { ...token, term: token.term + 1 };
    default:
      return { ...token, generation: token.generation + 1 };
  }
}

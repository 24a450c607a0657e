/** Collects what one step has to say to each node, so that a batch in is a batch out. */
import type { NodeId } from '../ids.ts';
import type { ClaimMessage, ClaimRef, GrantedClaim, RequestState, RevokeReason } from './messages.ts';

export interface Outbox {
  grant(to: NodeId, pull: number, claim: GrantedClaim): void;
  revoke(to: NodeId, claim: ClaimRef, reason: RevokeReason): void;
  renewed(to: NodeId, claim: ClaimRef, expiresInMs: number): void;
  tell(to: NodeId, state: RequestState): void;
  send(to: NodeId, message: ClaimMessage): void;
  /** Everything since the last call, per node in the order of first mention. */
  flush(): readonly { readonly to: NodeId; readonly message: ClaimMessage }[];
}

interface Post {
  readonly granted: Map<number, GrantedClaim[]>;
  readonly revoked: (ClaimRef & { readonly reason: RevokeReason })[];
  readonly renewed: ClaimRef[];
  expiresInMs: number;
  readonly states: RequestState[];
  readonly others: ClaimMessage[];
}

export function createOutbox(): Outbox {
  let posts = new Map<NodeId, Post>();
  const postOf = (to: NodeId): Post => {
    let post = posts.get(to);
    if (!post) {
      post = { granted: new Map(), revoked: [], renewed: [], expiresInMs: 0, states: [], others: [] };
      posts.set(to, post);
    }
    return post;
  };
  return {
    grant(to, pull, claim) {
      const { granted } = postOf(to);
      const claims = granted.get(pull);
      if (claims) claims.push(claim);
      else granted.set(pull, [claim]);
    },
    revoke: (to, claim, reason) => void postOf(to).revoked.push({ ...claim, reason }),
    renewed(to, claim, expiresInMs) {
      const post = postOf(to);
      post.renewed.push(claim);
      post.expiresInMs = expiresInMs;
    },
    tell: (to, state) => void postOf(to).states.push(state),
    send: (to, message) => void postOf(to).others.push(message),
    flush() {
      const messages: { to: NodeId; message: ClaimMessage }[] = [];
      for (const [to, post] of posts) {
        // What ends comes before what begins, so that an executor never seems to hold more than it may.
        if (post.revoked.length > 0) messages.push({ to, message: { kind: 'revoked', claims: post.revoked } });
        for (const message of post.others) messages.push({ to, message });
        if (post.renewed.length > 0) {
          const { renewed: claims, expiresInMs } = post;
          messages.push({ to, message: { kind: 'renewed', claims, expiresInMs } });
        }
        for (const [pull, claims] of post.granted) messages.push({ to, message: { kind: 'granted', pull, claims } });
        if (post.states.length > 0) messages.push({ to, message: { kind: 'requestState', states: post.states } });
      }
      posts = new Map();
      return messages;
    },
  };
}

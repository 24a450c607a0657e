/**
 * Within one term of one history, a key's claim is with one executor at a time, no token is granted twice, and no leader
 * renews a claim that is over.
 */
import type { ClaimRef } from '../../mesh/core/claims/messages.ts';
import { tokenText } from '../../mesh/core/ids.ts';
import type { CheckerFactory } from './checker.ts';

export const oneClaim: CheckerFactory = (world, fail) => {
  const holders = new Map<string, { readonly executor: string; readonly token: string; readonly leader: string }>();
  const tokens = new Map<string, string>();
  let observed = 0;

  function release({ shard, key, token }: ClaimRef): void {
    const term = `${shard} ${key} ${token.generation}.${token.term}`;
    if (holders.get(term)?.token === tokenText(token)) holders.delete(term);
  }

  /** Whether this token's claim was granted and is not over, as far as its own leader said. */
  function isCurrent({ shard, key, token }: ClaimRef): boolean {
    if (world.action(key)?.doNotCache) return true;
    const text = tokenText(token);
    return holders.get(`${shard} ${key} ${token.generation}.${token.term}`)?.token === text;
  }

  return {
    name: 'one-claim',
    observed: () => observed,
    onSend(node, to, message) {
      if (message.kind === 'adopted') {
        const { shard, key, token } = message.claim;
        const held = holders.get(`${shard} ${key} ${token.generation}.${token.term}`);
        const executor = world.nodes[to]?.id;
        observed += 1;
        if (held?.token === tokenText(token) && held.executor !== executor) {
          fail(`${node.id} adopted ${key} for ${executor} under ${held.token}, which is ${held.executor}'s`);
        }
        return;
      }
      if (message.kind !== 'renewed') return;
      for (const claim of message.claims) {
        observed += 1;
        if (!isCurrent(claim)) fail(`${node.id} renewed ${tokenText(claim.token)} of ${claim.key}, which is no claim`);
      }
    },
    onReceive(_node, _from, message) {
      // What an executor gives back of its own accord is no longer its claim.
      if (message.kind === 'giveBack') for (const claim of message.claims) release(claim);
      else if (message.kind === 'fail') release(message.claim);
    },
    onNote(node, note) {
      if (note.kind === 'granted') {
        observed += 1;
        const text = tokenText(note.token);
        const term = `${note.shard} ${note.key} ${note.token.generation}.${note.token.term}`;
        const twin = tokens.get(`${note.shard} ${note.key} ${text}`);
        if (twin !== undefined) fail(`${note.key}: token ${text} granted to ${twin} and to ${note.executor}`);
        tokens.set(`${note.shard} ${note.key} ${text}`, note.executor);
        const held = holders.get(term);
        // Each request that is never cached has a claim of its own.
        if (held && !world.action(note.key)?.doNotCache) {
          fail(`${note.key}: granted to ${note.executor} while ${held.executor} holds ${held.token}`);
        }
        holders.set(term, { executor: note.executor, token: text, leader: node.id });
      } else if (note.kind === 'revoked') {
        release(note);
      } else if (note.kind === 'registerWritten' && note.command === 'commit' && note.token) {
        const { shard, key, token } = note;
        // A leader that is cut off has a second to find out that its successors committed what it proposed.
        const held = holders.get(`${shard} ${key} ${token.generation}.${token.term}`);
        if (held?.leader === node.id) release({ shard, key, token });
      }
    },
  };
};

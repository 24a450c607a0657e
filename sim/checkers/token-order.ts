/**
 * Claimed results: what is accepted for a key carries a token that was granted, and the newest one that was; within one
 * history these tokens only rise.
 */
import { compareTokens, type Token, tokenText } from '../../mesh/core/ids.ts';
import type { CheckerFactory } from './checker.ts';

export const tokenOrder: CheckerFactory = (_world, fail) => {
  const granted = new Map<string, Token>();
  const newest = new Map<string, Token>();
  const accepted = new Map<string, { readonly token: Token; readonly index: number }>();
  let observed = 0;
  let staleRefused = 0;
  return {
    name: 'token-order',
    observed: () => observed,
    sometimes: () => ({ 'stale token refused': staleRefused }),
    onNote(node, note) {
      if (note.kind === 'staleRefused') staleRefused += 1;
      if (note.kind === 'granted') {
        const one = `${note.shard} ${note.key} ${tokenText(note.token)}`;
        granted.set(one, note.token);
        const key = `${note.shard} ${note.key} ${note.token.generation}`;
        const before = newest.get(key);
        if (!before || compareTokens(note.token, before) > 0) newest.set(key, note.token);
        return;
      }
      if (note.kind !== 'registerWritten' || note.command !== 'commit') return;
      if (note.outcome === 'stale') staleRefused += 1;
      if (note.outcome !== 'accepted' || !note.token) return;
      observed += 1;
      const history = `${note.shard}/${note.generation.number}:${note.generation.hash}`;
      const key = `${history} ${note.key}`;
      const before = accepted.get(key);
      // Every replica reports the same write; the first report is the one that counts.
      if (before && note.index <= before.index) return;
      if (before && compareTokens(note.token, before.token) <= 0) {
        fail(`${note.key}: token ${tokenText(note.token)} accepted after ${tokenText(before.token)} at ${node.id}`);
      }
      if (!granted.has(`${note.shard} ${note.key} ${tokenText(note.token)}`)) {
        fail(`${note.key}: token ${tokenText(note.token)} was accepted and never granted`);
      }
      const current = newest.get(`${note.shard} ${note.key} ${note.token.generation}`) as Token;
      if (compareTokens(note.token, current) < 0) {
        fail(`${note.key}: ${tokenText(note.token)} accepted although ${tokenText(current)} had been granted`);
      }
      accepted.set(key, { token: note.token, index: note.index });
    },
  };
};

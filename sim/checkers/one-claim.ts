/** Within one term of one history, a key's claim is with one executor at a time, and no token is granted twice. */
import { tokenText } from '../../mesh/core/ids.ts';
import type { CheckerFactory } from './checker.ts';

export const oneClaim: CheckerFactory = (_world, fail) => {
  const holders = new Map<string, { readonly executor: string; readonly token: string }>();
  const tokens = new Map<string, string>();
  let observed = 0;
  return {
    name: 'one-claim',
    observed: () => observed,
    onNote(_node, note) {
      if (note.kind === 'granted') {
        observed += 1;
        const text = tokenText(note.token);
        const term = `${note.shard} ${note.key} ${note.token.generation}.${note.token.term}`;
        const twin = tokens.get(`${note.shard} ${note.key} ${text}`);
        if (twin !== undefined) fail(`${note.key}: token ${text} granted to ${twin} and to ${note.executor}`);
        tokens.set(`${note.shard} ${note.key} ${text}`, note.executor);
        const held = holders.get(term);
        if (held) fail(`${note.key}: granted to ${note.executor} while ${held.executor} holds ${held.token}`);
        holders.set(term, { executor: note.executor, token: text });
      } else if (note.kind === 'revoked') {
        holders.delete(`${note.shard} ${note.key} ${note.token.generation}.${note.token.term}`);
      } else if (note.kind === 'registerWritten' && note.command === 'commit' && note.token) {
        holders.delete(`${note.shard} ${note.key} ${note.token.generation}.${note.token.term}`);
      }
    },
  };
};

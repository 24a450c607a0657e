/**
 * A result is committed only with holders that have its outputs durable and pinned at that moment; and everything that a
 * client is answered with is at hand on its own machine, under the highest token that was heard for its request.
 */
import { compareTokens, type Token, tokenText } from '../../mesh/core/ids.ts';
import type { CheckerFactory } from './checker.ts';

export const outputsPromised: CheckerFactory = (world, fail) => {
  const seen = new Set<string>();
  const heard = new Map<string, Token>();
  let observed = 0;
  return {
    name: 'outputs-promised',
    observed: () => observed,
    onNote(node, note) {
      if (note.kind !== 'registerWritten' || note.command !== 'commit' || note.outcome !== 'accepted' || !note.token)
        return;
      const write = `${note.shard}/${note.generation.number}:${note.generation.hash}/${note.index} ${note.key}`;
      if (seen.has(write)) return;
      seen.add(write);
      const register = node.peer()?.coordination.groupOf(note.shard)?.registers.get(note.key);
      // The same batch may have overwritten it already.
      if (register?.kind !== 'result' || !register.token || compareTokens(register.token, note.token) !== 0) return;
      observed += 1;
      if (register.holders.length === 0)
        fail(`${note.key}: ${tokenText(note.token)} accepted, and nobody promised its outputs`);
      for (const { holder: id, storeGeneration } of register.holders) {
        const holder = world.nodes.find((other) => other.id === id);
        if (holder?.state() !== 'up' || holder.disk().generation !== storeGeneration || world.excused(holder)) continue;
        if (!holder.disk().blobs.has(register.result))
          fail(`${note.key}: ${id} promised ${register.result} and lacks it`);
        if (holder.peer()?.promises.pinnedUntilMs(register.result) === undefined) {
          fail(`${note.key}: ${id} promised ${register.result} and has not pinned it`);
        }
      }
    },
    onReceive(_node, _from, message) {
      if (message.kind !== 'requestState') return;
      for (const state of message.states) {
        if (state.kind !== 'claimed') continue;
        const before = heard.get(state.request);
        if (!before || compareTokens(state.token, before) > 0) heard.set(state.request, state.token);
      }
    },
    onAnswer(node, request, answer) {
      const highest = heard.get(request);
      heard.delete(request);
      if (answer.kind !== 'result') return;
      observed += 1;
      if (!node.disk().blobs.has(answer.outcome.result)) {
        fail(`${node.id} answered ${request} with ${answer.outcome.result}, which is not at hand`);
      }
      if (highest && answer.source === 'mesh' && answer.token && compareTokens(answer.token, highest) < 0) {
        fail(`${node.id} answered ${request} under ${tokenText(answer.token)} and had heard of ${tokenText(highest)}`);
      }
    },
  };
};

/**
 * A result is committed only with holders that have its outputs durable and pinned at that moment; and everything that a
 * client is answered with is at hand on its own machine, under the highest token that was heard for its request.
 */
import { compareTokens, type Token, tokenText } from '../../mesh/core/ids.ts';
import type { CheckerFactory } from './checker.ts';

export const outputsPromised: CheckerFactory = (world, fail) => {
  const promisedWith = new Set<string>();
  const heard = new Map<string, Token>();
  let observed = 0;
  return {
    name: 'outputs-promised',
    observed: () => observed,
    onSend(node, _to, message) {
      if (message.kind !== 'commit' || node.liar()) return;
      for (const promise of message.promises) {
        observed += 1;
        const holder = world.nodes.find(({ id }) => id === promise.holder);
        // Others can speak for a holder that is down or whose disk is being replaced only from what it said before.
        if (!holder || holder.state() !== 'up' || holder.disk().generation !== promise.storeGeneration) continue;
        if (holder.liar() || world.faults() > 0) continue;
        if (!holder.disk().blobs.has(message.result))
          fail(`${node.id} commits ${message.result}: ${holder.id} lacks it`);
        if (!holder.peer()?.promises.pinnedUntilMs(message.result)) {
          fail(`${node.id} commits ${message.result}: ${holder.id} has not pinned it`);
        }
      }
      if (message.promises.length > 0) promisedWith.add(`${message.claim.key} ${tokenText(message.claim.token)}`);
    },
    onNote(_node, note) {
      if (note.kind !== 'registerWritten' || note.command !== 'commit' || note.outcome !== 'accepted' || !note.token)
        return;
      if (!promisedWith.has(`${note.key} ${tokenText(note.token)}`)) {
        fail(`${note.key}: ${tokenText(note.token)} was accepted and nobody had promised its outputs`);
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

/** No fetch exceeds its budget: every want is answered by then, on the reader's own clock, if the reader was awake. */
import type { BlobCheckerFactory, Reading } from './checker.ts';

/** A step that was due may come a few milliseconds later, when another was under way. */
const slackMs = 20;

export const withinBudget: BlobCheckerFactory = (_world, fail) => {
  let observed = 0;
  const waiting = new Set<Reading>();
  const awake = ({ node, life, stops }: Reading): boolean => node.life() === life && node.stops() === stops;
  const check = (reading: Reading): void => {
    const { node, blob, budgetMs, askedAtMs } = reading;
    const tookMs = node.clock.nowMs() - askedAtMs;
    if (tookMs > budgetMs + slackMs)
      fail(`${node.id} waited ${tookMs} ms for ${blob}, with a budget of ${budgetMs} ms`);
  };
  return {
    name: 'within-budget',
    observed: () => observed,
    onRead: (reading) => void waiting.add(reading),
    onReadEnd(reading) {
      waiting.delete(reading);
      if (!awake(reading)) return;
      observed += 1;
      check(reading);
    },
    onSecond() {
      for (const reading of waiting) {
        if (awake(reading)) check(reading);
        else waiting.delete(reading);
      }
    },
  };
};

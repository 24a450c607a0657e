import { expect, test } from 'vitest';
import { schedulerLimits } from '../../../node/execution/limits.ts';
import { createTestClock } from '../../support/test-clock.ts';
import { until } from '../../support/until.ts';
import { openNode, responseOf } from '../node/fixture.ts';

/** A small generator of numbers, so that a failure can be repeated. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % below;
  };
}

test('clients that come, leave, cancel and come back leave no run, no pin and no unfinished operation behind', async () => {
  const clock = createTestClock();
  await using on = await openNode({ slots: 2 }, { clock });
  const random = randomFrom(20);
  const digests = await Promise.all(
    Array.from({ length: 8 }, (_, n) =>
      on.prepare({
        script: `cat in; ${n % 3 === 0 ? 'sleep 0.1' : ':'}; exit ${n === 7 ? 1 : 0}`,
        inputs: { in: `input ${n}` },
        action: { doNotCache: n % 4 === 0 },
      }),
    ),
  );
  const clients = Array.from({ length: 60 }, async () => {
    const digest = digests[random(digests.length)] ?? digests[0];
    if (!digest) throw new Error('no action');
    const call = on.execute(digest, { skipCacheLookup: random(2) === 0, instanceName: random(2) === 0 ? '' : 'other' });
    const { name } = await call.first;
    switch (random(4)) {
      case 0:
        return await call.leave();
      case 1:
        await on.operations.cancelOperation({ name }).catch(() => {});
        break;
      case 2:
        await call.leave();
        await on
          .wait(name)
          .last.then(responseOf)
          .catch(() => {});
        return;
      default:
    }
    // A stream that was not left always ends with a response.
    responseOf(await call.last);
  });
  await Promise.all(clients);
  await until(() => {
    clock.advance(schedulerLimits.abandonedGraceMs);
    const { executing, queued } = on.load();
    return executing === 0 && queued === 0;
  });
  expect(on.node.status().store.pinnedBlobs).toBe(0);
  const { operations } = await on.operations.listOperations({});
  expect(operations.filter(({ done }) => !done)).toEqual([]);
  expect(on.node.status().recentProblems).toEqual([]);
});

/** What `npm run demo` shows, asserted: an office shares a cache by joining with tokens, and loses a machine meanwhile. */
import { describe, expect, test } from 'vitest';
import { playOffice } from '../demo/office.ts';
import { bazelVersions } from './bazel.ts';

const bazel = bazelVersions.find(({ missing }) => missing === undefined);
if (!bazel) console.warn(`not checked: the office: ${bazelVersions[0]?.missing}`);
/** Some compiling and linking, and one output large enough to be cut off in the middle. */
const targets = ['//lib0', '//lib1', '//gen:header', '//gen:large'];
const largeBytes = 20_000_000;

describe.skipIf(bazel === undefined)('an office', () => {
  test('finds itself again by multicast and shares builds, also when the builder is killed in the middle', {
    timeout: 600_000,
  }, async () => {
    const said: string[] = [];
    if (!bazel) return;
    const { onLoopback, seenAfterMove, builds } = await playOffice(bazel, targets, (sentence) => said.push(sentence));
    const story = said.join('\n');
    if (onLoopback === undefined) expect(seenAfterMove, story).toEqual({ anna: 3, ben: 3, cora: 3, dora: 3 });
    else console.warn(`not checked: finding one another by multicast: ${onLoopback}`);
    expect(builds).toHaveLength(4);
    const [first, second, third, helped] = builds;
    expect(first, story).toMatchObject({ hits: 0, receivedBytes: 0 });
    expect(helped?.ranElsewhere, story).toBeGreaterThan(0);
    // The flag changes every compilation, and none of their outputs.
    expect(helped?.outputs).toEqual(first?.outputs);
    for (const build of [second, third]) {
      if (!build) continue;
      expect(build, story).toMatchObject({ hits: first?.ran, ran: 0 });
      expect(build.receivedBytes).toBeGreaterThan(largeBytes);
      expect(build.outputs).toEqual(first?.outputs);
    }
  });
});

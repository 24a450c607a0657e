import { afterEach, expect, test } from 'vitest';
import { until } from '../../support/until.ts';
import type { ActionSpec } from '../node/fixture.ts';
import { only, type Office, type OfficeNode, openOffice, processesWith } from './office.ts';

let office: Office | undefined;
afterEach(async () => {
  await office?.[Symbol.asyncDispose]();
  office = undefined;
});

let serial = 0;
const marker = (): string => `together-${process.pid}-${(serial += 1)}`;

test('one action asked for at two nodes runs once', async () => {
  office = await openOffice({ slots: 1 }, { slots: 1 }, { slots: 2, lends: 2 });
  const [anna, ben, cleo] = office.nodes as [OfficeNode, OfficeNode, OfficeNode];
  const spec: ActionSpec = {
    script: `: ${marker()}; sleep 1; date +%N > out`,
    command: { outputPaths: ['out'] },
    action: only(cleo),
  };
  const responses = await Promise.all([anna, ben].map(async (node) => node.execute(await node.prepare(spec)).response));
  const [one, other] = responses.map(({ result }) => result?.outputFiles[0]?.digest);
  expect(one).toBeDefined();
  expect(other).toEqual(one);
  expect(cleo.node.status().offload.guests.started).toBe(1);
});

test('what ran on a node that leaves in the middle ends elsewhere, and the build does not notice', async () => {
  office = await openOffice({ slots: 1 }, { slots: 2, lends: 2 });
  const [anna, ben] = office.nodes as [OfficeNode, OfficeNode];
  const names = Array.from({ length: 3 }, marker);
  const actions = await Promise.all(
    names.map((name) => anna.prepare({ script: `sleep 2; echo ${name} > out`, command: { outputPaths: ['out'] } })),
  );
  const followed = actions.map((action) => anna.execute(action));
  await until(() => ben.node.status().offload.guests.started > 0);
  await ben.stop();
  for (const [at, { response }] of followed.entries()) {
    const { status, result } = await response;
    expect(status?.code).toBe(0);
    expect(await anna.text(result?.outputFiles[0]?.digest)).toBe(`${names[at]}\n`);
    expect(result?.executionMetadata?.worker).toContain(anna.peerId);
  }
});

test('nothing is left running for a node that leaves', async () => {
  office = await openOffice({ slots: 1 }, { slots: 2, lends: 2 });
  const [anna, ben] = office.nodes as [OfficeNode, OfficeNode];
  const name = marker();
  anna.execute(await anna.prepare({ script: `sleep 300; : ${name}`, action: only(ben) }));
  await until(async () => (await processesWith(name)).length > 0);
  await anna.stop();
  await until(async () => (await processesWith(name)).length === 0);
});

test('both nodes take part in many actions, and each action runs once', async () => {
  office = await openOffice({ slots: 2 }, { slots: 2, lends: 2 });
  const [anna, ben] = office.nodes as [OfficeNode, OfficeNode];
  const names = Array.from({ length: 60 }, marker);
  const actions = await Promise.all(
    names.map((name) => anna.prepare({ script: `sleep 0.1; echo ${name} > out`, command: { outputPaths: ['out'] } })),
  );
  const responses = await Promise.all(actions.map((action) => anna.execute(action).response));
  const outputs = await Promise.all(responses.map(({ result }) => anna.text(result?.outputFiles[0]?.digest)));
  expect(outputs).toEqual(names.map((name) => `${name}\n`));
  const there = responses.filter(({ result }) => result?.executionMetadata?.worker.includes(ben.peerId)).length;
  // Guests come last where processors are short, so nothing is said of how many.
  expect(there).toBeGreaterThan(0);
  const { here, peer } = anna.node.status().offload.answered;
  expect(here + peer).toBe(60);
  expect(anna.load()).toEqual({ executing: 0, queued: 0 });
});

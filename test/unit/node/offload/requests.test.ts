/** Requests of own clients with a machine that the test plays: what members and a mesh that ends can do to them. */
import { create } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import type { OfferedRun } from '../../../../node/execution/offering.ts';
import { awaySlackMs } from '../../../../node/offload/limits.ts';
import { createRequests, type RequestWork } from '../../../../node/offload/requests.ts';
import type { Expected } from '../../../../node/offload/results.ts';
import {
  ActionSchema,
  CommandSchema,
} from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import { actionName } from '../../../../node/offload/keys.ts';
import { createTestClock } from '../../../support/test-clock.ts';
import { until } from '../../../support/until.ts';

const action = digestOf('sha256', Buffer.from('action'));
const root = { digest: action, directories: [], files: [], symlinks: [], bytes: 0 } as never;
const log = { write() {}, end() {} };

function offer(signal = new AbortController().signal): OfferedRun {
  return {
    run: 'run',
    request: 'request',
    prepared: {
      digest: action,
      action: create(ActionSchema),
      command: create(CommandSchema, { arguments: ['true'] }),
      inputRoot: action,
      timeoutMs: 1_000,
      pin: async () => {},
      [Symbol.dispose]() {},
    },
    context: { instance: '', invocation: 'i', priority: 0, mnemonic: '', target: '', skipCacheLookup: false },
    queuedAtMs: 0,
    signal,
    stdout: log,
    stderr: log,
    onStage() {},
    onRead() {},
  };
}

function given(treeOf: () => Promise<unknown> = async () => root) {
  const clock = createTestClock();
  const events: { readonly kind: string }[] = [];
  const asked: Expected[] = [];
  const requests = createRequests({
    self: 'me',
    shards: 1,
    requires: () => [],
    clock,
    results: {
      make: () => Promise.reject(new Error('makes nothing')),
      async bring(expected) {
        asked.push(expected);
        return { kind: 'absent', reason: 'nobody has it' };
      },
    },
    treeOf: async () => (await treeOf()) as never,
    hold: async () => true,
    keep: async () => {},
    logs: { follow: async () => {} },
    hintInputs() {},
    useOutputs: () => ({ [Symbol.dispose]() {} }),
    workerName: (node) => node,
    deliver: (event) => void events.push(event),
    record() {},
    invalidate() {},
    onLie() {},
    unmatched: () => undefined,
  });
  return { clock, events, asked, requests, perform: (work: RequestWork) => requests.perform(work) };
}

test('a mesh that ends while the inputs are looked at gives the action back', async () => {
  const tree = Promise.withResolvers<unknown>();
  const { requests, events } = given(() => tree.promise);
  const run = requests.run(offer());
  requests.close();
  tree.resolve(root);
  expect(await run).toMatchObject({ retriable: true, error: { code: 'UNAVAILABLE' } });
  expect(events).toEqual([]);
});

test('a member that calls the action invalid fails no build: this node looks itself', async () => {
  const { requests, perform, events } = given();
  const run = requests.run(offer());
  await until(() => events.length === 1);
  perform({ kind: 'answer', request: 'request', answer: { kind: 'failed', reason: 'actionInvalid' } });
  expect(await run).toMatchObject({ retriable: true, error: { code: 'UNAVAILABLE' } });
});

test('an action that members keep for longer than it may take is run here', async () => {
  const { requests, perform, events, clock } = given();
  const run = requests.run(offer());
  await until(() => events.length === 1);
  perform({ kind: 'progress', request: 'request', stage: 'fetching', node: 'ben' });
  clock.advance(awaySlackMs);
  // Who gives it back and takes it again gains nothing.
  perform({ kind: 'progress', request: 'request', stage: 'queued', node: undefined });
  perform({ kind: 'progress', request: 'request', stage: 'executing', node: 'ben' });
  expect(requests.open()).toBe(1);
  clock.advance(1_000);
  expect(await run).toMatchObject({ retriable: true, error: { code: 'UNAVAILABLE' } });
  expect(events.at(-1)).toEqual({ kind: 'cancel', request: 'request' });
});

test('a run of this node takes the time that it needs', async () => {
  const { requests, perform, events, clock } = given();
  void requests.run(offer());
  await until(() => events.length === 1);
  perform({ kind: 'progress', request: 'request', stage: 'fetching', node: 'ben' });
  perform({ kind: 'progress', request: 'request', stage: 'executing', node: 'me' });
  clock.advance(awaySlackMs + 2_000);
  expect(requests.open()).toBe(1);
  requests.close();
});

test('what was run for this request must be signed by who ran it', async () => {
  const { requests, perform, events, asked } = given();
  const run = requests.run(offer());
  await until(() => events.length === 1);
  const token = { generation: 1, term: 1, counter: 1 };
  const outcome = { result: `sha256/${'0'.repeat(64)}/1`, sizeBytes: 1, cacheable: true };
  const answer = { kind: 'result', outcome, source: 'mesh', token, executor: 'ben' } as const;
  perform({ kind: 'answer', request: 'request', answer });
  expect(await run).toMatchObject({ retriable: true });
  expect(asked).toMatchObject([{ executor: 'ben', token }]);
});

test('a run is known by its request, or by its action when that is shared', async () => {
  const { requests, events } = given();
  void requests.run(offer());
  await until(() => events.length === 1);
  const name = actionName({ instance: '', action });
  expect(requests.own('request', name)).toBeDefined();
  expect(requests.own('of another member', name)).toBeDefined();
  expect(requests.own('request', 'another action')).toBeUndefined();
  expect(requests.own('of another member', 'another action')).toBeUndefined();
  requests.close();
});

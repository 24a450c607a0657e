import { create } from '@bufbuild/protobuf';
import { afterEach, expect, test } from 'vitest';
import type { RunPorts } from '../../../../node/execution/run-action.ts';
import type { PreparedAction } from '../../../../node/execution/prepare.ts';
import { systemClock } from '../../../../node/execution/clock.ts';
import { missingBlobs } from '../../../../node/execution/missing.ts';
import { actionName } from '../../../../node/offload/keys.ts';
import { endedWell, type HandedResult } from '../../../../node/offload/results.ts';
import { createRuns, type OwnRequest, type Runs } from '../../../../node/offload/runs.ts';
import {
  ActionResultSchema,
  ActionSchema,
  CommandSchema,
} from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import { StatusError } from '../../../../protos/status.ts';
import { until } from '../../../support/until.ts';

type Sandbox = RunPorts['sandbox'];
let runs: Runs | undefined;
afterEach(() => runs?.close());

const action = digestOf('sha256', Buffer.from('action'));
const key = { instance: '', action };
const name = actionName(key);
const exited = { kind: 'exited', result: create(ActionResultSchema, { exitCode: 0 }) } as const;
/** As the sandbox ends what it is told to end. */
const untilKilled = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    const killed = (): void => reject(new StatusError('CANCELLED', 'killed'));
    if (signal.aborted) killed();
    signal.addEventListener('abort', killed);
  });

interface Given {
  readonly run?: Sandbox['run'];
  readonly bringInputs?: (signal: AbortSignal) => Promise<void>;
  readonly prepare?: () => void;
  readonly own?: OwnRequest;
  readonly key?: string;
}

function given({
  run = async () => exited,
  bringInputs = async () => {},
  prepare = () => {},
  own,
  key: named = name,
}: Given = {}) {
  const events: object[] = [];
  const failures: string[] = [];
  const known = new Set<number>();
  let pinned = 0;
  const prepared = (): PreparedAction => {
    pinned += 1;
    return {
      digest: action,
      action: create(ActionSchema),
      command: create(CommandSchema, { arguments: ['true'] }),
      inputRoot: action,
      timeoutMs: 1_000,
      pin: async () => {},
      [Symbol.dispose]: () => void (pinned -= 1),
    };
  };
  const made = createRuns({
    ports: {
      sandbox: {
        isolation: 'bubblewrap',
        limitsInForce: [],
        keepLog: async (fn, text) => digestOf(fn, Buffer.from(text)),
        run,
      },
      clock: systemClock,
      worker: 'here',
    },
    preparer: {
      readAction: async () => create(ActionSchema),
      async prepare() {
        prepare();
        return prepared();
      },
    },
    results: {
      make: async (_, result, __, { token }) =>
        ({
          name: `sha256/${'0'.repeat(64)}/1`,
          key,
          result,
          ending: endedWell,
          token,
          closure: [action],
        }) as unknown as HandedResult,
      bring: async () => ({ kind: 'absent', reason: 'nobody asks' }),
    },
    async bringInputs(_, __, signal) {
      await bringInputs(signal);
      return { action: create(ActionSchema) } as never;
    },
    hold: async () => true,
    ownRequest: () => own,
    known: () => known,
    deliver: (event) => void events.push(event),
    onOwnResult: () => {},
    onMade: () => {},
    onFailed: (_, reason) => void failures.push(reason),
  });
  runs = made;
  return {
    events,
    failures,
    known,
    pinned: () => pinned,
    fetch: (number: number) =>
      made.perform({ kind: 'fetchInputs', run: number, from: 'anna', key: named, request: 'r' }),
    run: (number: number, guest = true) =>
      made.perform({ kind: 'run', run: number, key: named, request: 'r', guest, token: undefined, doNotCache: false }),
    kill: (number: number) => made.perform({ kind: 'kill', run: number }),
  };
}

test('a guest fetches, runs, and lets go of its inputs', async () => {
  const on = given();
  on.fetch(1);
  await until(() => on.events.length === 1);
  expect(on.events[0]).toEqual({ kind: 'inputsFetched', run: 1, ok: true });
  expect(on.pinned()).toBe(1);
  on.run(1);
  await until(() => on.events.length === 2);
  expect(on.events[1]).toMatchObject({ kind: 'ran', run: 1, outcome: { cacheable: true } });
  await until(() => on.pinned() === 0);
});

test('a run that was killed is not heard of again', async () => {
  const on = given({ run: (_, { signal }) => untilKilled(signal) });
  on.fetch(1);
  await until(() => on.events.length === 1);
  on.run(1);
  on.kill(1);
  await until(() => on.pinned() === 0);
  expect(on.events).toHaveLength(1);
  expect(on.failures).toEqual([]);
});

test('inputs that nobody has are said at once; what this node refuses for other reasons is its own fault', async () => {
  const without = given({
    async bringInputs() {
      throw missingBlobs([action], 'action');
    },
  });
  without.fetch(1);
  await until(() => without.events.length === 1);
  expect(without.events[0]).toMatchObject({ kind: 'inputsFetched', ok: false });
  const refused = given({
    prepare() {
      throw new StatusError('INVALID_ARGUMENT', 'asks for more time than this node allows');
    },
  });
  refused.fetch(1);
  await until(() => refused.events.length === 1);
  refused.run(1);
  await until(() => refused.events.length === 2);
  expect(refused.events[1]).toEqual({ kind: 'runFailed', run: 1, reason: 'executorFault' });
  expect(refused.failures).toEqual(['asks for more time than this node allows']);
});

test('what was only fetched is let go when the machine does not have it any more', async () => {
  const on = given();
  on.fetch(1);
  await until(() => on.pinned() === 1);
  on.known.add(2);
  on.fetch(2);
  await until(() => on.events.length === 2);
  expect(on.pinned()).toBe(1);
});

test('an own action that cannot be run is told its client, and nobody is asked to try it again', async () => {
  const told: string[] = [];
  const on = given({
    run: () => Promise.reject(new StatusError('INVALID_ARGUMENT', 'no such thing')),
    own: {
      prepared: {
        digest: action,
        action: create(ActionSchema),
        command: create(CommandSchema),
        inputRoot: action,
        timeoutMs: 1_000,
        pin: async () => {},
        [Symbol.dispose]() {},
      },
      queuedAtMs: 0,
      stdout: { write() {} },
      stderr: { write() {} },
      failed(report) {
        told.push(report.error?.reason ?? '');
        return true;
      },
    },
  });
  on.run(1, false);
  await until(() => on.events.length === 1);
  expect(on.events[0]).toEqual({ kind: 'runFailed', run: 1, reason: 'actionInvalid' });
  expect(told).toEqual(['no such thing']);
});

test('what no client of this node asked for never runs as though one had, whatever its claim says', async () => {
  let began = 0;
  const on = given({
    async run() {
      began += 1;
      return exited;
    },
  });
  on.run(1, false);
  await until(() => on.events.length === 1);
  expect(on.events[0]).toEqual({ kind: 'runFailed', run: 1, reason: 'executorFault' });
  expect(began).toBe(0);
});

test('a claim for something that is no action fails, and breaks nothing', async () => {
  const on = given({ key: 'no action' });
  on.fetch(1);
  on.run(2);
  // The machine is in the middle of a step.
  expect(on.events).toEqual([]);
  await until(() => on.events.length === 2);
  expect(on.events).toEqual([
    { kind: 'inputsFetched', run: 1, ok: false },
    { kind: 'runFailed', run: 2, reason: 'executorFault' },
  ]);
});

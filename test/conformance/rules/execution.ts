/** Execute and WaitExecution: P29 to P37. */
import { type Digest, digestPath } from '../../../protos/digest.ts';
import {
  DirectorySchema,
  Execution,
  ExecutionStage_Value,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { Operations } from '../../../protos/gen/google/longrunning/operations_pb.ts';
import {
  execute,
  failureOf,
  metadataOf,
  outputOf,
  preconditionFailure,
  processesGone,
  putAction,
  putActionMessage,
  type ExecuteFields,
  type Run,
  stdoutOf,
  waitExecution,
} from '../actions.ts';
import { type Context, controlOf, openContext } from '../context.ts';
import { absentDigest, digestOf, mustBeOk, mustRefuse, put, putMessage, wire, wireFn } from '../fixtures.ts';
import { type Check, part, type Rule, slow } from '../rule.ts';
import { get, update } from './action-cache.ts';

/** Prints what no second run prints. */
const stamp = 'cat /proc/sys/kernel/random/uuid 2>/dev/null || echo $$-$(date +%s)';

export const executionRules: readonly Rule[] = [
  {
    id: 'P29',
    title: 'Where errors are told',
    says: 'What prevents the start is the status of the call, what goes wrong while running is in the response, and a command that fails is no error.',
    source: 'REAPI, Execute',
    parts: [
      part('a command that fails', ['execution'], async (context, check) => {
        for (const code of [1, 3, 255]) {
          const done = await execute(context, await putAction(context, { script: `exit ${code}` }));
          if (!mustBeOk(check, `exit ${code}`, failureOf(done))) continue;
          check.must(done.result?.exitCode === code, `exit ${code}: ${done.summary}`);
        }
      }),
      part('a command that is killed', ['execution'], async (context, check) => {
        const done = await execute(context, await putAction(context, { script: 'kill -9 $$' }));
        check.must(done.code === 'OK', done.summary);
        check.must(
          done.status?.code !== 'OK' || (done.result?.exitCode ?? 0) !== 0,
          `taken for success: ${done.summary}`,
        );
        check.saw(done.summary);
      }),
      part('the error of the operation', ['execution'], async (context, check) => {
        for (const script of ['exit 1', 'true', 'kill -9 $$']) {
          const done = await execute(context, await putAction(context, { script }));
          check.must(
            done.operations.every((operation) => operation.result.case !== 'error'),
            `${script}: Operation.error is set`,
          );
        }
      }),
      part('an action that is missing', ['execution'], async (context, check) => {
        const done = await execute(context, absentDigest(context));
        mustRefuse(check, 'Execute', failureOf(done), 'FAILED_PRECONDITION', 'NOT_FOUND');
      }),
      part('an action that is none', ['execution'], async (context, check) => {
        const action = await put(context, Buffer.concat([Buffer.from([0xff, 0xff, 0xff]), context.fresh()]));
        mustRefuse(
          check,
          'bytes that are no Action',
          failureOf(await execute(context, action)),
          'INVALID_ARGUMENT',
          'FAILED_PRECONDITION',
        );
        const bare = await putActionMessage(context, { salt: context.fresh(8) });
        mustRefuse(
          check,
          'an Action without a command',
          failureOf(await execute(context, bare)),
          'INVALID_ARGUMENT',
          'FAILED_PRECONDITION',
        );
      }),
    ],
  },
  {
    id: 'P30',
    title: 'Missing blobs are named',
    says: 'FAILED_PRECONDITION carries a PreconditionFailure with one violation of type MISSING per blob, subject blobs/{function/}{hash}/{size}.',
    source: 'REAPI, Execute, errors',
    parts: [
      part('the action', ['execution'], async (context, check) => {
        const action = absentDigest(context);
        mustName(check, await execute(context, action), [action]);
      }),
      part('command, directories and files together', ['execution'], async (context, check) => {
        const command = absentDigest(context);
        const file = absentDigest(context);
        const directory = absentDigest(context);
        const root = await putMessage(context, DirectorySchema, {
          files: [{ name: 'f', digest: wire(file) }],
          directories: [{ name: 'd', digest: wire(directory) }],
        });
        const action = await putActionMessage(context, { commandDigest: wire(command), inputRootDigest: wire(root) });
        mustName(check, await execute(context, action), [command, file, directory]);
      }),
      part('a root', ['execution'], async (context, check) => {
        const inputRoot = absentDigest(context);
        mustName(check, await execute(context, await putAction(context, { inputRoot })), [inputRoot]);
      }),
      part('a file far below', ['execution'], async (context, check) => {
        const file = absentDigest(context);
        const leaf = await putMessage(context, DirectorySchema, { files: [{ name: 'f', digest: wire(file) }] });
        const middle = await putMessage(context, DirectorySchema, { directories: [{ name: 'l', digest: wire(leaf) }] });
        const inputRoot = await putMessage(context, DirectorySchema, {
          directories: [{ name: 'm', digest: wire(middle) }],
        });
        mustName(check, await execute(context, await putAction(context, { inputRoot })), [file]);
      }),
      part('under BLAKE3', ['execution', 'blake3'], async (context, check) => {
        const file = absentDigest(context, 100, 'blake3');
        const inputRoot = await putMessage(
          context,
          DirectorySchema,
          { files: [{ name: 'f', digest: wire(file) }] },
          'blake3',
        );
        mustName(check, await execute(context, await putAction(context, { inputRoot, fn: 'blake3' })), [file]);
      }),
      part('uploaded after that', ['execution'], async (context, check) => {
        const content = context.fresh();
        const inputRoot = await putMessage(context, DirectorySchema, {
          files: [{ name: 'f', digest: wire(digestOf(context.fn, content)) }],
        });
        const action = await putAction(context, { inputRoot, script: 'test -s f' });
        mustRefuse(check, 'before', failureOf(await execute(context, action)), 'FAILED_PRECONDITION');
        await put(context, content);
        const done = await execute(context, action);
        check.must(failureOf(done).code === 'OK' && done.result?.exitCode === 0, `after the upload: ${done.summary}`);
      }),
    ],
  },
  {
    id: 'P31',
    title: 'The stream of an Execute',
    says: 'An operation with name and stage comes at once; the last has done set, which is so exactly when the stage is COMPLETED.',
    source: 'REAPI, Execute and message ExecuteOperationMetadata',
    parts: [
      part('from the first message to the last', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: 'sleep 2' });
        const done = await execute(context, action);
        if (!mustBeOk(check, 'the stream', done)) return;
        check.must(
          leadMs(done) > 1000,
          `the first message came ${Math.round(leadMs(done))} ms before the end of a run of 2 s`,
        );
        const names = new Set(done.operations.map((operation) => operation.name));
        check.must(names.size === 1 && !names.has(''), `names: ${[...names].join()}`);
        check.must(done.operations.at(-1)?.done === true, 'the last message is not done');
        check.must(
          done.operations.slice(0, -1).every((operation) => !operation.done),
          'messages come after done',
        );
        check.must(done.operations.at(-1)?.result.case === 'response', 'done without a response');
        for (const operation of done.operations) {
          const metadata = metadataOf(operation);
          check.must(metadata !== undefined, 'an operation without metadata');
          check.must(metadata?.stage !== ExecutionStage_Value.UNKNOWN, 'a stage UNKNOWN');
          const completed = metadata?.stage === ExecutionStage_Value.COMPLETED;
          check.must(completed === operation.done, `done is ${operation.done} at stage ${metadata?.stage}`);
          const named = metadata?.actionDigest;
          check.must(named?.hash === action.hash, 'the metadata names another action');
        }
        const stages = done.metadata.map((metadata) => metadata.stage);
        check.must(stages.includes(ExecutionStage_Value.EXECUTING), `no stage EXECUTING in ${stages.join()}`);
        check.saw(`stages ${stages.join(' ')}`);
      }),
      slow(
        part('a silent command', ['execution'], async (context, check) => {
          const run = await started(context, await putAction(context, { script: 'sleep 22' }));
          let isAlive = false;
          let lastMs = performance.now();
          for await (const operation of run.messages) {
            // What comes while nothing happens is a sign of life.
            isAlive = !operation.done && performance.now() - lastMs > 1_000;
            if (isAlive) break;
            lastMs = performance.now();
          }
          await context.client.unary(Operations.method.cancelOperation, { name: run.name });
          await run.leave();
          check.choice(isAlive ? 'says within 20 s that it is alive' : 'no message while a command runs');
        }),
      ),
    ],
  },
  {
    id: 'P32',
    title: 'Answers from the cache',
    says: 'Without skip_cache_lookup a known result may be the answer: done, stage COMPLETED, cached_result set.',
    source: 'REAPI, Execute and message ExecuteResponse',
    parts: [
      part('a second time', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: `(${stamp}) > out`, outputPaths: ['out'] });
        const first = await execute(context, action);
        const second = await execute(context, action);
        check.must(first.response?.cachedResult === false, `the first run is "cached": ${first.summary}`);
        if (!mustBeOk(check, 'the second', failureOf(second))) return;
        const same = second.result?.outputFiles[0]?.digest?.hash === first.result?.outputFiles[0]?.digest?.hash;
        check.must(
          same === second.response?.cachedResult,
          `cached_result is ${second.response?.cachedResult}, same result ${same}`,
        );
        check.must(second.operation !== '', 'an operation without a name');
        check.must(second.metadata.at(-1)?.stage === ExecutionStage_Value.COMPLETED, 'the last stage is not COMPLETED');
        if (!same) check.choice('runs again in spite of a stored result');
        mustBeOk(check, 'GetActionResult after the run', await get(context, action));
      }),
      part('a result that a client stored', ['execution', 'update-action-cache'], async (context, check) => {
        const action = await putAction(context, { script: 'exit 0' });
        await update(context, action, { stdoutDigest: wire(await put(context, Buffer.from('from a client'))) });
        const done = await execute(context, action);
        if (!mustBeOk(check, 'Execute', failureOf(done))) return;
        if (done.response?.cachedResult) {
          check.must((await stdoutOf(context, done)) === 'from a client', 'another result is "cached"');
        } else check.choice('runs in spite of a stored result');
      }),
    ],
  },
  {
    id: 'P33',
    title: 'skip_cache_lookup',
    says: 'The answer is no result that was visible before the request; it replaces that in the cache.',
    source: 'REAPI, message ExecuteRequest',
    parts: [
      part('a second run', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: `(${stamp}) > out`, outputPaths: ['out'] });
        const first = await outputOf(context, await execute(context, action), 'out');
        const again = await execute(context, action, { skipCacheLookup: true });
        const second = await outputOf(context, again, 'out');
        check.must(second !== undefined && second !== first, `the old result is answered: ${again.summary}`);
        check.must(again.response?.cachedResult === false, 'cached_result is set');
        const hash = (await get(context, action)).response?.outputFiles[0]?.digest?.hash;
        if (hash !== again.result?.outputFiles[0]?.digest?.hash) check.choice('the older result stays in the cache');
      }),
    ],
  },
  {
    id: 'P34',
    title: 'do_not_cache',
    says: 'The result is not stored, and two requests are two runs.',
    source: 'REAPI, message Action',
    parts: [
      part('two at once', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: `sleep 1; (${stamp}) > out`,
          outputPaths: ['out'],
          doNotCache: true,
        });
        const runs = await Promise.all([execute(context, action), execute(context, action)]);
        const [first, second] = await Promise.all(runs.map((run) => outputOf(context, run, 'out')));
        check.must(first !== undefined && second !== undefined, runs.map((run) => run.summary).join('; '));
        check.must(first !== second, 'the two were merged into one run');
        mustRefuse(check, 'GetActionResult', await get(context, action), 'NOT_FOUND');
      }),
      part('one after another', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: `(${stamp}) > out`, outputPaths: ['out'], doNotCache: true });
        const first = await outputOf(context, await execute(context, action), 'out');
        const second = await outputOf(context, await execute(context, action), 'out');
        check.must(first !== undefined && first !== second, 'the second was answered with the first');
      }),
    ],
  },
  {
    id: 'P35',
    title: 'Merged requests live on',
    says: 'Requests for one action may share a run; one that leaves or is cancelled does not take it from the others.',
    source: 'REAPI, Execute; google.longrunning, CancelOperation',
    parts: [
      part('one leaves', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: `sleep 2; (${stamp}) > out`, outputPaths: ['out'] });
        const leaver = await started(context, action);
        const stayer = execute(context, action);
        await leaver.leave();
        const done = await stayer;
        check.must(failureOf(done).code === 'OK' && done.result?.exitCode === 0, `the other one: ${done.summary}`);
      }),
      part('one cancels', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: `sleep 3; (${stamp}) > out`, outputPaths: ['out'] });
        const canceller = await started(context, action);
        const other = await started(context, action);
        const reply = await context.client.unary(Operations.method.cancelOperation, { name: canceller.name });
        if (reply.code === 'UNIMPLEMENTED') {
          check.choice('CancelOperation is not served');
          await Promise.all([canceller.leave(), other.leave()]);
          return;
        }
        mustBeOk(check, 'CancelOperation', reply);
        if (canceller.name === other.name)
          check.choice('merged requests share one operation, so that a cancel ends all');
        const done = await waitExecution(context, other.name);
        if (canceller.name !== other.name) {
          check.must(failureOf(done).code === 'OK' && done.result?.exitCode === 0, `the other one: ${done.summary}`);
        }
        await Promise.all([canceller.leave(), other.leave()]);
      }),
      part('a cancelled operation ends', ['execution'], async (context, check) => {
        const mark = `conformance-${context.fresh(8).toString('hex')}`;
        const run = await started(
          context,
          await putAction(context, { script: `sleep 60; : ${mark}`, doNotCache: true }),
        );
        const startMs = performance.now();
        const reply = await context.client.unary(Operations.method.cancelOperation, { name: run.name });
        if (reply.code === 'UNIMPLEMENTED') check.choice('CancelOperation is not served');
        else {
          mustBeOk(check, 'CancelOperation', reply);
          const done = await waitExecution(context, run.name, { deadlineMs: 15_000 });
          const ended = failureOf(done);
          const gone = done.code === 'NOT_FOUND';
          const error = done.operations.at(-1)?.result.case === 'error';
          check.must(ended.code === 'CANCELLED' || gone || error, `after the cancel: ${done.summary}`);
          check.must(performance.now() - startMs < 15_000, 'the operation goes on');
          check.must(await processesGone(mark), 'the command lives on');
        }
        await run.leave();
      }),
    ],
  },
  {
    id: 'P36',
    title: 'WaitExecution',
    says: 'It tells the present state at once and then streams to the end; a name nobody knows is NOT_FOUND.',
    source: 'REAPI, WaitExecution',
    parts: [
      part('while it runs', ['execution'], async (context, check) => {
        const run = await started(context, await putAction(context, { script: 'sleep 3; echo done' }));
        const waits = await Promise.all([waitExecution(context, run.name), waitExecution(context, run.name)]);
        for (const wait of waits) {
          check.must(leadMs(wait) > 500, `the first message came ${Math.round(leadMs(wait))} ms before the end`);
          check.must(wait.operations.at(-1)?.done === true && wait.result?.exitCode === 0, wait.summary);
          check.must(wait.operation === run.name, `the name is "${wait.operation}", not "${run.name}"`);
        }
        await run.leave();
      }),
      part('after the end', ['execution'], async (context, check) => {
        const done = await execute(context, await putAction(context, { script: 'true' }));
        for (const turn of ['once', 'again']) {
          const wait = await waitExecution(context, done.operation);
          if (wait.code === 'NOT_FOUND') return check.choice('a finished operation is forgotten at once');
          check.must(wait.operations.at(-1)?.done === true, `${turn}: ${wait.summary}`);
        }
      }),
      part('a name nobody knows', ['execution'], async (context, check) => {
        for (const name of ['no-such-operation', 'a/b/operations/1f0c5e58-bb0f-44a5-8ae5-4c7f9fbd5a2e', '']) {
          const wait = await waitExecution(context, name, { deadlineMs: 10_000 });
          mustRefuse(check, `"${name}"`, wait, 'NOT_FOUND', 'INVALID_ARGUMENT');
        }
      }),
      part('an instance of several segments', ['execution', 'instances'], async (context, check) => {
        const nested: Context = { ...context, instance: 'conformance/b/c' };
        const done = await execute(nested, await putAction(nested, { script: 'true' }));
        if (!mustBeOk(check, 'Execute', failureOf(done))) return;
        const wait = await waitExecution(nested, done.operation);
        check.must(
          wait.code === 'NOT_FOUND' || wait.operation === done.operation,
          `the name does not come back: ${wait.summary}`,
        );
      }),
      part('after a restart', ['execution', 'control'], async (context, check) => {
        await using server = await controlOf(context).start();
        const own = await openContext(server.target, { seed: 36 });
        let run: Awaited<ReturnType<typeof started>>;
        try {
          run = await started(own, await putAction(own, { script: 'sleep 30' }));
          await server.killAndRestart();
          await run.leave();
        } finally {
          own.client.close();
        }
        const again = await openContext(server.target, { seed: 37 });
        try {
          mustRefuse(check, 'WaitExecution', await waitExecution(again, run.name, { deadlineMs: 10_000 }), 'NOT_FOUND');
        } finally {
          again.client.close();
        }
      }),
    ],
  },
  {
    id: 'P37',
    title: 'One end for each run',
    says: 'Stages may go back when a worker is lost, but the end is told once and to everybody alike.',
    source: 'REAPI, message ExecutionStage',
    parts: [
      part('two waiters', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: `sleep 1; (${stamp}) > out`, outputPaths: ['out'] });
        const first = await started(context, action);
        const [left, right] = await Promise.all([
          waitExecution(context, first.name),
          waitExecution(context, first.name),
        ]);
        for (const wait of [left, right]) {
          check.must(
            wait.operations.filter((operation) => operation.done).length === 1,
            `not one end: ${wait.summary}`,
          );
        }
        const [a, b] = [left, right].map((wait) => wait.result?.outputFiles[0]?.digest?.hash);
        check.must(a !== undefined && a === b, 'the waiters were told different results');
        await first.leave();
      }),
    ],
  },
];

/** An Execute whose first operation has come. */
export async function started(context: Context, action: Digest, request: ExecuteFields = {}) {
  const call = context.client.download(Execution.method.execute, {
    instanceName: context.instance,
    actionDigest: wire(action),
    digestFunction: wireFn(action.fn),
    ...request,
  });
  const messages = call.messages[Symbol.asyncIterator]();
  const first = await messages.next();
  return {
    name: first.done ? '' : first.value.name,
    first: first.done ? undefined : first.value,
    messages: { [Symbol.asyncIterator]: () => messages },
    async leave(): Promise<void> {
      call.cancel();
      await call.outcome;
    },
  };
}

/** How long before the last message the first one came. */
function leadMs(run: Run): number {
  return (run.atMs.at(-1) ?? 0) - (run.atMs[0] ?? 0);
}

/** The failure must name exactly `digests` as MISSING, on the call or in the response. */
function mustName(check: Check, run: Run, digests: readonly Digest[]): void {
  const failure = failureOf(run);
  mustRefuse(check, 'Execute', failure, 'FAILED_PRECONDITION');
  const details = run.code === 'OK' ? (run.response?.status?.details ?? []) : run.details;
  const violations = preconditionFailure(details)?.violations;
  if (!violations) return check.must(false, 'no PreconditionFailure in the details');
  check.must(
    violations.every((violation) => violation.type === 'MISSING'),
    'a violation of another type',
  );
  const named = violations.map((violation) => violation.subject).toSorted();
  const expected = digests.map((digest) => `blobs/${digestPath(digest)}`).toSorted();
  check.must(named.join() === expected.join(), `named ${named.join(' ')} instead of ${expected.join(' ')}`);
  if (run.code === 'OK') check.choice('told in the response');
}

/** What a command may count on: P38 to P43. */
import { homedir, userInfo } from 'node:os';
import { execute, failureOf, outputOf, processesGone, putAction, stderrOf, stdoutOf } from '../actions.ts';
import { mustBeOk, mustRefuse } from '../fixtures.ts';
import { type Rule, part } from '../rule.ts';
import { get } from './action-cache.ts';

/** Names that only a server's own environment has; the last is planted by whoever starts a server for the suite. */
const serverOnly = /^(NODE_.*|npm_.*|LD_.*|SSH_.*|DBUS_.*|CONFORMANCE_.*)$/;
/** What tells who runs this suite, on the same machine as the server. */
const personal = new Map(Object.entries({ HOME: homedir(), USER: userInfo().username, LOGNAME: userInfo().username }));
const addedByShells = ['PWD', 'SHLVL', 'OLDPWD', '_'];

export const commandRules: readonly Rule[] = [
  {
    id: 'P38',
    title: 'Timeouts',
    says: 'A command that runs longer than its timeout is ended with all its descendants; DEADLINE_EXCEEDED is in the response, nothing is cached.',
    source: 'REAPI, message Action, timeout',
    parts: [
      part('a command that is too long', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo before; echo err >&2; sleep 30; echo after',
          timeoutMs: 1000,
        });
        const startMs = performance.now();
        const done = await execute(context, action);
        const tookMs = performance.now() - startMs;
        mustRefuse(check, 'the run', failureOf(done), 'DEADLINE_EXCEEDED');
        check.must(done.code === 'OK', `told by the call instead of the response: ${done.summary}`);
        check.must(tookMs < 20_000, `${Math.round(tookMs / 1000)} s for a timeout of 1 s`);
        const stdout = await stdoutOf(context, done);
        if (stdout === '') check.choice('what was printed before the timeout is lost');
        else check.must(stdout === 'before\n', `stdout is ${JSON.stringify(stdout)}`);
        mustRefuse(check, 'GetActionResult', await get(context, action), 'NOT_FOUND');
      }),
      part('descendants that left the group', ['execution'], async (context, check) => {
        const mark = `conformance-${context.fresh(8).toString('hex')}`;
        const stubborn = 'trap "" TERM HUP INT; sleep 45';
        const script = `setsid sh -c '${stubborn}; : ${mark}' & (${stubborn}) & sleep 45`;
        const startMs = performance.now();
        const done = await execute(context, await putAction(context, { script, timeoutMs: 1000 }));
        mustRefuse(check, 'the run', failureOf(done), 'DEADLINE_EXCEEDED');
        const tookMs = performance.now() - startMs;
        check.must(tookMs < 20_000, `${Math.round(tookMs / 1000)} s for a timeout of 1 s: a descendant was waited for`);
        check.must(await processesGone(mark), 'a descendant that left its process group lives on');
      }),
      part('a command that ends in time', ['execution'], async (context, check) => {
        const done = await execute(context, await putAction(context, { script: 'sleep 0.2', timeoutMs: 20_000 }));
        check.must(failureOf(done).code === 'OK' && done.result?.exitCode === 0, done.summary);
      }),
      part('a timeout above any limit', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: 'true', timeoutMs: 1000 * 3600 * 24 * 365 * 100 });
        const failure = failureOf(await execute(context, action));
        if (failure.code === 'OK') check.choice('a timeout of a hundred years is taken');
        else mustRefuse(check, 'a hundred years', failure, 'INVALID_ARGUMENT');
      }),
      part('a negative timeout', ['execution'], async (context, check) => {
        const failure = failureOf(
          await execute(context, await putAction(context, { script: 'true', timeoutMs: -5000 })),
        );
        mustRefuse(check, 'minus five seconds', failure, 'INVALID_ARGUMENT', 'DEADLINE_EXCEEDED');
      }),
    ],
  },
  {
    id: 'P39',
    title: 'What may be cached',
    says: 'A result whose status is not OK never; one with an exit code other than 0 may be, and everybody refuses.',
    source: 'REAPI, message ExecuteResponse',
    parts: [
      part('a command that fails', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: 'echo x > out; exit 1', outputPaths: ['out'] });
        const done = await execute(context, action);
        check.must((await outputOf(context, done, 'out')) === 'x\n', 'the outputs of a failed command are lost');
        const reply = await get(context, action);
        if (reply.code === 'OK') check.choice('failures are cached');
        else mustRefuse(check, 'GetActionResult', reply, 'NOT_FOUND');
      }),
      part('a run that ended with an error', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: 'sleep 20', timeoutMs: 300 });
        await execute(context, action);
        mustRefuse(check, 'GetActionResult after a timeout', await get(context, action), 'NOT_FOUND');
      }),
    ],
  },
  {
    id: 'P40',
    title: 'Platforms',
    says: 'Action.platform decides, Command.platform for old clients; what no worker can satisfy fails at once.',
    source: 'REAPI, message Platform',
    parts: [
      part('nothing asked', ['execution'], async (context, check) => {
        const done = await execute(context, await putAction(context, { script: 'true', platform: {} }));
        check.must(failureOf(done).code === 'OK', done.summary);
      }),
      part('this machine', ['execution'], async (context, check) => {
        const properties = [{ name: 'OSFamily', value: 'linux' }];
        for (const spec of [{ platform: { properties } }, { commandPlatform: { properties } }]) {
          const done = await execute(
            context,
            await putAction(context, { script: 'true', ...spec }),
            {},
            { deadlineMs: 20_000 },
          );
          const { code } = failureOf(done);
          if (code === 'OK') check.must(done.result?.exitCode === 0, done.summary);
          else check.choice(`OSFamily=linux: ${code}`);
        }
      }),
      part('what no worker can be', ['execution'], async (context, check) => {
        for (const [what, property] of [
          ['another system', { name: 'OSFamily', value: 'amigaos' }],
          ['an unknown property', { name: 'conformance-no-such-property', value: 'x' }],
        ] as const) {
          for (const place of ['platform', 'commandPlatform'] as const) {
            const action = await putAction(context, { script: 'true', [place]: { properties: [property] } });
            const failure = failureOf(await execute(context, action, {}, { deadlineMs: 8_000 }));
            if (failure.code === 'OK') check.choice(`${what} in ${place}: ignored`);
            else
              mustRefuse(
                check,
                `${what} in ${place}`,
                failure,
                'FAILED_PRECONDITION',
                'INVALID_ARGUMENT',
                'UNAVAILABLE',
              );
          }
        }
      }),
      part('the action before the command', ['execution'], async (context, check) => {
        const impossible = { properties: [{ name: 'OSFamily', value: 'amigaos' }] };
        const refusing = failureOf(
          await execute(context, await putAction(context, { commandPlatform: impossible }), {}, { deadlineMs: 8_000 }),
        ).code;
        if (refusing === 'OK') return check.saw('platforms are ignored');
        const platform = { properties: [{ name: 'OSFamily', value: 'linux' }] };
        const done = await execute(
          context,
          await putAction(context, { script: 'true', platform, commandPlatform: impossible }),
          {},
          { deadlineMs: 8_000 },
        );
        mustBeOk(check, 'a possible action with an impossible command', failureOf(done));
      }),
    ],
  },
  {
    id: 'P41',
    title: 'The first argument',
    says: 'With a separator it is a path from the working directory, without one it is looked up in the PATH of the action.',
    source: 'REAPI, message Command, arguments',
    parts: [
      part('a path', ['execution'], async (context, check) => {
        const inputs = { dir: { dir: { 'tool.sh': { file: '#!/bin/sh\necho "tool $*"\n', executable: true } } } };
        for (const [argv0, workingDirectory] of [
          ['dir/tool.sh', ''],
          ['./tool.sh', 'dir'],
          ['../dir/tool.sh', 'dir'],
        ] as const) {
          const done = await execute(
            context,
            await putAction(context, { argv: [argv0, 'a b', '$x'], inputs, workingDirectory }),
          );
          const stdout = await stdoutOf(context, done);
          check.must(
            stdout === 'tool a b $x\n',
            `${argv0} in "${workingDirectory}": ${JSON.stringify(stdout)}, ${done.summary}`,
          );
        }
      }),
      part('a name', ['execution'], async (context, check) => {
        const done = await execute(context, await putAction(context, { argv: ['sh', '-c', 'echo found'] }));
        check.must((await stdoutOf(context, done)) === 'found\n', `sh in PATH=/usr/bin:/bin: ${done.summary}`);
      }),
      part('what does not exist', ['execution'], async (context, check) => {
        for (const argv0 of ['no-such-program', './no/such/program', '/no/such/program']) {
          const startMs = performance.now();
          const done = await execute(context, await putAction(context, { argv: [argv0] }));
          const failure = failureOf(done);
          if (failure.code === 'OK') {
            check.must((done.result?.exitCode ?? 0) !== 0, `${argv0}: taken for success`);
            check.choice(`${argv0}: exit code ${done.result?.exitCode}`);
          } else mustRefuse(check, argv0, failure, 'INVALID_ARGUMENT', 'FAILED_PRECONDITION', 'NOT_FOUND');
          check.must(performance.now() - startMs < 15_000, `${argv0}: took long, as if tried again`);
        }
      }),
      part('no arguments', ['execution'], async (context, check) => {
        const failure = failureOf(await execute(context, await putAction(context, { argv: [] })));
        mustRefuse(check, 'an empty command', failure, 'INVALID_ARGUMENT', 'FAILED_PRECONDITION');
      }),
      part('no shell in between', ['execution'], async (context, check) => {
        const odd = ['a b', "it's", '"q"', '$HOME', '*', '', '\\', 'ä\u{1f600}', 'line\nline'];
        const done = await execute(
          context,
          await putAction(context, { argv: ['/bin/sh', '-c', 'printf "%s|" "$@"', 'x', ...odd] }),
        );
        const stdout = await stdoutOf(context, done);
        check.must(
          stdout === odd.map((argument) => `${argument}|`).join(''),
          `arguments arrive as ${JSON.stringify(stdout)}`,
        );
      }),
    ],
  },
  {
    id: 'P42',
    title: 'The environment',
    says: 'The variables of the command with their values, and nothing of the server around it.',
    source: 'REAPI, message Command, environment_variables',
    parts: [
      part('nothing leaks', ['execution'], async (context, check) => {
        const done = await execute(
          context,
          await putAction(context, { script: 'env', env: { GREETING: 'hello world', EMPTY: '' } }),
        );
        const stdout = await stdoutOf(context, done);
        const variables = new Map(
          stdout
            .trim()
            .split('\n')
            .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
        );
        check.must(variables.get('GREETING') === 'hello world', 'GREETING is lost');
        check.must(variables.get('EMPTY') === '', 'an empty value is lost');
        check.must(variables.get('PATH') === '/usr/bin:/bin', `PATH is ${variables.get('PATH')}`);
        const leaked = [...variables].filter(
          ([name, value]) => serverOnly.test(name) || (value !== '' && personal.get(name) === value),
        );
        check.must(leaked.length === 0, `leaked: ${leaked.map(([name]) => name).join(' ')}`);
        const own = new Set(['GREETING', 'EMPTY', 'PATH', ...addedByShells, ...leaked.map(([name]) => name)]);
        const added = [...variables].filter(([name]) => !own.has(name)).map(([name, value]) => `${name}=${value}`);
        if (added.length > 0) check.choice(`added by the worker: ${added.join(' ')}`);
      }),
      part('the value of the command wins', ['execution'], async (context, check) => {
        const env = { HOME: '/declared', TMPDIR: '/tmp', LANG: 'C' };
        const done = await execute(context, await putAction(context, { script: 'echo $HOME $TMPDIR $LANG', env }));
        check.must(
          (await stdoutOf(context, done)) === '/declared /tmp C\n',
          JSON.stringify(await stdoutOf(context, done)),
        );
      }),
    ],
  },
  {
    id: 'P43',
    title: 'The working directory',
    says: 'It is a directory of the input tree, given as a relative path that stays inside.',
    source: 'REAPI, message Command, working_directory',
    parts: [
      part('a directory', ['execution'], async (context, check) => {
        const inputs = { a: { dir: { b: { dir: { file: 'here' } } } } };
        const action = await putAction(context, {
          script: 'cat file > out; cat file',
          inputs,
          workingDirectory: 'a/b',
          outputPaths: ['out'],
        });
        const done = await execute(context, action);
        check.must((await stdoutOf(context, done)) === 'here', `${done.summary} ${await stderrOf(context, done)}`);
        check.must(
          (await outputOf(context, done, 'out')) === 'here',
          'outputs are not relative to the working directory',
        );
      }),
      part('what is none', ['execution'], async (context, check) => {
        for (const workingDirectory of ['not/there', '/tmp', '../x', 'a/../../x', 'file']) {
          const action = await putAction(context, { script: 'true', inputs: { file: 'x' }, workingDirectory });
          const failure = failureOf(await execute(context, action));
          mustRefuse(check, `"${workingDirectory}"`, failure, 'INVALID_ARGUMENT', 'FAILED_PRECONDITION');
        }
      }),
    ],
  },
];

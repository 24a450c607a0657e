/** What is taken from a finished command: P44 to P48. */
import {
  type OutputSymlink,
  SymlinkAbsolutePathStrategy_Value,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { execute, failureOf, outputOf, putAction, stdoutOf, treeOf } from '../actions.ts';
import { mustBeOk, mustRefuse } from '../fixtures.ts';
import { type Rule, part } from '../rule.ts';

export const outputRules: readonly Rule[] = [
  {
    id: 'P44',
    title: 'Parents of outputs exist',
    says: 'The directories that outputs lie in are made before the command runs, the outputs themselves are not.',
    source: 'REAPI, message Command, output_paths, output_files, output_directories',
    parts: [
      part('output_paths', ['execution'], async (context, check) => {
        const script = 'touch out/a/b && mkdir out/d && touch out/d/f && test -d deep/er';
        const done = await execute(
          context,
          await putAction(context, { script, outputPaths: ['deep/er/x', 'out/a/b', 'out/d'] }),
        );
        check.must(done.result?.exitCode === 0, done.summary);
        check.must(done.result?.outputFiles[0]?.path === 'out/a/b', 'the file is not among the outputs');
        check.must(done.result?.outputDirectories[0]?.path === 'out/d', 'the directory is not among the outputs');
      }),
      part('output_files', ['execution'], async (context, check) => {
        const done = await execute(
          context,
          await putAction(context, { script: 'touch out/a/b', outputFiles: ['out/a/b'] }),
        );
        check.must(done.result?.exitCode === 0, done.summary);
      }),
      part('output_directories', ['execution'], async (context, check) => {
        const script = 'test -d out && if test -e out/d; then echo made; else mkdir out/d; fi';
        const done = await execute(context, await putAction(context, { script, outputDirectories: ['out/d'] }));
        check.must(done.result?.exitCode === 0, done.summary);
        if ((await stdoutOf(context, done)) === 'made\n') check.choice('output_directories are made before the run');
      }),
      part('in a working directory', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo x > out/f && echo y > ../beside',
          inputs: { w: { dir: { keep: '' } } },
          workingDirectory: 'w',
          outputPaths: ['out/f'],
        });
        const done = await execute(context, action);
        check.must((await outputOf(context, done, 'out/f')) === 'x\n', done.summary);
      }),
    ],
  },
  {
    id: 'P45',
    title: 'output_paths come first',
    says: 'Where output_paths is set the two older fields count for nothing; where it is not they are served.',
    source: 'REAPI, message Command, output_paths',
    parts: [
      part('both', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo a > a; echo b > b; mkdir c',
          outputPaths: ['a'],
          outputFiles: ['b'],
          outputDirectories: ['c'],
        });
        const { result, summary } = await execute(context, action);
        check.must(
          result?.outputFiles.map((file) => file.path).join() === 'a',
          `files ${result?.outputFiles.map((file) => file.path).join()}, ${summary}`,
        );
        check.must(result?.outputDirectories.length === 0, 'output_directories was served too');
      }),
      part('the older fields alone', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo b > b; mkdir c; echo d > c/d',
          outputFiles: ['b'],
          outputDirectories: ['c'],
        });
        const done = await execute(context, action);
        check.must((await outputOf(context, done, 'b')) === 'b\n', `the file: ${done.summary}`);
        const tree = await treeOf(context, done, 'c');
        check.must(tree?.tree.root?.files[0]?.name === 'd', 'the directory');
      }),
    ],
  },
  {
    id: 'P46',
    title: 'Outputs that are not there',
    says: 'A missing output is left out without an error; one of the wrong kind under an older field is FAILED_PRECONDITION.',
    source: 'REAPI, message ActionResult, output_files and output_directories',
    parts: [
      part('missing', ['execution'], async (context, check) => {
        for (const spec of [
          { outputPaths: ['a', 'gone'] },
          { outputFiles: ['a', 'gone'], outputDirectories: ['lost'] },
        ]) {
          const done = await execute(context, await putAction(context, { script: 'echo a > a', ...spec }));
          if (!mustBeOk(check, JSON.stringify(spec), failureOf(done))) continue;
          check.must(done.result?.outputFiles.length === 1, `${done.result?.outputFiles.length} files`);
          check.must(done.result?.outputDirectories.length === 0, 'a directory that is not there');
        }
      }),
      part('of the wrong kind', ['execution'], async (context, check) => {
        for (const [what, spec] of [
          ['a directory in output_files', { script: 'mkdir a', outputFiles: ['a'] }],
          ['a file in output_directories', { script: 'echo x > a', outputDirectories: ['a'] }],
        ] as const) {
          const failure = failureOf(await execute(context, await putAction(context, spec)));
          mustRefuse(check, what, failure, 'FAILED_PRECONDITION', 'INVALID_ARGUMENT');
        }
      }),
      part('of any kind under output_paths', ['execution'], async (context, check) => {
        const script = 'mkdir d; echo x > f; ln -s f l';
        const { result, summary } = await execute(
          context,
          await putAction(context, { script, outputPaths: ['d', 'f', 'l'] }),
        );
        const counts = [result?.outputDirectories.length, result?.outputFiles.length, result?.outputSymlinks.length];
        check.must(counts.join() === '1,1,1', `${counts.join()} directories, files, links: ${summary}`);
      }),
      part('everything below the root', ['execution'], async (context, check) => {
        const action = await putAction(context, { script: 'echo x > f', inputs: { in: 'i' }, outputPaths: [''] });
        const done = await execute(context, action);
        const names = (await treeOf(context, done, ''))?.tree.root?.files.map((file) => file.name).join();
        if (failureOf(done).code !== 'OK') mustRefuse(check, 'the path ""', failureOf(done), 'INVALID_ARGUMENT');
        else check.must(names === 'f,in', `the whole working directory has ${names}`);
      }),
    ],
  },
  {
    id: 'P47',
    title: 'Symbolic links among outputs',
    says: 'A link is one entry with its raw target and is not followed: in output_symlinks for output_paths, by kind for the older fields.',
    source: 'REAPI, message ActionResult, output_symlinks',
    parts: [
      part('output_paths', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo x > f; mkdir d; ln -s f to-file; ln -s d to-dir; ln -s nowhere dangling; ln -s ./../x/./y odd',
          outputPaths: ['dangling', 'odd', 'to-dir', 'to-file'],
        });
        const { result, summary } = await execute(context, action);
        check.must(
          links(result?.outputSymlinks) === 'dangling>nowhere odd>./../x/./y to-dir>d to-file>f',
          `${links(result?.outputSymlinks)}; ${summary}`,
        );
        check.must(result?.outputFiles.length === 0 && result.outputDirectories.length === 0, 'a link was followed');
        const old = [...(result?.outputFileSymlinks ?? []), ...(result?.outputDirectorySymlinks ?? [])];
        if (old.length > 0) check.choice('the older lists are filled too');
      }),
      part('the older fields', ['execution'], async (context, check) => {
        const action = await putAction(context, {
          script: 'echo x > f; mkdir d; ln -s f to-file; ln -s d to-dir; ln -s nowhere dangling',
          outputFiles: ['dangling', 'to-file'],
          outputDirectories: ['to-dir'],
        });
        const { result, summary } = await execute(context, action);
        check.must(
          links(result?.outputFileSymlinks) === 'dangling>nowhere to-file>f',
          `file links ${links(result?.outputFileSymlinks)}; ${summary}`,
        );
        check.must(
          links(result?.outputDirectorySymlinks) === 'to-dir>d',
          `directory links ${links(result?.outputDirectorySymlinks)}`,
        );
        check.must(result?.outputFiles.length === 0 && result.outputDirectories.length === 0, 'a link was followed');
        if ((result?.outputSymlinks.length ?? 0) > 0) check.choice('output_symlinks is filled too');
      }),
      part('inside a directory', ['execution'], async (context, check) => {
        const script = 'mkdir d; echo x > d/f; ln -s f d/file; ln -s .. d/up; ln -s gone d/dangling';
        const done = await execute(context, await putAction(context, { script, outputPaths: ['d'] }));
        const root = (await treeOf(context, done, 'd'))?.tree.root;
        const found = root?.symlinks.map((link) => `${link.name}>${link.target}`).join(' ');
        check.must(found === 'dangling>gone file>f up>..', `links ${found}; ${done.summary}`);
        check.must(root?.files.length === 1, `${root?.files.length} files instead of 1`);
      }),
      part('among inputs', ['execution'], async (context, check) => {
        const inputs = {
          d: { dir: { f: 'content' } },
          link: { link: 'd/f' },
          dirlink: { link: 'd' },
          dangling: { link: 'gone' },
        };
        const done = await execute(
          context,
          await putAction(context, { script: 'cat link dirlink/f; readlink dangling link', inputs }),
        );
        check.must(
          (await stdoutOf(context, done)) === 'contentcontentgone\nd/f\n',
          `${await stdoutOf(context, done)}; ${done.summary}`,
        );
      }),
    ],
  },
  {
    id: 'P48',
    title: 'Absolute links',
    says: 'Where the server disallows them an input link is INVALID_ARGUMENT and an output link FAILED_PRECONDITION; where it allows them they stay as they are.',
    source: 'REAPI, SymlinkAbsolutePathStrategy',
    parts: [
      part('as advertised', ['execution'], async (context, check) => {
        const strategy = context.capabilities.cacheCapabilities?.symlinkAbsolutePathStrategy;
        const outside = await putAction(context, { script: 'ln -s /etc/passwd l', outputPaths: ['l'] });
        const nested = await putAction(context, { script: 'mkdir d; ln -s /etc/passwd d/l', outputPaths: ['d'] });
        const input = await putAction(context, { script: 'readlink l', inputs: { l: { link: '/etc/passwd' } } });
        if (strategy === SymlinkAbsolutePathStrategy_Value.ALLOWED) {
          check.choice('allowed');
          const done = await execute(context, outside);
          const { result } = done;
          check.must(links(result?.outputSymlinks) === 'l>/etc/passwd', `output: ${done.summary}`);
          const tree = await treeOf(context, await execute(context, nested), 'd');
          check.must(tree?.tree.root?.symlinks[0]?.target === '/etc/passwd', 'inside a directory: the link is lost');
          const read = await stdoutOf(context, await execute(context, input));
          check.must(read === '/etc/passwd\n', `input: ${JSON.stringify(read)}`);
        } else {
          check.choice('disallowed');
          mustRefuse(check, 'output', failureOf(await execute(context, outside)), 'FAILED_PRECONDITION');
          mustRefuse(
            check,
            'output inside a directory',
            failureOf(await execute(context, nested)),
            'FAILED_PRECONDITION',
          );
          mustRefuse(
            check,
            'input',
            failureOf(await execute(context, input)),
            'INVALID_ARGUMENT',
            'FAILED_PRECONDITION',
          );
        }
      }),
    ],
  },
];

function links(symlinks: readonly OutputSymlink[] | undefined): string {
  return (symlinks ?? [])
    .map((link) => `${link.path}>${link.target}`)
    .toSorted()
    .join(' ');
}

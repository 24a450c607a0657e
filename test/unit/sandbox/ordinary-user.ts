/** Started by containment.test.ts under an ordinary user's id: attacks its own store and prints what became of it. */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import {
  ActionSchema,
  CommandSchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { createSandbox } from '../../../sandbox/create-sandbox.ts';
import { attacksOnInputs } from './attacks.ts';
import { addTree, attackedTree, createTestBlobs } from './support.ts';

const directory = mkdtempSync(join(tmpdir(), 'potluck-ordinary-'));
try {
  mkdirSync(join(directory, 'work'));
  const blobs = createTestBlobs(join(directory, 'blobs'));
  const sandbox = await createSandbox({ workDir: join(directory, 'work'), blobs });
  const inputRoot = addTree(blobs, attackedTree);
  const snapshot = () =>
    Object.fromEntries(
      readdirSync(blobs.directory).map((name) => {
        const path = join(blobs.directory, name);
        return [name, [readFileSync(path, 'base64').slice(0, 64), statSync(path).mode, statSync(path).size]];
      }),
    );
  const run = (script: string) =>
    sandbox.run(
      {
        fn: 'sha256',
        action: create(ActionSchema),
        command: create(CommandSchema, { arguments: ['/bin/sh', '-c', script], outputPaths: ['out/nothing'] }),
        inputRoot,
        timeoutMs: 30_000,
      },
      { signal: new AbortController().signal },
    );
  await run('cat in/f big');
  const before = snapshot();
  const { result } = await run(`${attacksOnInputs}\nmkdir -p locked/a; chmod 0 locked/a locked; exit 7`);
  const after = Object.fromEntries(Object.entries(snapshot()).filter(([name]) => name in before));
  const limit = await run("grep '^Max processes' /proc/self/limits | tr -s ' ' | cut -d' ' -f3");
  const files = await run('for file in 20 200; do readlink /proc/self/fd/$file; done');
  const described = sandbox.describe();
  await sandbox.close();
  chmodSync(directory, 0o755);
  console.log(
    JSON.stringify({
      ...described,
      exitCode: result.exitCode,
      inherited: files.result.stdoutDigest ? blobs.text(files.result.stdoutDigest) : '',
      processes: blobs.text(limit.result.stdoutDigest),
      unchanged: JSON.stringify(before) === JSON.stringify(after),
      left: readdirSync(join(directory, 'work')).flatMap((name) => readdirSync(join(directory, 'work', name))),
    }),
  );
} finally {
  rmSync(directory, { recursive: true, force: true });
}

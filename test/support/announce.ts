/** Says, before the tests and after them, what this machine lacks and which tests are skipped for it. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

interface Helper {
  readonly unchecked: string;
  readonly remedy: string;
  present(): boolean;
}

const runs = (program: string, ...args: string[]): boolean =>
  spawnSync(program, args, { stdio: 'ignore' }).status === 0;

const helpers: readonly Helper[] = [
  {
    unchecked: 'that actions are isolated from the machine and from each other (bubblewrap is missing)',
    remedy: 'Linux only: apt-get install bubblewrap, dnf install bubblewrap, or pacman -S bubblewrap',
    present: () => runs('bwrap', '--version'),
  },
  {
    unchecked: 'that isolation works (bubblewrap is there, but may not make namespaces)',
    remedy: 'npm run potluck -- doctor says what forbids it',
    present: () => !runs('bwrap', '--version') || runs('bwrap', '--unshare-all', '--ro-bind', '/', '/', 'true'),
  },
  {
    unchecked: 'builds with Bazel (a C++ compiler is missing)',
    remedy: 'apt-get install g++, dnf install gcc-c++, or xcode-select --install',
    present: () => runs('g++', '--version'),
  },
  {
    unchecked: 'builds with Bazel 4.2.3',
    remedy:
      'Debian only: apt-get install bazel-bootstrap bazel-platforms bazel-rules-cc bazel-rules-java bazel-rules-proto bazel-skylib',
    present: () => existsSync('/usr/share/bazel/rules/cc') && existsSync('/usr/bin/bazel'),
  },
  {
    unchecked: 'the page about a scenario in a browser (Chromium is missing)',
    remedy: 'apt-get install chromium',
    present: () => runs('chromium', '--version'),
  },
  {
    unchecked: 'TLS (openssl makes the certificates)',
    remedy: 'install openssl',
    present: () => runs('openssl', 'version'),
  },
];

export default function announce(): (() => void) | undefined {
  const lacking = helpers.filter((helper) => !helper.present());
  if (lacking.length === 0) return undefined;
  const say = (): void => {
    console.log('\nNot checked on this machine:');
    for (const { unchecked, remedy } of lacking) console.log(`  - ${unchecked}\n      ${remedy}`);
    console.log('');
  };
  say();
  return say;
}

/**
 * Writes a C++ workspace that Bazel 2.1 to 4.2 build without any download: libraries that use one another, programs, tests,
 * generated sources, a tree artifact, a shell test, a large output.
 */
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

const libraryCount = 14;
const sourcesPerLibrary = 4;
/** Every library has an archive, a test program and its run beside its sources. */
export const actionsMin = 100;

/** The rules that `@bazel_tools` loads from elsewhere, as forwarders to the built-in ones. */
const forwarders = (names: readonly string[]) =>
  names.map((name) => `def ${name}(**kwargs):\n    native.${name}(**kwargs)\n`).join('\n');

const stubs: Readonly<Record<string, string>> = {
  'stubs/rules_cc/WORKSPACE': 'workspace(name = "rules_cc")\n',
  'stubs/rules_cc/BUILD': '',
  'stubs/rules_cc/cc/BUILD': '',
  'stubs/rules_cc/cc/defs.bzl': forwarders([
    'cc_library',
    'cc_binary',
    'cc_test',
    'cc_import',
    'cc_toolchain',
    'cc_toolchain_suite',
    'cc_proto_library',
    'objc_library',
  ]),
  'stubs/rules_java/WORKSPACE': 'workspace(name = "rules_java")\n',
  'stubs/rules_java/BUILD': '',
  'stubs/rules_java/java/BUILD': '',
  'stubs/rules_java/java/defs.bzl': forwarders([
    'java_library',
    'java_binary',
    'java_import',
    'java_runtime',
    'java_toolchain',
    'java_test',
  ]),
  'stubs/coverage/WORKSPACE': 'workspace(name = "remote_coverage_tools")\n',
  'stubs/coverage/noop.sh': '#!/bin/sh\nexit 0\n',
  'stubs/coverage/BUILD':
    'package(default_visibility = ["//visibility:public"])\n' +
    'filegroup(name = "coverage_report_generator", srcs = ["noop.sh"])\n' +
    'filegroup(name = "lcov_merger", srcs = ["noop.sh"])\n',
};

function project(): Record<string, string> {
  const files: Record<string, string> = { WORKSPACE: 'workspace(name = "demo")\n' };
  for (let lib = 0; lib < libraryCount; lib++) {
    const uses = lib === 0 ? [] : [lib - 1];
    const dir = `lib${lib}`;
    files[`${dir}/api.h`] =
      `#pragma once\n${uses.map((u) => `#include "lib${u}/api.h"\n`).join('')}` +
      `${range(sourcesPerLibrary, (s) => `int lib${lib}_part${s}(int x);\n`)}int lib${lib}_sum(int x);\n`;
    for (let s = 0; s < sourcesPerLibrary; s++) {
      files[`${dir}/part${s}.cc`] =
        `#include "${dir}/api.h"\nint lib${lib}_part${s}(int x) { return x * ${lib + 1} + ${s}; }\n` +
        (s > 0
          ? ''
          : `int lib${lib}_sum(int x) { return ${range(sourcesPerLibrary, (p) => `lib${lib}_part${p}(x) + `)}` +
            `${uses.map((u) => `lib${u}_sum(x) + `).join('')}0; }\n`);
    }
    files[`${dir}/check.cc`] =
      `#include "${dir}/api.h"\n#include "gen/table.h"\nint main() { return lib${lib}_sum(1) > 0 && table_size == 64 ? 0 : 1; }\n`;
    files[`${dir}/BUILD`] =
      'package(default_visibility = ["//visibility:public"])\n' +
      `cc_library(name = "${dir}", srcs = glob(["part*.cc"]), hdrs = ["api.h"], deps = [${uses.map((u) => `"//lib${u}"`).join(', ')}])\n` +
      `cc_test(name = "check", size = "small", srcs = ["check.cc"], deps = [":${dir}", "//gen:table"])\n`;
  }
  files['gen/BUILD'] =
    'load(":tree.bzl", "tree", "listing")\n' +
    'package(default_visibility = ["//visibility:public"])\n' +
    'genrule(name = "header", srcs = ["seed.txt"], outs = ["table.h"], ' +
    `cmd = "echo '#pragma once' > $@; echo 'static const int table_size = 64;' >> $@; sed 's,^,// ,' $(location seed.txt) >> $@")\n` +
    'cc_library(name = "table", hdrs = ["table.h"])\n' +
    'genrule(name = "many", outs = ["out%d.txt" % i for i in range(40)], cmd = "for o in $(OUTS); do basename $$o > $$o; done")\n' +
    'genrule(name = "large", outs = ["large.bin"], cmd = "head -c 20000000 /dev/zero | tr \'\\\\000\' x > $@")\n' +
    'genrule(name = "tool_user", outs = ["used.txt"], tools = ["//app:main"], cmd = "$(location //app:main) > $@")\n' +
    'tree(name = "tree")\nlisting(name = "listing", tree = ":tree")\n';
  files['gen/seed.txt'] = 'seed\n';
  files['gen/tree.bzl'] = `def _tree(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(outputs = [out], command = """
set -e
mkdir -p $1/deep/er $1/empty
echo one > $1/deep/one.txt
echo two > "$1/deep/er/two with space é.txt"
: > $1/zero
printf '#!/bin/sh\\necho hi\\n' > $1/tool.sh
chmod +x $1/tool.sh
ln -s deep/one.txt $1/link
""", arguments = [out.path])
    return [DefaultInfo(files = depset([out]))]

tree = rule(implementation = _tree)

def _listing(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.run_shell(
        inputs = ctx.files.tree,
        outputs = [out],
        # Empty directories do not reach the next action, and these Bazels re-encode names that are not ASCII.
        command = "(cd $1 && find . ! -type d ! -name 'two*' | LC_ALL=C sort && cat link && ./tool.sh) > $2",
        arguments = [ctx.files.tree[0].path, out.path],
    )
    return [DefaultInfo(files = depset([out]))]

listing = rule(implementation = _listing, attrs = {"tree": attr.label()})
`;
  files['app/BUILD'] =
    'package(default_visibility = ["//visibility:public"])\n' +
    `cc_binary(name = "main", srcs = ["main.cc"], deps = ["//lib${libraryCount - 1}"])\n` +
    'sh_test(name = "runs", size = "small", srcs = ["runs.sh"], data = [":main"])\n';
  files['app/main.cc'] =
    `#include <cstdio>\n#include "lib${libraryCount - 1}/api.h"\nint main() { std::printf("%d\\n", lib${libraryCount - 1}_sum(1)); }\n`;
  files['app/runs.sh'] = '#!/bin/sh\nout=$(app/main) && [ "$out" -gt 0 ]\n';
  return files;
}

/** Writes the workspace and a bazelrc for the given generation of Bazel; resolves to the rc file's path. */
export async function writeCppProject(
  dir: string,
  rules: { readonly from: 'stubs' } | { readonly from: 'debian' },
): Promise<string> {
  const files = { ...project(), ...stubs };
  if (rules.from === 'stubs') {
    files.WORKSPACE +=
      'local_repository(name = "rules_cc", path = "stubs/rules_cc")\n' +
      'local_repository(name = "rules_java", path = "stubs/rules_java")\n' +
      'local_repository(name = "remote_coverage_tools", path = "stubs/coverage")\n';
  }
  files['.bazelignore'] = 'stubs\n';
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(dir, path)), { recursive: true });
    await writeFile(join(dir, path), text, { mode: path.endsWith('.sh') ? 0o755 : 0o644 });
  }
  const rc = ['common --color=no --curses=no', 'build --show_progress_rate_limit=60'];
  if (rules.from === 'debian') {
    const cc = join(dir, '..', `rules_cc-${dir.split('/').at(-1)}`);
    await cp('/usr/share/bazel/rules/cc', cc, { recursive: true, dereference: true });
    // Debian packages rules a little newer than its Bazel: two files use a helper that Bazel does not have yet.
    for (const name of ['compiler_flag', 'cc_flags_supplier']) {
      const path = join(cc, 'cc/private/rules_impl', `${name}.bzl`);
      const text = await readFile(path, 'utf8');
      await writeFile(
        path,
        text
          .replace(', "use_cpp_toolchain")', ')')
          .replace(/toolchains = use_cpp_toolchain\(\),.*/, 'toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],'),
      );
    }
    rc.push(
      `common --override_repository=rules_cc=${cc}`,
      'common --override_repository=rules_java=/usr/share/bazel/rules/java',
      `common --override_repository=remote_coverage_tools=${join(dir, 'stubs/coverage')}`,
    );
  }
  const path = join(dir, 'offline.bazelrc');
  await writeFile(path, `${rc.join('\n')}\n`);
  return path;
}

function range(count: number, each: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => each(index)).join('');
}

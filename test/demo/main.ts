/** `npm run demo`: the office of office.ts, told as it happens, with a table at the end. Exit status 1 when it did not work. */
import { bazelVersions } from '../e2e/bazel.ts';
import { megabytes, playOffice } from './office.ts';

const bazel = bazelVersions.find(({ missing }) => missing === undefined);
if (!bazel) {
  console.error('The demo builds a C++ project with Bazel, which cannot run here:');
  for (const { name, missing } of bazelVersions) console.error(`  ${name}: ${missing}`);
  process.exit(2);
}
const started = performance.now();
const report = await playOffice(bazel, ['//...'], (sentence) => {
  console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${sentence}`);
}).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
});
const columns = ['build', 'seconds', 'from cache', 'ran here', 'ran elsewhere', 'from other machines'];
const rows = report.builds.map((row) => [
  row.what,
  row.seconds.toFixed(1),
  String(row.hits),
  String(row.ran - row.ranElsewhere),
  String(row.ranElsewhere),
  megabytes(row.receivedBytes),
]);
const widths = columns.map((column, at) => Math.max(column.length, ...rows.map((row) => (row[at] as string).length)));
console.log('');
for (const row of [columns, ...rows]) {
  console.log(
    row
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at] as number) : cell.padStart(widths[at] as number)))
      .join('  '),
  );
}

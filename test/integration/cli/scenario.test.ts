import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openScratch, potluck } from './potluck.ts';

const small = `title: three desks
sites: { office: {} }
nodes: { desk: { site: office, count: 3, slots: 2 } }
workload:
  graphs: { app: { actions: 24, duration: 300ms } }
  builds: [{ node: desk-1, graph: app }]
expect: { speedup: { atLeast: 1.5 }, lostActions: { atMost: 0 } }
`;

async function open(): Promise<Awaited<ReturnType<typeof openScratch>> & { readonly file: string }> {
  const scratch = await openScratch();
  const file = join(scratch.dir, 'small.yaml');
  await writeFile(file, small);
  return { ...scratch, file };
}

describe('potluck sim with scenarios', () => {
  test('runs one, tells what held, and writes the page', async () => {
    await using scratch = await open();
    const html = join(scratch.dir, 'page.html');
    const { exitCode, stdout } = await potluck(['sim', 'run', '--scenario', scratch.file, '--html', html]);
    expect(stdout).toMatch(/^three desks: 3 nodes, seed 1/);
    expect(stdout).toMatch(/holds {2}speedup at least 1\.50×: \d/);
    expect(exitCode).toBe(0);
    expect(await readFile(html, 'utf8')).toMatch(/^<!doctype html>.*three desks.*<\/html>\n$/s);
  });

  test('a broken expectation is exit status 1, also as JSON', async () => {
    await using scratch = await open();
    await writeFile(scratch.file, small.replace('atLeast: 1.5', 'atLeast: 50'));
    const { exitCode, stdout } = await potluck(['sim', 'run', '--scenario', scratch.file, '--json']);
    expect(exitCode).toBe(1);
    const report = JSON.parse(stdout) as { holds: boolean; expectations: { metric: string; holds: boolean }[] };
    expect(report.holds).toBe(false);
    expect(report.expectations.filter(({ holds }) => !holds).map(({ metric }) => metric)).toEqual(['speedup']);
  });

  test.each([
    [
      'a mistake in the file',
      ['run'],
      'slots:',
      'slot:',
      /small\.yaml:3:42: no such key "slot" in a node; did you mean "slots"\?/,
    ],
    ['a file that is not there', ['run'], '', '', /gone\.yaml cannot be read \(ENOENT\)/],
    [
      'a key that cannot be varied',
      ['sweep', '--vary', 'node.desk.slot=1,2'],
      '',
      '',
      /"slot" is no key of a node; did you mean "slots"\?/,
    ],
    ['values that are none', ['sweep', '--vary', 'node.desk.slots=4..1'], '', '', /must be a range such as 10\.\.1000/],
    ['no key to vary', ['sweep'], '', '', /needs --vary KEY=VALUES/],
    ['flags of drawn meshes', ['run', '--nodes', '4'], '', '', /--nodes does not go with --scenario/],
  ])('%s is exit status 2 and one line', async (what, words, from, to, message) => {
    await using scratch = await open();
    await writeFile(scratch.file, small.replace(from, to));
    const file = what.includes('not there') ? join(scratch.dir, 'gone.yaml') : scratch.file;
    const { exitCode, stdout, stderr } = await potluck(['sim', ...words, '--scenario', file]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });

  test('sweeps a key over values, one row each', async () => {
    await using scratch = await open();
    const words = ['sim', 'sweep', '--scenario', scratch.file, '--vary', 'node.desk.slots=1..3', '--steps', '3'];
    const { exitCode, stdout } = await potluck(words);
    expect(exitCode).toBe(0);
    const rows = stdout.trim().split('\n');
    expect(rows[0]).toMatch(/^node\.desk\.slots +a build +speedup +hit rate +elsewhere +expectations$/);
    expect(rows.slice(1).map((row) => row.split(' ')[0])).toEqual(['1', '2', '3']);
  });

  test('compares a saved report with a scenario', async () => {
    await using scratch = await open();
    const saved = join(scratch.dir, 'before.json');
    await writeFile(saved, (await potluck(['sim', 'run', '--scenario', scratch.file, '--json'])).stdout);
    const after = join(scratch.dir, 'after.yaml');
    await writeFile(
      after,
      small.replace('count: 3', 'count: 1').replace('node: desk-1', 'node: desk').replace('atLeast: 1.5', 'atMost: 2'),
    );
    const { exitCode, stdout } = await potluck(['sim', 'compare', saved, after]);
    expect(stdout).toMatch(/buildTime .* \+\d+%/);
    expect(stdout).toMatch(/lostActions +0 +0 +same/);
    expect(exitCode).toBe(0);
    const wrong = await potluck(['sim', 'compare', saved, join(scratch.dir, 'nothing.json')]);
    expect(wrong.exitCode).toBe(2);
  });
});

import { describe, expect, test } from 'vitest';
import { readArgs } from '../../../../node/cli/args.ts';

const flags = {
  json: { about: '' },
  slots: { value: 'COUNT', about: '' },
  listen: { value: 'ADDRESS', about: '', list: true },
  input: { value: 'GLOB', about: '', variadic: true },
};
const read = (words: string) => readArgs(words.split(' ').filter(Boolean), flags, { positionalsMax: 0 });
const ok = (words: string) => {
  const result = read(words);
  if ('problems' in result) throw new Error(result.problems.join('; '));
  return result.args;
};
const problems = (words: string) => {
  const result = read(words);
  return 'problems' in result ? result.problems : [];
};

describe('what is read', () => {
  test('switches, values, repeated values, and the words after --', () => {
    const args = ok('--json --slots 3 --listen a --listen=b -- sh -c --json');
    expect(args.switches).toEqual(new Set(['json']));
    expect(args.values).toEqual(
      new Map([
        ['slots', ['3']],
        ['listen', ['a', 'b']],
      ]),
    );
    expect(args.rest).toEqual(['sh', '-c', '--json']);
  });

  test('all words after a variadic flag, as a shell expands a glob', () => {
    const args = ok('--input a.c b.c --json --input c.c -- cc');
    expect(args.values.get('input')).toEqual(['a.c', 'b.c', 'c.c']);
    expect(args.rest).toEqual(['cc']);
  });

  test('no -- means no rest', () => {
    expect(ok('--json').rest).toBeUndefined();
    expect(ok('--json --').rest).toEqual([]);
  });
});

describe('what is refused', () => {
  test('everything wrong at once, with the flag that was meant', () => {
    expect(problems('--slot 3 --json=yes stray --slots')).toEqual([
      '--slot: no such flag; did you mean --slots?',
      '--json: takes no value',
      expect.stringContaining('--slots: needs a value'),
      '"stray": not expected here',
    ]);
  });

  test('a flag in the place of a value, and a value given twice', () => {
    expect(problems('--slots --json')).toEqual([expect.stringContaining('--slots: needs a value')]);
    expect(problems('--slots 1 --slots 2')).toEqual(['--slots: given more than once']);
  });

  test('nothing when help is asked for', () => {
    expect(problems('--what --help')).toEqual([]);
  });
});

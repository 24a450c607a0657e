import { expect, test } from 'vitest';
import { judge, type Run } from '../../../../../node/builds/audit/judge.ts';

const run = (node: string, fingerprint: string, isUpload = false): Run => ({ node, fingerprint, isUpload });

test('what comes out the same is the same, whoever ran it', () => {
  expect(judge('me', run('anna', 'x'), run('me', 'x'), undefined)).toEqual({ kind: 'same' });
});

test('one run that differs drops nothing', () => {
  expect(judge('me', run('anna', 'x'), run('me', 'y'), undefined)).toEqual({ kind: 'unconfirmed' });
  expect(judge('me', run('anna', 'x'), run('ben', 'y'), undefined)).toEqual({ kind: 'unconfirmed' });
});

test('a third run that agrees with what was known clears it', () => {
  expect(judge('me', run('anna', 'x'), run('ben', 'y'), run('cora', 'x'))).toEqual({ kind: 'refuted' });
  expect(judge('me', run('anna', 'x'), run('me', 'y'), run('ben', 'x'))).toEqual({ kind: 'refuted' });
});

test('two others with other outputs convince everybody; their own difference tells that nobody can know', () => {
  const known = run('anna', 'x');
  expect(judge('me', known, run('me', 'y'), run('ben', 'y'))).toEqual({
    kind: 'wrong',
    nonDeterministic: false,
    everywhere: true,
  });
  expect(judge('me', known, run('ben', 'y'), run('cora', 'z'))).toEqual({
    kind: 'wrong',
    nonDeterministic: true,
    everywhere: true,
  });
});

test('two runs of one member are the word of one', () => {
  expect(judge('me', run('anna', 'x'), run('ben', 'y'), run('ben', 'y'))).toEqual({ kind: 'unconfirmed' });
  // Nor does who made the result count again.
  expect(judge('me', run('anna', 'x'), run('ben', 'y'), run('anna', 'z'))).toEqual({ kind: 'unconfirmed' });
});

test('a node believes its own eyes, for itself alone', () => {
  expect(judge('me', run('anna', 'x'), run('me', 'y'), run('me', 'y'))).toEqual({
    kind: 'wrong',
    nonDeterministic: false,
    everywhere: false,
  });
  expect(judge('me', run('anna', 'x'), run('me', 'y'), run('me', 'x'))).toMatchObject({
    kind: 'wrong',
    nonDeterministic: true,
    everywhere: false,
  });
  expect(judge('me', run('me', 'x'), run('me', 'y'), undefined)).toMatchObject({ nonDeterministic: true });
});

test('what a client brought is no run of the node that took it', () => {
  expect(judge('me', run('me', 'x', true), run('me', 'y'), undefined)).toEqual({ kind: 'unconfirmed' });
  expect(judge('me', run('me', 'x', true), run('me', 'y'), run('me', 'y'))).toMatchObject({
    kind: 'wrong',
    nonDeterministic: false,
  });
});

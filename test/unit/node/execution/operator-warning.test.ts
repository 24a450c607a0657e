import { expect, test } from 'vitest';
import type { ExecutionEvent } from '../../../../node/execution/executor.ts';
import { operatorWarning } from '../../../../node/execution/operator-warning.ts';
import { digestOf } from '../../../../protos/hasher.ts';
import { type Code, StatusError } from '../../../../protos/status.ts';

const action = digestOf('sha256', Buffer.from('action'));
const ended = (code: Code, retried = false): ExecutionEvent => ({
  kind: 'run-ended',
  instance: '',
  action,
  outcome: 'error',
  retried,
  queuedMs: 0,
  runMs: 0,
  phaseMs: new Map(),
  error: new StatusError(code, 'because'),
});

test('the operator hears what this machine could not do, and what happens next', () => {
  const warning = operatorWarning(ended('RESOURCE_EXHAUSTED'));
  expect(warning).toContain(action.hash);
  expect(warning).toContain('because');
  expect(warning).toContain('told');
  expect(operatorWarning(ended('INTERNAL', true))).toContain('tried again');
});

test('the operator does not hear what clients did wrong', () => {
  for (const code of ['INVALID_ARGUMENT', 'FAILED_PRECONDITION', 'CANCELLED'] as const) {
    expect(operatorWarning(ended(code))).toBeUndefined();
  }
  expect(operatorWarning({ kind: 'merged', instance: '' })).toBeUndefined();
});

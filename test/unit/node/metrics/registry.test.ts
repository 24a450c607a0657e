import { expect, test } from 'vitest';
import { createRegistry } from '../../../../node/metrics/registry.ts';

test('the text is that of Prometheus', () => {
  const registry = createRegistry();
  const calls = registry.counter('calls_total', 'Calls.', ['code']);
  const refused = registry.counter('refused_total', 'Refused.');
  registry.read('gauge', 'load', 'Load.', () => [{ labels: { quantile: 0.5 }, value: 1.25 }]);
  calls.inc({ code: 'OK' });
  calls.inc({ code: 'OK' }, 2);
  calls.inc({ code: 'a"b\\c\nd' });
  expect(registry.text()).toBe(`# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{code="OK"} 3
calls_total{code="a\\"b\\\\c\\nd"} 1

# HELP refused_total Refused.
# TYPE refused_total counter
refused_total 0

# HELP load Load.
# TYPE load gauge
load{quantile="0.5"} 1.25
`);
  refused.inc({});
  expect(registry.text()).toContain('\nrefused_total 1\n');
});

test('a bucket counts what is not above its bound, and all below it', () => {
  const registry = createRegistry();
  const seconds = registry.histogram('wait_seconds', 'Wait.', ['phase'], [0.1, 1]);
  for (const value of [0.05, 0.1, 0.5, 7]) seconds.observe({ phase: 'run' }, value);
  expect(registry.text().split('\n').slice(2)).toEqual([
    'wait_seconds_bucket{phase="run",le="0.1"} 2',
    'wait_seconds_bucket{phase="run",le="1"} 3',
    'wait_seconds_bucket{phase="run",le="+Inf"} 4',
    'wait_seconds_sum{phase="run"} 7.65',
    'wait_seconds_count{phase="run"} 4',
    '',
  ]);
});

test('values of labels cannot run into each other', () => {
  const registry = createRegistry();
  const calls = registry.counter('calls_total', 'Calls.', ['a', 'b']);
  calls.inc({ a: 'x', b: 'yz' });
  calls.inc({ a: 'xy', b: 'z' });
  expect(registry.text()).toContain('calls_total{a="x",b="yz"} 1\ncalls_total{a="xy",b="z"} 1\n');
});

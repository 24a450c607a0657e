import { create } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { createPlatformOffer, machineProperties } from '../../../../node/execution/platform.ts';
import { PlatformSchema } from '../../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';

const offer = createPlatformOffer([
  { name: 'Pool', value: 'gpu' },
  { name: 'container-image', value: 'docker://ours' },
]);
const wanted = (...properties: [name: string, value: string][]) =>
  create(PlatformSchema, { properties: properties.map(([name, value]) => ({ name, value })) }).properties;

describe('what is satisfied', () => {
  test('nothing asked for', () => expect(() => offer.check([], 'here')).not.toThrow());

  test('what this machine is', () => {
    const own = machineProperties();
    expect(own.map(({ name }) => name)).toContain('OSFamily');
    expect(() =>
      offer.check(wanted(...own.map(({ name, value }): [string, string] => [name, value])), 'here'),
    ).not.toThrow();
  });

  test('what the operator configured', () => {
    expect(() => offer.check(wanted(['Pool', 'gpu'], ['container-image', 'docker://ours']), 'here')).not.toThrow();
  });

  test('a cache salt of any value, and what the sandbox does anyway', () => {
    expect(() => offer.check(wanted(['cache-silo-key', 'x'], ['network', 'off']), 'here')).not.toThrow();
    expect(() => createPlatformOffer([]).check(wanted(['container-image', 'none']), 'here')).not.toThrow();
  });
});

describe('what is refused at once', () => {
  test.each([
    ['another operating system', 'OSFamily', 'beos'],
    ['a value in another case', 'pool', 'gpu'],
    ['another value of an offered name', 'Pool', 'cpu'],
    ['an unknown property', 'Colour', 'blue'],
    ['a container image that is not here', 'container-image', 'docker://gcr.io/somewhere'],
    ['an empty value', 'Pool', ''],
  ])('%s', (_what, name, value) => {
    expect(() => offer.check(wanted([name, value]), 'here')).toThrow(
      /^FAILED_PRECONDITION: .*this node offers .*Pool=gpu/,
    );
  });

  test('several values of one name, when one of them is not there', () => {
    const [isa] = machineProperties().filter(({ name }) => name === 'ISA');
    expect(() => offer.check(wanted(['ISA', isa?.value ?? ''], ['ISA', 'riscv']), 'here')).toThrow(/ISA=riscv/);
  });

  test('all that lacks is named', () => {
    expect(() => offer.check(wanted(['A', '1'], ['B', '2']), 'here')).toThrow(/A=1, B=2/);
  });
});

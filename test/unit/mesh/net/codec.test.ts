import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { SharingMessage } from '../../../../mesh/core/sharing-types.ts';
import {
  bodyOf,
  type ControlBody,
  decodeControl,
  encodeControl,
  messageIn,
} from '../../../../mesh/net/control/codec.ts';
import * as limits from '../../../../mesh/net/control/limits.ts';

const id = fc.string({ minLength: 1, maxLength: 60 });
const seq = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const whole = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER - 1 });
const place = fc.integer({ min: 0, max: 2 ** 52 - 1 });
const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const attributes = fc.record({
  site: id,
  subnet: id,
  dataAddress: id,
  cores: seq,
  memoryBytes: whole,
  power: fc.constantFrom('mains', 'battery'),
  wired: fc.boolean(),
  coordinator: fc.constantFrom('always-on', 'eligible', 'never'),
  storeGeneration: whole,
});
const rumours = fc.array(
  fc.record({
    record: fc.record({
      id,
      incarnation: whole,
      presence: fc.constantFrom('here', 'suspended', 'left'),
      attributes,
      signature: id,
    }),
    verdict: fc.constantFrom('here', 'suspect', 'dead'),
    by: id,
  }),
  { maxLength: 3 },
);
const places = fc.array(place, { maxLength: 5 });
const kind = <K extends string>(name: K) => fc.constant(name);
const message = fc.oneof(
  fc.record({ kind: fc.constantFrom('ping', 'ack', 'nack'), seq, rumours }),
  fc.record({ kind: kind('pingRequest'), seq, target: id, rumours }),
  fc.record({ kind: kind('syncOffer'), summary: int32, rumours }),
  fc.record({ kind: kind('sync'), reply: fc.boolean(), rumours }),
  fc.record({
    kind: kind('announce'),
    seq,
    life: whole,
    generation: whole,
    add: places,
    remove: places,
    clear: fc.array(fc.integer({ min: 0, max: 255 })),
  }),
  fc.record({ kind: kind('announced'), seq, count: seq, hash: int32, full: fc.boolean() }),
  fc.record({ kind: kind('regionsAsked'), seq }),
  fc.record({ kind: kind('regions'), seq, summaries: fc.array(int32) }),
  fc.record({ kind: kind('whoHas'), seq, places }),
  fc
    .record({ kind: kind('holders'), seq, nodes: fc.array(id, { minLength: 3, maxLength: 5 }) })
    .chain((holders) => fc.array(fc.array(fc.integer({ min: 0, max: 2 }))).map((lists) => ({ ...holders, lists }))),
  fc.record({ kind: kind('keep'), seq, blobs: fc.array(id), forMs: whole }),
  fc.record({ kind: kind('kept'), seq, forMs: fc.array(whole) }),
) as fc.Arbitrary<SharingMessage>;

function roundTrip(body: ControlBody): SharingMessage | undefined {
  return messageIn(decodeControl(encodeControl(body)));
}

test('every message of the machines comes back as it was', () => {
  fc.assert(
    fc.property(message, (sent) => {
      expect(roundTrip(bodyOf(sent))).toEqual(sent);
    }),
  );
});

test('bytes that are anything else are refused or are no message, and never crash in another way', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        messageIn(decodeControl(bytes));
      } catch (error) {
        expect(error).toBeInstanceOf(Error);
      }
    }),
    { numRuns: 500 },
  );
});

test('what breaks a rule is refused', () => {
  const record = { id: 'a', incarnation: 1, presence: 1, attributes: { coordinator: 2 }, signature: 's' };
  const rumour = { record, verdict: 1, by: 'b' };
  const swim = (value: object): ControlBody => ({ case: 'swim', value: { kind: 1, ...value } }) as ControlBody;
  const provider = (name: string, value: object) =>
    ({ case: 'provider', value: { message: { case: name, value } } }) as ControlBody;
  expect(roundTrip(swim({ rumours: [rumour] }))).toBeDefined();
  for (const body of [
    swim({ kind: 0 }),
    swim({ kind: 99 }),
    swim({ rumours: [{ ...rumour, verdict: 0 }] }),
    swim({ rumours: [{ verdict: 1, by: 'b' }] }),
    swim({ rumours: [{ ...rumour, record: { ...record, incarnation: -1 } }] }),
    swim({ rumours: [{ ...rumour, record: { ...record, incarnation: 0.5 } }] }),
    swim({ rumours: [{ ...rumour, record: { ...record, presence: 9 } }] }),
    swim({ rumours: [{ ...rumour, record: { ...record, id: 'x'.repeat(limits.textMax + 1) } }] }),
    swim({ rumours: new Array(limits.rumoursMax + 1).fill(rumour) }),
    provider('announce', { add: [Number.NaN] }),
    provider('announce', { add: [-1] }),
    provider('whoHas', { places: new Array(limits.placesMax + 1).fill(0) }),
    provider('holders', { nodes: ['a'], lists: [{ at: [1] }] }),
    { case: 'provider', value: {} } as ControlBody,
    { case: 'keeping', value: {} } as ControlBody,
    {
      case: 'keeping',
      value: { message: { case: 'keep', value: { forMs: Number.POSITIVE_INFINITY } } },
    } as ControlBody,
  ]) {
    expect(() => roundTrip(body), JSON.stringify(body).slice(0, 100)).toThrow();
  }
});

test('the largest messages that the machines make fit into a frame', () => {
  const source = readFileSync(new URL('../../../../mesh/core/providers/limits.ts', import.meta.url), 'utf8');
  const placesPerAnnouncement = Number(/placesPerAnnouncement = ([\d_]+)/.exec(source)?.[1]?.replaceAll('_', ''));
  const add = Array.from({ length: placesPerAnnouncement }, () => 2 ** 52 - 1);
  const announce = { kind: 'announce', seq: 1, life: 1, generation: 1, add, remove: add, clear: [] } as const;
  expect(encodeControl(bodyOf(announce)).byteLength).toBeLessThan(limits.frameBytesMax);
});

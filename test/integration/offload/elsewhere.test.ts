import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MeshExecutionSchema } from '../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { metadataOf } from '../node/fixture.ts';
import { type Office, type OfficeNode, openOffice } from './office.ts';

let office: Office;
let anna: OfficeNode;
let ben: OfficeNode;

beforeAll(async () => {
  office = await openOffice({ slots: 1 }, { slots: 4, lends: 4 });
  [anna, ben] = office.nodes as [OfficeNode, OfficeNode];
}, 90_000);
afterAll(() => office?.[Symbol.asyncDispose]());

let serial = 0;
/** An action that nobody has run. */
const fresh = (script: string): string => `: ${process.pid}-${(serial += 1)}; ${script}`;

describe('an action that finds no slot here', () => {
  test('runs elsewhere, and its outputs are here when it has ended', async () => {
    const busy = await anna.prepare({ script: fresh('sleep 2') });
    const held = anna.execute(busy);
    await held.first;
    const digest = await anna.prepare({
      script: fresh('cat in > out; echo told; echo warned >&2'),
      inputs: { in: 'brought by anna' },
      command: { outputPaths: ['out'] },
    });
    const response = await anna.execute(digest).response;
    expect(response.status?.code).toBe(0);
    expect(response.result?.exitCode).toBe(0);
    expect(response.result?.executionMetadata?.worker).toContain(ben.peerId);
    expect(await anna.text(response.result?.outputFiles[0]?.digest)).toBe('brought by anna');
    expect(await anna.text(response.result?.stdoutDigest)).toBe('told\n');
    const told = response.result?.executionMetadata?.auxiliaryMetadata.map((any) =>
      anyUnpack(any, MeshExecutionSchema),
    );
    expect(told?.[0]).toMatchObject({ executor: ben.peerId, source: 'mesh' });
    await held.response;
  });
});

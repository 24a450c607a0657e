/** Outputs that a result names and nobody has any more: they are not waited for, and the action makes them again. */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { shell } from '../support/actions.ts';
import { lends, openMachineMesh } from '../support/mesh.ts';

test('an output that was lost everywhere is made again', { timeout: 120_000 }, async () => {
  await using mesh = await openMachineMesh({
    machines: { anna: ['--slots', '1', ...lends(0)], ben: ['--slots', '1', '--platform', 'lent=yes', ...lends(1)] },
    where: 'loopback',
  });
  using client = mesh.machine('anna').client();
  const action = { name: 'lost', argv: shell('yes lost | head -c 50000 > out'), platform: { lent: 'yes' } };
  const [first] = await client.run([action]);
  expect(first).toMatchObject({ code: 'OK', exitCode: 0, cached: false });
  const output = first?.outputs.get('out') ?? '';
  expect(await client.get(output)).toHaveLength(50_000);

  const [hash = ''] = output.split('/');
  let deleted = 0;
  for (const { dataDir } of mesh.machines) {
    const cas = join(dataDir, 'cas');
    const files = await readdir(cas, { recursive: true });
    for (const file of files.filter((name) => name.includes(hash))) {
      await rm(join(cas, file));
      deleted += 1;
    }
  }
  expect(deleted).toBeGreaterThanOrEqual(2);

  expect(await client.get(output)).toBeUndefined();
  const again = await client.execute(action);
  expect(again).toMatchObject({ code: 'OK', exitCode: 0, cached: false });
  expect(again.outputs.get('out')).toBe(output);
  expect(await client.get(output)).toHaveLength(50_000);
});

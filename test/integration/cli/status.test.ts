import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { startNode } from '../../support/node-process.ts';
import { openScratch, potluck } from './potluck.ts';

describe('potluck status', () => {
  test('describes the running node to a person and to a program', async () => {
    await using node = await startNode();
    const shown = await potluck(['status', '--http', node.http]);
    expect(shown).toMatchObject({ exitCode: 0, stderr: '' });
    for (const text of [node.grpc, node.dataDir, 'serving', 'Isolation']) expect(shown.stdout).toContain(text);
    const asked = await potluck(['status', '--json'], { env: { POTLUCK_HTTP: node.http } });
    expect(JSON.parse(asked.stdout)).toMatchObject({ state: 'serving', dataDir: node.dataDir, grpc: [node.grpc] });
  });

  test('says when no node runs, and when something else answers', async () => {
    const nobody = await potluck(['status', '--http', '127.0.0.1:1']);
    expect(nobody).toMatchObject({ exitCode: 1, stdout: '' });
    expect(nobody.stderr).toMatch(/^potluck: no node answers at 127\.0\.0\.1:1 .*potluck up.*\n$/);

    const other = createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1');
    await new Promise((resolve) => other.once('listening', resolve));
    const address = `127.0.0.1:${(other.address() as AddressInfo).port}`;
    const stranger = await potluck(['status', '--http', address]);
    expect(stranger).toMatchObject({ exitCode: 1, stderr: `potluck: what answers at ${address} is no Potluck node\n` });
    other.close();
  });
});

describe('potluck doctor', () => {
  test('finds nothing that keeps a node from serving in a fresh directory, and leaves nothing there', async () => {
    await using scratch = await openScratch();
    const words = [
      'doctor',
      '--data-dir',
      join(scratch.dir, 'later'),
      '--listen',
      '127.0.0.1:0',
      '--http',
      '127.0.0.1:0',
    ];
    const { exitCode, stdout } = await potluck([...words, '--json']);
    const report = JSON.parse(stdout);
    expect({ exitCode, healthy: report.healthy }).toEqual({ exitCode: 0, healthy: true });
    const checks = new Set(report.findings.map(({ check }: { check: string }) => check));
    for (const check of ['program', 'data directory', 'disk space', 'disk sync', 'isolation', 'address', 'clock']) {
      expect(checks).toContain(check);
    }
    for (const { verdict, fix } of report.findings) if (verdict !== 'ok') expect(fix).toMatch(/\w/);
    const { readdir } = await import('node:fs/promises');
    expect(await readdir(scratch.dir)).toEqual([]);
  });

  test('names what would keep it from serving, with a remedy', async () => {
    await using node = await startNode();
    await using scratch = await openScratch();
    await writeFile(join(scratch.dir, 'file'), '');
    const { exitCode, stdout } = await potluck([
      'doctor',
      ...['--data-dir', join(scratch.dir, 'file'), '--listen', node.grpc, '--http', '127.0.0.1:0'],
      ...['--bwrap', '/no/bwrap'],
    ]);
    expect(exitCode).toBe(1);
    expect(stdout).toMatch(/^PROBLEM {2}data directory: .*\n +-> .*--data-dir/m);
    expect(stdout).toMatch(new RegExp(`^PROBLEM {2}address: ${node.grpc} is in use.*\n +-> `, 'm'));
  });

  test('knows its own node when it meets it', async () => {
    await using node = await startNode();
    const { exitCode, stdout } = await potluck([
      'doctor',
      '--data-dir',
      node.dataDir,
      '--listen',
      node.grpc,
      '--http',
      node.http,
    ]);
    expect({ exitCode, stdout }).toMatchObject({ exitCode: 0 });
    expect(stdout).toContain(`${node.grpc}: a Potluck node serves`);
  });
});

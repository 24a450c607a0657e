/** The network that other tests put real nodes into does what they ask of it. */
import { execFileSync, spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type LabHost, labMissing, type NetworkLab, openNetworkLab } from '../../support/network-lab.ts';
import { until } from '../../support/until.ts';

const missing = labMissing();
if (missing) console.warn(`not checked: the network lab: ${missing}`);

const port = 7;
const serverText = `require('net').createServer((socket) => socket.end('here')).listen(${port})`;
const clientText = (address: string) =>
  `const s = require('net').connect(${port}, '${address}'); s.setTimeout(700, () => process.exit(1));` +
  `s.on('error', () => process.exit(1)); s.on('data', () => process.exit(0))`;

function reaches(from: LabHost, to: LabHost): boolean {
  try {
    from.run(process.execPath, '-e', clientText(to.address));
    return true;
  } catch {
    return false;
  }
}

describe.skipIf(missing !== undefined)('a network lab', () => {
  let lab: NetworkLab;

  beforeAll(async () => {
    lab = openNetworkLab({ office: ['a', 'b'], home: ['c'] });
    for (const name of ['a', 'b', 'c']) {
      const [program, ...args] = lab.host(name).command(process.execPath, '-e', serverText);
      spawn(program, args, { stdio: 'ignore' });
    }
    await until(() => ['a', 'b', 'c'].every((name) => reaches(lab.host(name), lab.host(name))));
  });
  afterAll(() => lab[Symbol.dispose]());

  test('joins hosts of one subnet by a bridge and subnets by a router', () => {
    expect(reaches(lab.host('a'), lab.host('b'))).toBe(true);
    expect(reaches(lab.host('a'), lab.host('c'))).toBe(true);
  });

  test('unplugs a host and plugs it in again', async () => {
    lab.plug('b', false);
    expect(reaches(lab.host('a'), lab.host('b'))).toBe(false);
    lab.plug('b', true);
    await until(() => reaches(lab.host('a'), lab.host('b')));
  });

  test('mutes one direction, which is enough for a connection to fail', () => {
    lab.muteOneWay('a', 'c', true);
    expect(reaches(lab.host('c'), lab.host('a'))).toBe(false);
    expect(reaches(lab.host('c'), lab.host('b'))).toBe(true);
    lab.muteOneWay('a', 'c', false);
    expect(reaches(lab.host('c'), lab.host('a'))).toBe(true);
  });

  test('gives a host another address', async () => {
    const before = lab.host('c');
    const after = lab.readdress('c');
    await until(() => reaches(lab.host('a'), after));
    expect(reaches(lab.host('a'), before)).toBe(false);
  });

  test('holds back packets between subnets', async () => {
    await lab.delay('office', 'home', 100);
    const started = performance.now();
    expect(reaches(lab.host('a'), lab.host('c'))).toBe(true);
    // Connecting and the first byte take a round trip each.
    expect(performance.now() - started).toBeGreaterThanOrEqual(400 - 10);
  });

  test('kills what runs on a host, and only that', async () => {
    lab.killAll('b');
    await until(() => !reaches(lab.host('a'), lab.host('b')));
    expect(reaches(lab.host('b'), lab.host('a'))).toBe(true);
  });

  test('leaves no namespace behind', () => {
    using other = openNetworkLab({ lone: ['x'] });
    const name = other.host('x').command('true')[3];
    expect(execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })).toContain(name);
    other[Symbol.dispose]();
    expect(execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })).not.toContain(name);
  });
});

/** A start is quick because it loads little: what only some need is loaded when they need it. */
import { expect, test } from 'vitest';
import { until } from '../../support/until.ts';
import { openScratch, startPotluck } from './potluck.ts';

/** Prints the names of the packages that were loaded, when the process ends. */
const listing = `
import { registerHooks } from 'node:module';
const packages = new Set();
registerHooks({
  load(url, context, next) {
    const name = /.*\\/node_modules\\/((?:@[^/]+\\/)?[^/]+)\\//.exec(url)?.[1];
    if (name) packages.add(name);
    return next(url, context);
  },
});
process.on('exit', () => process.stderr.write('loaded: ' + [...packages].sort().join(' ') + '\\n'));
`;

test('a node on its own starts without what only clients, meshes and configuration files need', async () => {
  await using scratch = await openScratch();
  const addresses = ['--listen', '127.0.0.1:0', '--http', '127.0.0.1:0'];
  const node = startPotluck(['up', '--log-format', 'json', '--data-dir', scratch.dir, ...addresses], {
    nodeArgs: ['--import', `data:text/javascript,${encodeURIComponent(listing)}`],
  });
  await until(() => node.stdout().includes('"ready"'));
  node.signal('SIGTERM');
  const { stderr } = await node.done;
  const packages = /^loaded: (.*)$/m.exec(stderr)?.[1]?.split(' ') ?? [];
  // The latter only because settings were given.
  expect(packages).toEqual(expect.arrayContaining(['lmdb', 'zod']));
  expect(packages.filter((name) => /grpc|libp2p|multiformats|yaml|prom-client|opentelemetry/.test(name))).toEqual([]);
  expect(packages.length).toBeLessThan(12);
});

// Run once by `npm ci`: loads what `up` and `run` load, so that the first start in a checkout is as quick as the next.
import './node-version.js';

await Promise.all([import('./cli/program.ts'), import('./create-node.ts'), import('./cli/run/session.ts')]);
process.argv.splice(2, Number.POSITIVE_INFINITY, '--version');
await import('./main.ts');

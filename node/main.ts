/** The program: `node node/main.ts ARGS`. Everything but the check of the Node.js version is imported after it passed. */
import './node-version.js';
import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';

// In a checkout, where types are stripped at every start, this halves what a start costs from the second one on.
if (import.meta.url.endsWith('.ts')) {
  enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/potluck', import.meta.url)));
}
const { main } = await import('./cli/program.ts');
await main(process.argv.slice(2));

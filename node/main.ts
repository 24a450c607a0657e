/** The program: `node node/main.ts ARGS`. Everything that an older Node.js lacks is imported after its version was checked. */
import './node-version.js';
import { useCompileCache } from './compile-cache.ts';

useCompileCache();
const { main } = await import('./cli/program.ts');
await main(process.argv.slice(2));

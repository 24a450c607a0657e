/** The program: `node node/main.ts ARGS`. Everything but the check of the Node.js version is imported after it passed. */
import './node-version.js';

const { main } = await import('./cli/program.ts');
await main(process.argv.slice(2));

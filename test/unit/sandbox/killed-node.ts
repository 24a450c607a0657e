/** Started by freezing.test.ts: freezes a guest, says so, and waits to be killed. */
import { createRunControl } from '../../../sandbox/run-control.ts';
import { until } from '../../support/until.ts';
import { processesWith, testSandbox } from './support.ts';

const [marker = ''] = process.argv.slice(2);
const made = await testSandbox();
const control = createRunControl();
const guest = made.sh(`: ${marker}-guest; while :; do :; done`, { guest: true, options: { control } });
guest.catch((error: unknown) => console.error(error));
await until(() => processesWith(`${marker}-guest`).length > 1);
await control.freeze();
console.log(made.directory);
setInterval(() => {}, 1_000);

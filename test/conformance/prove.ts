/**
 * `node test/conformance/prove.ts [--only P1,P2]`: runs the whole suite against our node once for each planted fault.
 *
 * Each fault must break the rules that it is said to break and leave the verdict of every other rule as it was. Rules
 * that start servers of their own take part only for faults that show after a kill.
 */
import { changes, plantedFaults, throughProxy, withFault } from './faults/all.ts';
import { nodeControl } from './node-control.ts';
import { table } from './report.ts';

const only = process.argv[2] === '--only' ? (process.argv[3] ?? '').split(',') : undefined;
await using server = await nodeControl.start();
const sound = await throughProxy(server.target);
const failing = sound.filter((rule) => rule.verdict === 'fail').map((rule) => rule.id);
console.log(`without a fault: ${failing.length === 0 ? 'no rule fails' : `${failing.join(', ')} fail`}`);
let wrong = failing.length;
for (const planted of plantedFaults) {
  if (only && !planted.breaks.some((id) => only.includes(id))) continue;
  const { before, after } = await withFault(server.target, planted, sound);
  if (before.some((rule) => planted.breaks.includes(rule.id) && rule.verdict === 'not applicable')) {
    console.log(`skip   ${planted.does}: ${planted.breaks.join(', ')} does not apply`);
    continue;
  }
  const seen = changes(before, after);
  const expected = planted.breaks.map((id) => `${id}: ${before.find((rule) => rule.id === id)?.verdict} became fail`);
  const right = seen.toSorted().join() === expected.toSorted().join();
  console.log(`${right ? 'right' : 'WRONG'}  ${planted.does}: ${seen.join(', ') || 'nothing changed'}`);
  if (right) continue;
  wrong += 1;
  const unexpected = after.filter((rule) => rule.verdict === 'fail' && !planted.breaks.includes(rule.id));
  if (unexpected.length > 0) console.log(table(unexpected));
}
console.log(wrong === 0 ? 'every fault was found where it is' : `${wrong} are not as they should be`);
process.exitCode = wrong === 0 ? 0 : 1;

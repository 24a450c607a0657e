/** The owner of a machine comes back while a guest runs on it: real nodes, real processes. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { post } from '../../../node/cli/mesh-socket.ts';
import type { OwnerRequest, OwnerStatus } from '../../../node/owner/requests.ts';
import { until } from '../../support/until.ts';
import { type Office, type OfficeNode, openOffice } from '../offload/office.ts';
import { isFrozen, processesOf } from './frozen.ts';

let office: Office;
/** Whose actions they are: one slot, and nothing to lend. */
let anna: OfficeNode;
/** Who lends, and whose owner comes back. */
let ben: OfficeNode;

beforeAll(async () => {
  office = await openOffice({ slots: 1 }, { slots: 3, lends: 2 });
  [anna, ben] = office.nodes as [OfficeNode, OfficeNode];
}, 90_000);
afterAll(() => office?.[Symbol.asyncDispose]());

async function tell(node: OfficeNode, request: OwnerRequest): Promise<OwnerStatus> {
  const answer = await post(node.node.status().dataDir, JSON.stringify(request));
  if (answer === undefined) throw new Error('no node behind the socket');
  return JSON.parse(answer) as OwnerStatus;
}

async function cancel(followed: { readonly first: Promise<{ readonly name: string }> }): Promise<void> {
  await anna.operations.cancelOperation({ name: (await followed.first).name });
}

let serial = 0;
const newMarker = () => `yielding-${process.pid}-${(serial += 1)}`;

/** Takes anna's only slot. */
async function keepBusy() {
  const busy = anna.execute(await anna.prepare({ script: `: ${newMarker()}; while :; do sleep 1; done` }));
  await busy.first;
  return busy;
}

/** Starts an action that anna has no slot for, and that takes a while; resolves when it runs on ben's machine. */
async function startGuest(script: string) {
  const busy = await keepBusy();
  const marker = newMarker();
  const guest = anna.execute(await anna.prepare({ script: `: ${marker}; ${script}` }));
  await until(() => processesOf(marker).length > 1);
  return { busy, marker, guest };
}

test('guests are frozen within a second of the signal, gone within five, and the build goes on', async () => {
  const { busy, marker, guest } = await startGuest(
    'i=0; while [ $i -lt 20 ]; do sleep 0.1; i=$((i+1)); done; echo done',
  );
  // Looking for processes takes long on a busy machine, and is no part of what is measured.
  const begun = processesOf(marker);
  const startMs = performance.now();
  const status = await tell(ben, { do: 'owner', presence: 'back' });
  expect(status).toMatchObject({ guestsWelcome: false, reason: 'its owner said to be back' });
  const answeredMs = performance.now() - startMs;
  await until(() => begun.every(isFrozen), 1_000);
  const frozenMs = performance.now() - startMs;
  expect(processesOf(marker).every(isFrozen)).toBe(true);
  await until(() => processesOf(marker).length === 0, 5_000);
  const goneMs = performance.now() - startMs;
  console.log(
    `owner back: answered after ${answeredMs.toFixed(0)} ms, guests frozen after ${frozenMs.toFixed(0)} ms, gone after ${goneMs.toFixed(0)} ms`,
  );
  // Nothing is claimed any more: what waits at anna goes on waiting for her own slot.
  const late = anna.execute(await anna.prepare({ script: `: ${newMarker()}; echo late` }));
  await cancel(busy);
  const [first, second] = await Promise.all([guest.response, late.response]);
  for (const { result } of [first, second]) expect(result?.executionMetadata?.worker).toContain(anna.peerId);
  expect(first.result?.exitCode).toBe(0);

  // And when the owner is gone again, guests come at once.
  expect(await tell(ben, { do: 'owner', presence: 'away' })).toMatchObject({ guestsWelcome: true });
  const busyAgain = await keepBusy();
  const again = anna.execute(await anna.prepare({ script: `: ${newMarker()}; echo here` }));
  expect((await again.response).result?.executionMetadata?.worker).toContain(ben.peerId);
  await cancel(busyAgain);
}, 120_000);

test('an owner who goes again soon lets the guest go on; frozen time is not run time', async () => {
  const { busy, marker, guest } = await startGuest('sleep 2; echo done');
  await tell(ben, { do: 'owner', presence: 'back' });
  await until(() => processesOf(marker).every(isFrozen), 1_000);
  await tell(ben, { do: 'owner', presence: 'away' });
  const { result } = await guest.response;
  expect(result?.exitCode).toBe(0);
  expect(result?.executionMetadata?.worker).toContain(ben.peerId);
  await cancel(busy);
}, 60_000);

test('pause sends guests away and keeps them out until resume; own builds go on', async () => {
  const { busy, marker, guest } = await startGuest('sleep 2; echo done');
  expect(await tell(ben, { do: 'pause' })).toMatchObject({ paused: true, guestsWelcome: false });
  await until(() => processesOf(marker).length === 0, 5_000);
  const own = await ben.execute(await ben.prepare({ script: `: ${newMarker()}; echo mine` })).response;
  expect(await ben.text(own.result?.stdoutDigest)).toBe('mine\n');
  expect(await tell(ben, { do: 'resume' })).toMatchObject({ paused: false, guestsWelcome: true });
  // Its action comes back, or runs at anna once she has a slot.
  await cancel(busy);
  expect((await guest.response).result?.exitCode).toBe(0);
}, 60_000);

test('lend bounds how many guests there are', async () => {
  expect(await tell(ben, { do: 'lend', slots: 1 })).toMatchObject({ slots: 1 });
  const { busy, marker, guest } = await startGuest('while [ ! -e go ]; do sleep 0.1; done');
  const second = newMarker();
  const waiting = anna.execute(await anna.prepare({ script: `: ${second}; echo second` }));
  await waiting.first;
  await tell(ben, { do: 'lend', slots: 2 });
  await waiting.response;
  expect(processesOf(marker).length).toBeGreaterThan(0);
  await cancel(guest);
  await cancel(busy);
  await until(() => processesOf(marker).length === 0, 5_000);
}, 60_000);

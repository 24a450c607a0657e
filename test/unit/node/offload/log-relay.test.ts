/** Live output that is followed at a member which answers as it likes. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { afterEach, expect, test, vi } from 'vitest';
import { logPauseMs } from '../../../../node/offload/limits.ts';
import { createLogRelay } from '../../../../node/offload/log-relay.ts';
import { LogParcelSchema } from '../../../../protos/gen/potluck/mesh/v1/results_pb.ts';
import { digestOf } from '../../../../protos/hasher.ts';

afterEach(() => void vi.useRealTimers());

test('who answers at once, again and again, and has nothing new is not asked without a pause', async () => {
  vi.useFakeTimers();
  const key = { instance: '', action: digestOf('sha256', Buffer.from('action')) };
  let asked = 0;
  const relay = createLogRelay({
    runOf: () => undefined,
    send(to, body) {
      const { message } = fromBinary(LogParcelSchema, body);
      if (message.case !== 'request') return;
      asked += 1;
      const { key: wire, stdoutOffset, stderrOffset } = message.value;
      const value = { ...(wire && { key: wire }), running: true, stdoutOffset, stderrOffset };
      const answer = create(LogParcelSchema, { message: { case: 'response', value } });
      queueMicrotask(() => relay.onParcel(to, toBinary(LogParcelSchema, answer)));
    },
  });
  const abort = new AbortController();
  const log = { write() {}, end() {} };
  const followed = relay.follow('ben', key, { stdout: log, stderr: log }, abort.signal);
  await vi.advanceTimersByTimeAsync(10 * logPauseMs);
  expect(asked).toBeGreaterThan(5);
  expect(asked).toBeLessThan(15);
  abort.abort();
  await vi.advanceTimersByTimeAsync(logPauseMs);
  await followed;
});

/** Has an inspected process collect its garbage, so that what it holds is told from what it has not thrown away yet. */
import { once } from 'node:events';

export interface Collector extends Disposable {
  /** Collects, and resolves to what is alive: the heap and the buffers outside of it. */
  collect(): Promise<{ readonly liveBytes: number }>;
}

/** @see https://chromedevtools.github.io/devtools-protocol/v8/, HeapProfiler and Runtime */
export async function openCollector(debuggerUrl: string): Promise<Collector> {
  const socket = new WebSocket(debuggerUrl);
  await once(socket, 'open');
  let sent = 0;
  const ask = async (method: string, params: object = {}): Promise<unknown> => {
    const id = ++sent;
    socket.send(JSON.stringify({ id, method, params }));
    for (;;) {
      const [event] = (await once(socket, 'message')) as [{ readonly data: string }];
      const answer = JSON.parse(event.data) as { id?: number; result?: unknown };
      if (answer.id === id) return answer.result;
    }
  };
  return {
    async collect() {
      await ask('HeapProfiler.collectGarbage');
      const expression = '(({ heapUsed, external }) => heapUsed + external)(process.memoryUsage())';
      const { result } = (await ask('Runtime.evaluate', { expression })) as { result: { value: number } };
      return { liveBytes: result.value };
    },
    [Symbol.dispose]: () => socket.close(),
  };
}

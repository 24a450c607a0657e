/** Drives a headless Chromium over its debugging port: one page, gone at the end. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Why it cannot run here; undefined when it can. */
export const chromiumMissing =
  spawnSync('chromium', ['--version'], { stdio: 'ignore' }).status === 0
    ? undefined
    : 'Chromium is missing; on Debian: apt-get install chromium';

export interface Page extends AsyncDisposable {
  /** What the page fetched, and what it threw. */
  readonly requests: string[];
  readonly exceptions: string[];
  open(url: string): Promise<void>;
  size(width: number, height: number): Promise<void>;
  dark(): Promise<void>;
  press(...keys: readonly string[]): Promise<void>;
  evaluate(expression: string): Promise<unknown>;
}

const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--remote-debugging-port=0',
];

export async function openChromium(): Promise<Page> {
  const home = await mkdtemp(join(tmpdir(), 'potluck-chromium-'));
  const browser = spawn('chromium', [...flags, `--user-data-dir=${home}`, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const port = await new Promise<string>((resolve, reject) => {
    let said = '';
    browser.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      const [, found] = /ws:\/\/127\.0\.0\.1:(\d+)\//.exec(said) ?? [];
      if (found) resolve(found);
    });
    browser.once('exit', () => reject(new Error(`Chromium ended: ${said}`)));
  });
  const targets = (await (await fetch(`http://127.0.0.1:${port}/json`)).json()) as {
    type: string;
    webSocketDebuggerUrl: string;
  }[];
  const socket = new WebSocket(targets.find(({ type }) => type === 'page')?.webSocketDebuggerUrl ?? '');
  await once(socket, 'open');
  const waiting = new Map<number, (result: unknown) => void>();
  const loads: (() => void)[] = [];
  const requests: string[] = [];
  const exceptions: string[] = [];
  let lastId = 0;
  socket.addEventListener('message', ({ data }) => {
    const { id, method, params, result } = JSON.parse(String(data));
    if (id !== undefined) waiting.get(id)?.(result);
    else if (method === 'Network.requestWillBeSent') requests.push(params.request.url);
    else if (method === 'Runtime.exceptionThrown') exceptions.push(JSON.stringify(params.exceptionDetails));
    else if (method === 'Page.loadEventFired') loads.shift()?.();
  });

  function send(method: string, params: object = {}): Promise<unknown> {
    const id = ++lastId;
    return new Promise((resolve) => {
      waiting.set(id, resolve);
      socket.send(JSON.stringify({ id, method, params }));
    });
  }

  for (const domain of ['Runtime', 'Page', 'Network']) await send(`${domain}.enable`);
  return {
    requests,
    exceptions,
    async open(url) {
      const loaded = new Promise<void>((resolve) => loads.push(resolve));
      await send('Page.navigate', { url });
      await loaded;
    },
    size: async (width, height) =>
      void (await send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false })),
    dark: async () =>
      void (await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'dark' }] })),
    async press(...keys) {
      for (const key of keys) {
        const text = key.length === 1 ? { text: key } : {};
        await send('Input.dispatchKeyEvent', { type: 'keyDown', key, ...text });
        await send('Input.dispatchKeyEvent', { type: 'keyUp', key });
      }
    },
    async evaluate(expression) {
      const answer = await send('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
      return (answer as { result?: { value?: unknown } }).result?.value;
    },
    async [Symbol.asyncDispose]() {
      socket.close();
      const ended = once(browser, 'exit');
      browser.kill();
      await ended;
      // Its helpers may still be writing.
      await rm(home, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
    },
  };
}

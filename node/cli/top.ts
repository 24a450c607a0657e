/** `potluck top`: what goes on now, on one screen that redraws itself. */
import type { TopFrame } from '../builds/top.ts';
import { type Api, apiSettings, openApi } from './api.ts';
import { type Command, jsonFlag } from './command.ts';
import { exitCodes } from './exit-codes.ts';
import { print } from './terminal.ts';
import { topLines } from './top-view.ts';

const refreshMs = 1_000;
const defaultColumns = 100;
/** Ctrl-C comes as a key: the terminal is raw. */
const endKeys = ['q', 'Q', '\x03'];

export const top: Command = {
  name: 'top',
  summary: 'watch nodes, slots, actions and transfers',
  description:
    'Shows what this node and its mesh do now, and redraws once a second; q or Ctrl-C ends it. Where the output is no terminal, and with --once or --json, it prints one frame.',
  flags: { once: { about: 'print one frame and end' }, ...apiSettings, ...jsonFlag },
  examples: [
    { about: 'live', line: 'potluck top' },
    {
      about: 'slots that live members lend, for a script',
      line: `potluck top --json | jq '[.peers[].guestSlots] | add'`,
    },
  ],
  async run(args) {
    const api = await openApi(args);
    const first = await api.get<TopFrame>('top');
    if (args.switches.has('json')) {
      print(JSON.stringify(first));
    } else if (args.switches.has('once') || !process.stdout.isTTY) {
      for (const line of topLines(first, undefined, { columns: defaultColumns * 2, rows: undefined })) print(line);
    } else {
      await live(api, first);
    }
    return exitCodes.ok;
  },
};

/** Sequences of ECMA-48 terminals and xterm's private modes. */
const terminal = {
  enter: '\x1b[?1049h\x1b[?25l',
  leave: '\x1b[?25h\x1b[?1049l',
  /** What lies between these two is shown at once. */
  hold: '\x1b[?2026h',
  release: '\x1b[?2026l',
  home: '\x1b[H',
  clearLine: '\x1b[K',
  clearBelow: '\x1b[J',
};

/** Resolves when a key says so; throws when the node stops answering. */
async function live(api: Api, first: TopFrame): Promise<void> {
  const { stdin, stdout } = process;
  const ended = Promise.withResolvers<void>();
  let frame = first;
  let before: TopFrame | undefined;

  /**
   * Every line is overwritten and its rest cleared, in one write: nothing is blank for a moment. The last column stays free,
   * since clearing after it would take away what was just written there.
   */
  const draw = (): void => {
    const lines = topLines(frame, before, { columns: stdout.columns - 1, rows: stdout.rows });
    const text = lines.map((line) => `${line}${terminal.clearLine}`).join('\r\n');
    stdout.write(`${terminal.hold}${terminal.home}${text}${terminal.clearBelow}${terminal.release}`);
  };
  const onKey = (keys: Buffer): void => {
    if (endKeys.some((key) => keys.includes(key))) ended.resolve();
  };
  const onSignal = (): void => ended.resolve();
  const refresh = async (): Promise<void> => {
    const next = await api.get<TopFrame>('top');
    before = frame;
    frame = next;
    draw();
  };

  let timer: NodeJS.Timeout | undefined;
  const tick = (): void => {
    refresh().then(
      () => {
        timer = setTimeout(tick, refreshMs);
      },
      (error: unknown) => ended.reject(error instanceof Error ? error : new Error(String(error))),
    );
  };
  stdout.write(terminal.enter);
  stdout.on('resize', draw);
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  if (stdin.isTTY) stdin.setRawMode(true).on('data', onKey).resume();
  try {
    draw();
    timer = setTimeout(tick, refreshMs);
    await ended.promise;
  } finally {
    clearTimeout(timer);
    stdout.off('resize', draw);
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    if (stdin.isTTY) stdin.setRawMode(false).off('data', onKey).pause();
    stdout.write(terminal.leave);
  }
}

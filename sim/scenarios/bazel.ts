/**
 * Actions of a real build, from what Bazel wrote about it: its profile (`--profile`: how long each action took, and when)
 * and its execution log (`--execution_log_json_file`: inputs and outputs with their sizes). Seen with Bazel 2.1 and 4.2.
 *
 * A profile says nothing about who needs whom. With the log needs are exact; without it they are guessed from the times:
 * an action that began although a job was free had waited for the one that ended just before.
 */
import { gunzipSync } from 'node:zlib';
import type { Graph, GraphAction, GraphModel } from './graph.ts';

export interface BazelFiles {
  readonly profile: Buffer | undefined;
  readonly executionLog: Buffer | undefined;
}

/** Throws an Error with a sentence when a file is not what it should be. */
export function readBazelGraph(files: BazelFiles, model: Pick<GraphModel, 'sources' | 'outputs' | 'shared'>): Graph {
  const timed = files.profile && readProfile(unpack(files.profile));
  if (files.executionLog) return fromLog(readLog(unpack(files.executionLog).toString('utf8')), timed);
  const { actions = [], critical = [] } = timed ?? {};
  if (actions.length === 0) throw new Error('the profile has no actions; was everything cached?');
  const needs = guessNeeds(actions, critical);
  return {
    sharedBytes: model.shared,
    actions: actions.map((action, number) => ({
      name: action.name,
      durationMs: Math.max(1, Math.round(action.durationUs / 1_000)),
      sourceBytes: model.sources.median,
      outputBytes: model.outputs.median,
      cacheable: true,
      needs: needs[number] ?? [],
    })),
  };
}

function unpack(bytes: Buffer): Buffer {
  return bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes;
}

interface TraceEvent {
  readonly cat?: string;
  readonly name?: string;
  readonly ph?: string;
  /** Microseconds. */
  readonly ts?: number;
  readonly dur?: number;
  readonly tid?: number;
  /** The primary output, with `--experimental_profile_include_primary_output`. */
  readonly out?: string;
}

interface TimedAction {
  readonly name: string;
  readonly output: string | undefined;
  readonly fromUs: number;
  readonly toUs: number;
  /** Without the time that it waited for the machine's resources. */
  readonly durationUs: number;
}

interface Profile {
  /** By the time at which they began. */
  readonly actions: readonly TimedAction[];
  /** Names of the actions on Bazel's critical path, in order. */
  readonly critical: readonly string[];
}

function readProfile(bytes: Buffer): Profile {
  let parsed: unknown;
  try {
    parsed = JSON.parse(bytes.toString('utf8'));
  } catch {
    throw new Error('this is no Bazel profile: it is not JSON (a build that is still running writes half of one)');
  }
  const events = (Array.isArray(parsed) ? parsed : (parsed as { traceEvents?: unknown })?.traceEvents) as TraceEvent[];
  if (!Array.isArray(events)) throw new Error('this is no Bazel profile: it has no traceEvents');
  const complete = events.filter(({ ph, ts, dur }) => ph === 'X' && typeof ts === 'number' && typeof dur === 'number');
  const byThread = new Map<number, TraceEvent[]>();
  for (const event of complete) {
    const thread = byThread.get(event.tid ?? 0);
    if (thread) thread.push(event);
    else byThread.set(event.tid ?? 0, [event]);
  }
  const actions: TimedAction[] = [];
  for (const event of complete) {
    if (event.cat !== 'action processing') continue;
    const [fromUs, toUs] = [event.ts as number, (event.ts as number) + (event.dur as number)];
    const inside = (byThread.get(event.tid ?? 0) ?? []).filter(
      ({ ts = 0, dur = 0 }) => ts >= fromUs && ts + dur <= toUs,
    );
    // Actions that start no process, such as links and written files, are Bazel's own affair.
    if (!inside.some(({ cat = '' }) => /^(local|remote) action execution$|^subprocess|Remote execution/i.test(cat)))
      continue;
    const waitedUs = inside.reduce((sum, { cat = '', dur = 0 }) => (/acquir/i.test(cat) ? sum + dur : sum), 0);
    actions.push({
      name: event.name ?? 'action',
      output: event.out,
      fromUs,
      toUs,
      durationUs: toUs - fromUs - waitedUs,
    });
  }
  const critical = complete
    .filter(({ cat }) => cat === 'critical path component')
    .sort((a, b) => (a.ts as number) - (b.ts as number))
    .map(({ name = '' }) => name.replace(/^action '(.*)'$/s, '$1'));
  return { actions: actions.sort((a, b) => a.fromUs - b.fromUs), critical };
}

/** Between the end of one action and the start of the one that waited for it, in a Bazel that is not overloaded. */
const triggerUs = 150_000;

function guessNeeds(actions: readonly TimedAction[], critical: readonly string[]): number[][] {
  const needs = actions.map((): number[] => []);
  const running = (atUs: number): number => actions.filter(({ fromUs, toUs }) => fromUs < atUs && toUs >= atUs).length;
  const jobs = Math.max(...actions.map(({ fromUs }) => running(fromUs) + 1));
  for (const [number, action] of actions.entries()) {
    let trigger: number | undefined;
    for (const [other, { toUs }] of actions.entries()) {
      if (toUs > action.fromUs || other >= number) continue;
      if (trigger === undefined || toUs > (actions[trigger] as TimedAction).toUs) trigger = other;
    }
    if (trigger === undefined) continue;
    const { toUs } = actions[trigger] as TimedAction;
    // Just before that one ended a job was free, and this action did not take it.
    if (action.fromUs - toUs <= triggerUs && running(toUs) < jobs) needs[number]?.push(trigger);
  }
  const byName = new Map(actions.map(({ name }, number) => [name, number]));
  for (const [i, name] of critical.entries()) {
    const [before, after] = [byName.get(critical[i - 1] ?? ''), byName.get(name)];
    if (before !== undefined && after !== undefined && before < after && !needs[after]?.includes(before)) {
      needs[after]?.push(before);
    }
  }
  return needs;
}

interface LoggedFile {
  readonly path: string;
  readonly digest?: { readonly sizeBytes?: string | number };
}

interface Spawn {
  readonly inputs?: readonly LoggedFile[];
  readonly listedOutputs?: readonly string[];
  readonly actualOutputs?: readonly LoggedFile[];
  readonly mnemonic?: string;
  readonly progressMessage?: string;
  readonly cacheable?: boolean;
  readonly remoteCacheable?: boolean;
  /** Durations as `1.250s`. Bazel 2.1 and 4.2 write neither; later ones have the first, then the second. */
  readonly walltime?: string;
  readonly metrics?: { readonly totalTime?: string; readonly executionWallTime?: string };
}

/** One JSON object after another, with nothing between them. */
function readLog(text: string): Spawn[] {
  const spawns: Spawn[] = [];
  let [depth, start, inString] = [0, 0, false];
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (inString) {
      if (char === '\\') i += 1;
      else if (char === '"') inString = false;
    } else if (char === '"') inString = true;
    else if (char === '{' && depth++ === 0) start = i;
    else if (char === '}' && --depth === 0) {
      try {
        spawns.push(JSON.parse(text.slice(start, i + 1)) as Spawn);
      } catch {
        throw new Error(`this is no execution log: entry ${spawns.length + 1} is not JSON`);
      }
    }
  }
  if (spawns.length === 0 || depth !== 0 || !spawns.some(({ listedOutputs }) => Array.isArray(listedOutputs))) {
    throw new Error('this is no execution log of Bazel (--execution_log_json_file)');
  }
  return spawns;
}

function fromLog(spawns: readonly Spawn[], profile: Profile | undefined): Graph {
  const madeBy = new Map<string, number>();
  for (const [number, spawn] of spawns.entries()) {
    for (const output of spawn.listedOutputs ?? []) if (!madeBy.has(output)) madeBy.set(output, number);
  }
  const users = new Map<string, number>();
  for (const { inputs = [] } of spawns) {
    for (const { path } of inputs) users.set(path, (users.get(path) ?? 0) + 1);
  }
  const isShared = (path: string): boolean => {
    const count = users.get(path) ?? 0;
    return count > 1 && count * 2 > spawns.length;
  };
  const shared = new Map<string, number>();
  const durationOf = createTimes(profile);
  const actions = spawns.map((spawn, number): GraphAction & { readonly number: number } => {
    const needs = new Set<number>();
    let sourceBytes = 0;
    for (const input of spawn.inputs ?? []) {
      const maker = makerOf(madeBy, input.path);
      if (maker !== undefined && maker !== number) needs.add(maker);
      else if (isShared(input.path)) shared.set(input.path, bytesOf(input));
      else sourceBytes += bytesOf(input);
    }
    return {
      number,
      name: spawn.progressMessage || spawn.mnemonic || `action ${number + 1}`,
      durationMs: Math.max(1, Math.round(durationOf(spawn))),
      sourceBytes,
      outputBytes: (spawn.actualOutputs ?? []).reduce((sum, output) => sum + bytesOf(output), 0),
      cacheable: spawn.remoteCacheable ?? spawn.cacheable ?? true,
      needs: [...needs],
    };
  });
  let sharedBytes = 0;
  for (const bytes of shared.values()) sharedBytes += bytes;
  return { sharedBytes, actions: inOrder(actions) };
}

function bytesOf({ digest }: LoggedFile): number {
  return Number(digest?.sizeBytes ?? 0);
}

/** Who made a file, or the directory that it is in. */
function makerOf(madeBy: ReadonlyMap<string, number>, path: string): number | undefined {
  for (let part = path; part !== ''; part = part.slice(0, Math.max(0, part.lastIndexOf('/')))) {
    const maker = madeBy.get(part);
    if (maker !== undefined) return maker;
  }
  return undefined;
}

/** Milliseconds of a spawn: those of the profile, found by output or by name, before those of the log. */
function createTimes(profile: Profile | undefined): (spawn: Spawn) => number {
  const byOutput = new Map<string, TimedAction>();
  const byName = new Map<string, TimedAction[]>();
  for (const action of profile?.actions ?? []) {
    if (action.output !== undefined) byOutput.set(action.output, action);
    byName.set(action.name, [...(byName.get(action.name) ?? []), action]);
  }
  return (spawn) => {
    const output = (spawn.listedOutputs ?? []).find((path) => byOutput.has(path));
    const timed = (output && byOutput.get(output)) ?? byName.get(spawn.progressMessage ?? '')?.shift();
    if (timed) return timed.durationUs / 1_000;
    const { totalTime, executionWallTime } = spawn.metrics ?? {};
    const [, seconds] = /^([\d.]+)s$/.exec(totalTime ?? executionWallTime ?? spawn.walltime ?? '') ?? [];
    if (seconds !== undefined) return Number(seconds) * 1_000;
    throw new Error(
      profile
        ? `the profile has no times for "${spawn.progressMessage ?? spawn.mnemonic}"; are both of the same build?`
        : 'this execution log has no run times; give the profile of the same build as well (key "profile")',
    );
  };
}

/** Actions after what they need, as a graph has them. Throws when they need each other. */
function inOrder(actions: readonly (GraphAction & { readonly number: number })[]): GraphAction[] {
  const placed = new Map<number, number>();
  const ordered: GraphAction[] = [];
  const waiting = new Set(actions);
  while (waiting.size > 0) {
    const before = ordered.length;
    for (const action of waiting) {
      if (!action.needs.every((need) => placed.has(need))) continue;
      waiting.delete(action);
      placed.set(action.number, ordered.length);
      const { number: _, ...rest } = action;
      ordered.push({ ...rest, needs: action.needs.map((need) => placed.get(need) as number) });
    }
    if (ordered.length === before) throw new Error('the actions of this log need each other in a circle');
  }
  return ordered;
}

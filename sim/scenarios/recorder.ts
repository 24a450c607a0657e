/** Watches a run and remembers what a report needs: builds, requests, runs, what each fault interrupted, and who was there when. */
import type { ActionKey, RequestId } from '../../mesh/core/ids.ts';
import type { CheckerFactory, RunEnd, World } from '../checkers/checker.ts';
import type { SimNode } from '../node.ts';
import type { Fault } from '../plan.ts';
import type { ScenarioPlan } from './plan.ts';

/** One run of one action. Times are virtual milliseconds from the beginning of the run, as everywhere here. */
export interface RunSpan {
  readonly node: number;
  /** Which of the node's slots, from 0. */
  readonly lane: number;
  readonly key: ActionKey;
  readonly request: RequestId;
  readonly guest: boolean;
  readonly fromMs: number;
  toMs: number;
  end: RunEnd | 'open';
}

export interface BuildRecord {
  readonly invocation: string;
  asked: number;
  answered: number;
  hits: number;
  failed: number;
  endMs: number | undefined;
  /** Its client died with its machine. */
  abandoned: boolean;
}

export interface FaultRecord {
  /** Requests whose run it hit. */
  readonly interrupted: Set<RequestId>;
  lastAnswerMs: number;
}

export type Presence = 'down' | 'asleep' | 'owner';

export interface PresenceSpan {
  readonly node: number;
  readonly presence: Presence;
  readonly fromMs: number;
  toMs: number;
}

export interface Recording {
  readonly spans: readonly RunSpan[];
  readonly builds: ReadonlyMap<string, BuildRecord>;
  /** By number of the scenario's fault. */
  readonly faults: ReadonlyMap<number, FaultRecord>;
  readonly presence: readonly PresenceSpan[];
  readonly lostActions: number;
  /** Requests whose client was there to the end and got no answer. */
  readonly unanswered: readonly RequestId[];
  readonly duplicated: number;
  readonly answers: { readonly [source: string]: number };
}

export interface RecorderPorts {
  /** Ends the simulation. */
  stop(): void;
  /** Bytes from and to a machine that fell silent go no further. */
  silent(node: number): void;
}

/** How often the state of machines is looked at, by the clock of the run. */
const sampleMs = 1_000;

export function createRecorder(
  planned: ScenarioPlan,
  ports: RecorderPorts,
): { factory: CheckerFactory; result(): Recording } {
  const { plan, builds, faultOf, actions } = planned;
  const spans: RunSpan[] = [];
  const running = new Map<string, RunSpan>();
  const records = new Map<string, BuildRecord>();
  const faults = new Map<number, FaultRecord>();
  const presence: PresenceSpan[] = [];
  const current = new Map<number, PresenceSpan>();
  const open = new Map<RequestId, { readonly key: ActionKey; readonly node: SimNode; readonly build: BuildRecord }>();
  const ran = new Set<RequestId>();
  const completed = new Map<ActionKey, number>();
  const answers: Record<string, number> = {};
  const sizes = new Map(builds.map((build) => [build.invocation, build.actions.length]));
  const lastFaultEndMs = plan.faults.reduce((last, { atMs, forMs }) => Math.max(last, atMs + forMs), 0);
  let failed = 0;
  let duplicated = 0;
  let unfinished = builds.length;

  for (const { invocation } of builds) {
    records.set(invocation, {
      invocation,
      asked: 0,
      answered: 0,
      hits: 0,
      failed: 0,
      endMs: undefined,
      abandoned: false,
    });
  }

  function laneOf(node: number): number {
    const taken = new Set<number>();
    for (const span of running.values()) if (span.node === node) taken.add(span.lane);
    let lane = 0;
    while (taken.has(lane)) lane += 1;
    return lane;
  }

  function runName(node: SimNode, run: number): string {
    return `${node.index} ${node.life()} ${run}`;
  }

  const factory: CheckerFactory = (world) => ({
    name: 'recorder',
    observed: () => spans.length,
    onExecute(node, item) {
      const build = records.get(item.invocation.slice(0, item.invocation.lastIndexOf('/')));
      if (!build) return;
      build.asked += 1;
      open.set(item.request, { key: item.key, node, build });
    },
    onAnswer(node, request, answer) {
      const one = open.get(request);
      if (!one) return;
      open.delete(request);
      const { build } = one;
      const source = answer.kind === 'result' ? answer.source : answer.reason;
      answers[source] = (answers[source] ?? 0) + 1;
      build.answered += 1;
      if (answer.kind === 'failed') {
        build.failed += 1;
        failed += 1;
      } else if (!ran.has(request)) build.hits += 1;
      for (const record of faults.values()) {
        if (record.interrupted.has(request)) record.lastAnswerMs = world.nowMs();
      }
      if (build.answered === sizes.get(build.invocation)) {
        build.endMs = world.nowMs();
        unfinished -= 1;
      }
    },
    onRun(node, effect) {
      const span: RunSpan = {
        node: node.index,
        lane: laneOf(node.index),
        key: effect.key,
        request: effect.request,
        guest: effect.guest,
        fromMs: world.nowMs(),
        toMs: world.nowMs(),
        end: 'open',
      };
      spans.push(span);
      running.set(runName(node, effect.run), span);
    },
    onRunEnd(node, run, end) {
      const name = runName(node, run);
      // A machine that lost power has begun its next life already.
      const span = running.get(name) ?? running.get(`${node.index} ${node.life() - 1} ${run}`);
      if (!span) return;
      running.delete(name);
      running.delete(`${node.index} ${node.life() - 1} ${run}`);
      span.toMs = world.nowMs();
      span.end = end;
      // One that began at once may be stopped when somebody else had it already: what answers it is the other's.
      if (end === 'done') ran.add(span.request);
      if (end !== 'done' || actions.get(span.key)?.sim.doNotCache) return;
      const times = (completed.get(span.key) ?? 0) + 1;
      completed.set(span.key, times);
      if (times > 1) duplicated += 1;
    },
    onDown(node) {
      ports.silent(node.index);
      for (const [request, one] of open) {
        if (one.node !== node) continue;
        open.delete(request);
        if (one.build.abandoned) continue;
        one.build.abandoned = true;
        unfinished -= 1;
      }
    },
    onFault(fault) {
      const index = faultOf.get(fault);
      if (index === undefined) return;
      let record = faults.get(index);
      if (!record) faults.set(index, (record = { interrupted: new Set(), lastAnswerMs: 0 }));
      for (const request of interruptedBy(world, fault)) record.interrupted.add(request);
      if (fault.kind === 'suspend' || fault.kind === 'pause') for (const node of fault.nodes) ports.silent(node);
    },
    onSecond() {
      sample(world);
      if (unfinished === 0 && running.size === 0 && world.nowMs() >= lastFaultEndMs + sampleMs) ports.stop();
    },
  });

  /** Requests of others whose run is on a machine that the fault hits, or beyond a link that it cuts. */
  function interruptedBy(world: World, fault: Fault): RequestId[] {
    const index = faultOf.get(fault);
    // Faults of one line of the scenario begin together: whoever sleeps too asks for nothing meanwhile.
    const hit = new Set(plan.faults.flatMap((other) => (faultOf.get(other) === index ? other.nodes : [])));
    const blocked = new Set((fault.links ?? []).map(([from, to]) => `${from} ${to}`));
    const interrupted: RequestId[] = [];
    for (const { node: executor, request } of running.values()) {
      const client = open.get(request)?.node.index;
      if (client === undefined || client === executor || !world.nodes[executor]) continue;
      if ((hit.has(executor) && !hit.has(client)) || blocked.has(`${client} ${executor}`)) interrupted.push(request);
    }
    return interrupted;
  }

  function sample(world: World): void {
    const nowMs = world.nowMs();
    for (const node of world.nodes) {
      const state = node.state();
      const now: Presence | undefined =
        state === 'down' ? 'down' : state !== 'up' ? 'asleep' : node.ownerPresent() ? 'owner' : undefined;
      const span = current.get(node.index);
      if (span && span.presence === now) span.toMs = nowMs;
      else {
        current.delete(node.index);
        if (span) span.toMs = nowMs;
        if (now) {
          const begun: PresenceSpan = {
            node: node.index,
            presence: now,
            fromMs: Math.max(0, nowMs - sampleMs),
            toMs: nowMs,
          };
          presence.push(begun);
          current.set(node.index, begun);
        }
      }
    }
  }

  return {
    factory,
    result: () => ({
      spans,
      builds: records,
      faults,
      presence,
      lostActions: failed + open.size,
      unanswered: [...open.keys()],
      duplicated,
      answers,
    }),
  };
}

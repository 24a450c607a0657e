/** The users: they start builds, ask for one action after another as its needs are met, lose patience, and go home. */
import type { Answer, ExecuteItem } from '../mesh/core/agents/submitter/types.ts';
import type { RequestId } from '../mesh/core/ids.ts';
import type { Engine } from './engine.ts';
import type { SimNode } from './node.ts';
import type { Build, SimAction } from './workload.ts';

export interface ClientPorts {
  execute(node: SimNode, item: Omit<ExecuteItem, 'shard'>, action: SimAction): void;
  cancel(node: SimNode, request: RequestId): void;
  ended(node: SimNode, invocation: string): void;
}

export interface Clients {
  schedule(build: Build, node: () => SimNode): void;
  answered(node: SimNode, request: RequestId, answer: Answer): void;
  /** The client died with its machine. */
  nodeDown(node: SimNode): void;
}

interface Running {
  readonly build: Build;
  readonly node: SimNode;
  readonly invocation: string;
  /** Actions not yet answered, by number, with how many needs are open. */
  readonly open: Map<number, number>;
  readonly asked: Map<RequestId, number>;
  /** Ready, and waiting for one of the client's jobs. */
  readonly ready: number[];
}

/** How long a user waits for a machine that is off or asleep before trying again. */
const retryUs = 5_000_000;

export function createClients(engine: Engine, ports: ClientPorts): Clients {
  const byRequest = new Map<RequestId, Running>();
  const running = new Set<Running>();
  let requests = 0;

  function start(build: Build, node: SimNode): void {
    if (node.state() !== 'up') {
      engine.after(retryUs, () => start(build, node));
      return;
    }
    const invocation = `${build.invocation}/${node.life()}`;
    const open = new Map(build.actions.map(({ needs }, number) => [number, needs.length]));
    const run: Running = { build, node, invocation, open, asked: new Map(), ready: [] };
    running.add(run);
    if (build.cancelAfterMs !== undefined) engine.after(build.cancelAfterMs * 1_000, () => cancel(run));
    for (const [number, needs] of [...open]) if (needs === 0) ask(run, number);
  }

  function ask(run: Running, number: number): void {
    if (!running.has(run)) return;
    if (run.build.jobs !== undefined && run.asked.size >= run.build.jobs) {
      run.ready.push(number);
      return;
    }
    const { action } = run.build.actions[number] as Build['actions'][number];
    requests += 1;
    const request = `${run.node.id}/${requests}`;
    run.asked.set(request, number);
    byRequest.set(request, run);
    ports.execute(
      run.node,
      {
        request,
        key: action.key,
        invocation: run.invocation,
        priority: run.build.priority,
        requires: ['os=linux'],
        spaceBytes: action.outputBytes * 2,
        inputs: [],
        doNotCache: action.doNotCache,
        skipCacheLookup: run.build.skipCacheLookup,
        expectedMs: action.durationMs,
        mnemonic: action.mnemonic,
        family: action.key,
        inputBytes: action.inputBytes,
      },
      action,
    );
  }

  function cancel(run: Running): void {
    if (!running.delete(run)) return;
    for (const request of run.asked.keys()) {
      byRequest.delete(request);
      ports.cancel(run.node, request);
    }
    ports.ended(run.node, run.invocation);
  }

  return {
    schedule: (build, node) => engine.at(build.atMs * 1_000, () => start(build, node())),
    answered(node, request) {
      const run = byRequest.get(request);
      if (!run) return;
      byRequest.delete(request);
      const number = run.asked.get(request) as number;
      run.asked.delete(request);
      run.open.delete(number);
      const waiting = run.ready.shift();
      if (waiting !== undefined) engine.after(1_000, () => ask(run, waiting));
      for (const [other, { needs }] of run.build.actions.entries()) {
        if (!needs.includes(number)) continue;
        const left = (run.open.get(other) as number) - 1;
        run.open.set(other, left);
        // The client looks at the answer before it asks for the next; this also keeps the peer from being re-entered.
        if (left === 0) engine.after(1_000, () => ask(run, other));
      }
      if (run.open.size > 0) return;
      running.delete(run);
      engine.after(1_000, () => ports.ended(node, run.invocation));
    },
    nodeDown(node) {
      for (const run of running) {
        if (run.node !== node) continue;
        running.delete(run);
        for (const request of run.asked.keys()) byRequest.delete(request);
      }
    },
  };
}

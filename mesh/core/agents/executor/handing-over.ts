/** What happens to a run that ended: its outputs are promised, handed to the submitter, and committed with the token. */
import type { ClaimMessage, RunningClaim } from '../../claims/messages.ts';
import type { NodeId, Token } from '../../ids.ts';
import { executorLimits as limits } from '../limits.ts';
import type { AgentMessage, Outcome } from '../messages.ts';
import { type Run, refOf, type RunTable } from './runs.ts';
import type { ExecutorConfig, ExecutorEffect } from './types.ts';

export interface HandingOverPort {
  emit(effect: ExecutorEffect): void;
  send(to: NodeId, message: ClaimMessage | AgentMessage): void;
  giveBack(run: Run): void;
  capabilities(): readonly string[];
}

export interface HandingOver {
  /** The run ended by itself. */
  ran(run: Run, outcome: Outcome, runMs: number, nowMs: number): void;
  /** Its outputs are pinned for so long, or not at all. */
  pinned(run: Run, forMs: number | undefined, nowMs: number): void;
  commit(run: Run, nowMs: number): void;
  /** The claim goes on under another token. */
  adopted(run: Run, nowMs: number): void;
  /** Another leader has to adopt the claim before it counts. */
  follow(run: Run, leader: NodeId | undefined, nowMs: number): void;
  /** Every claim may be somebody else's by now; the leader says whose it is. */
  followAll(nowMs: number): void;
  onTimers(nowMs: number): void;
  dueAtMs(): number;
}

export function createHandingOver(config: ExecutorConfig, runs: RunTable, port: HandingOverPort): HandingOver {
  const { self } = config;
  let registerAtMs = Number.POSITIVE_INFINITY;

  function isCacheable(run: Run): boolean {
    return run.outcome?.cacheable === true && !run.doNotCache;
  }

  function commit(run: Run, nowMs: number): void {
    run.phase = 'committing';
    run.dueAtMs = nowMs + limits.commitRetryMs;
    run.attempts += 1;
    if (run.attempts > limits.commitAttempts) return port.giveBack(run);
    if (run.leader === undefined || run.registering) return;
    const { result } = run.outcome as Outcome;
    const cacheable = isCacheable(run);
    port.send(run.leader, { kind: 'commit', claim: refOf(run), result, cacheable, promises: run.promises });
  }

  function offerOutputs(run: Run): void {
    const { shard, key, request, runMs } = run;
    const [token, outcome] = [run.token as Token, run.outcome as Outcome];
    port.send(run.submitter, { kind: 'handOver', shard, key, request, token, outcome, runMs });
  }

  /** A leader that is still taking over drops what comes too early: it is told again, well before it gives claims away. */
  function registerAll(nowMs: number): void {
    registerAtMs = Number.POSITIVE_INFINITY;
    const byLeader = new Map<NodeId, RunningClaim[]>();
    for (const run of runs.all()) {
      if (!run.registering || run.leader === undefined) continue;
      const { request, submitter, doNotCache, spaceBytes } = run;
      const claim = { ...refOf(run), request, submitter, doNotCache, requires: port.capabilities(), spaceBytes };
      append(byLeader, run.leader, claim);
    }
    for (const [leader, claims] of byLeader) port.send(leader, { kind: 'register', claims });
    if (byLeader.size > 0) registerAtMs = nowMs + limits.registerRetryMs;
  }

  function publish(run: Run, nowMs: number): void {
    // The own client has its answer already.
    if (run.submitter === self) return commit(run, nowMs);
    run.phase = 'handingOver';
    run.dueAtMs = nowMs + limits.handOverMs;
    offerOutputs(run);
  }

  return {
    ran(run, outcome, runMs, nowMs) {
      Object.assign(run, { outcome, runMs });
      if (run.reserved) port.emit({ kind: 'release', run: run.run });
      run.reserved = false;
      if (run.own !== undefined) {
        const { own: request, token } = run;
        port.emit({ kind: 'ownEnded', request, token, outcome, reason: undefined, runMs });
        run.own = undefined;
      }
      if (run.token === undefined) return runs.end(run);
      run.phase = 'promising';
      if (!isCacheable(run) && run.submitter === self) return publish(run, nowMs);
      port.emit({ kind: 'pinOutputs', run: run.run, outcome });
    },
    pinned(run, forMs, nowMs) {
      if (run.phase !== 'promising') return;
      if (forMs !== undefined) {
        run.promises.push({ holder: self, storeGeneration: config.storeGeneration, pinnedForMs: forMs });
      }
      publish(run, nowMs);
    },
    commit,
    adopted(run, nowMs) {
      if (run.phase === 'handingOver') offerOutputs(run);
      if (run.phase === 'committing') commit(run, nowMs);
    },
    follow(run, leader, nowMs) {
      run.leader = leader;
      run.registering = true;
      registerAtMs = nowMs;
    },
    followAll(nowMs) {
      for (const run of runs.all()) if (run.token) run.registering = true;
      registerAtMs = nowMs;
    },
    onTimers(nowMs) {
      for (const run of [...runs.all()]) {
        if (nowMs < run.dueAtMs) continue;
        if (run.phase === 'handingOver' || run.phase === 'committing') commit(run, nowMs);
      }
      if (nowMs >= registerAtMs) registerAll(nowMs);
    },
    dueAtMs() {
      let next = registerAtMs;
      for (const run of runs.all()) next = Math.min(next, run.dueAtMs);
      return next;
    },
  };
}

export function append<K, V>(groups: Map<K, V[]>, key: K, value: V): void {
  const group = groups.get(key);
  if (group) group.push(value);
  else groups.set(key, [value]);
}

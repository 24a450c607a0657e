/**
 * Runs actions for the mesh: pulls claims while there are free slots, keeps them alive, fetches inputs, runs, keeps the
 * outputs, hands them to the submitter, and commits with the claim's token.
 *
 * A claim is this node's only as long as its leader says so; losing it stops the run and nothing else. Guests yield to
 * the owner at once: they are frozen, then given back and killed.
 */
import {
  type ActionKey,
  compareTokens,
  tokenText,
  type NodeId,
  type RequestId,
  type ShardId,
  type Token,
} from '../ids.ts';
import type { ClaimMessage, ClaimRef, FailureReason, GrantedClaim, RunningClaim } from '../claims/messages.ts';
import type { HolderPromise } from '../registers/types.ts';
import { executorLimits as limits } from './limits.ts';
import type { AgentMessage, Outcome } from './messages.ts';
import type { Executor, ExecutorConfig, ExecutorEffect, ExecutorEvent, RunPhase } from './executor/types.ts';

interface Run {
  readonly run: number;
  readonly key: ActionKey;
  readonly shard: ShardId;
  request: RequestId;
  submitter: NodeId;
  readonly guest: boolean;
  readonly doNotCache: boolean;
  readonly spaceBytes: number;
  token: Token | undefined;
  /** A reservation: inputs may be fetched, and nothing runs before its leader confirmed the start. */
  prefetch: boolean;
  /** The leader was asked to confirm the start. */
  starting: boolean;
  leader: NodeId | undefined;
  phase: RunPhase;
  reserved: boolean;
  frozen: boolean;
  expiresAtMs: number;
  expiresInMs: number;
  outcome: Outcome | undefined;
  promises: HolderPromise[];
  /** When the present phase is pushed on: the hand-over given up, the commit or registration repeated. */
  dueAtMs: number;
  attempts: number;
  /** The leader changed and has not yet adopted this claim. */
  registering: boolean;
}

interface Pull {
  slots: number;
  ownOnly: boolean;
  notBeforeMs: number;
  sentAtMs: number;
  workAtMs: number;
}

/** Creates the machine, with no slots until its first `slots` event. */
export function createExecutor(config: ExecutorConfig): Executor {
  const { self } = config;
  const runs = new Map<number, Run>();
  const byClaim = new Map<string, Run>();
  const ownQueue: { readonly request: RequestId; readonly key: ActionKey; readonly spaceBytes: number }[] = [];
  const pulls = new Map<NodeId, Pull>();
  const leaders = new Map<ShardId, NodeId | undefined>();
  let slots = 0;
  let guests = false;
  let capabilities: readonly string[] = [];
  let ownerPresent = false;
  let wasWelcome = false;
  let giveBackAtMs = Number.POSITIVE_INFINITY;
  let nextRun = 0;
  let nextPull = 0;
  let renewAtMs = Number.POSITIVE_INFINITY;
  let registerAtMs = Number.POSITIVE_INFINITY;
  let ownBlockedUntilMs = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let effects: ExecutorEffect[] = [];

  function send(to: NodeId, message: ClaimMessage | AgentMessage): void {
    effects.push({ kind: 'send', to, message });
  }

  function freeSlots(): number {
    let free = slots;
    for (const run of runs.values()) if (occupies(run)) free -= 1;
    return Math.max(0, free);
  }

  function reservations(): number {
    let held = 0;
    for (const run of runs.values()) if (run.prefetch) held += 1;
    return held;
  }

  /** Whether guests may be taken in. */
  function welcome(): boolean {
    return guests && !ownerPresent;
  }

  function refOf(run: Run): ClaimRef {
    return { shard: run.shard, key: run.key, token: run.token as Token };
  }

  function end(run: Run): void {
    runs.delete(run.run);
    if (run.token) byClaim.delete(claimName(run.key, run.token));
    if (run.reserved) effects.push({ kind: 'release', run: run.run });
  }

  /** Stops whatever the run does. What is already durable stays. */
  function stop(run: Run): void {
    if (run.phase === 'running' || run.phase === 'fetching') effects.push({ kind: 'kill', run: run.run });
    end(run);
  }

  function giveBack(run: Run): void {
    if (run.leader !== undefined && run.token) send(run.leader, { kind: 'giveBack', claims: [refOf(run)] });
    stop(run);
  }

  function accept(from: NodeId, claim: GrantedClaim, nowMs: number): void {
    if (byClaim.has(claimName(claim.key, claim.token))) return;
    const twin = claim.doNotCache ? undefined : sameAction(claim.key);
    if (twin?.token && compareTokens(claim.token, twin.token) > 0) {
      // Its leader forgot the claim under which this very action already runs here: go on under the new one.
      twin.request = claim.request;
      twin.submitter = claim.submitter;
      adopt(twin, from, claim.token, claim.expiresInMs, nowMs);
      return;
    }
    const ref: ClaimRef = { shard: claim.shard, key: claim.key, token: claim.token };
    const unwelcome = !welcome() && claim.submitter !== self;
    const full = claim.reserved ? reservations() >= limits.reservationsMax : freeSlots() === 0;
    if (unwelcome || full || runs.size >= limits.runsMax) {
      // A leader that offers what this node cannot take is asked again only after a while.
      const pull = pulls.get(from);
      if (pull) pull.notBeforeMs = nowMs + limits.refusedPullMs;
      return send(from, { kind: 'giveBack', claims: [ref] });
    }
    nextRun += 1;
    const run: Run = {
      run: nextRun,
      key: claim.key,
      shard: claim.shard,
      request: claim.request,
      submitter: claim.submitter,
      guest: claim.submitter !== self,
      doNotCache: claim.doNotCache,
      spaceBytes: claim.spaceBytes,
      token: claim.token,
      prefetch: claim.reserved,
      starting: false,
      leader: from,
      phase: 'reserving',
      reserved: false,
      frozen: false,
      expiresAtMs: nowMs + claim.expiresInMs,
      expiresInMs: claim.expiresInMs,
      outcome: undefined,
      promises: [],
      dueAtMs: Number.POSITIVE_INFINITY,
      attempts: 0,
      registering: false,
    };
    runs.set(run.run, run);
    byClaim.set(claimName(run.key, claim.token), run);
    // The grant was under way when the leadership changed.
    const leader = leaders.get(run.shard);
    if (leader !== undefined && leader !== from) follow(run, leader, nowMs);
    renewAtMs = Math.min(renewAtMs, nowMs + renewEvery(run));
    effects.push({ kind: 'reserve', run: run.run, spaceBytes: run.spaceBytes });
  }

  function renewEvery(run: Run): number {
    return Math.max(limits.renewMsMin, Math.trunc(run.expiresInMs / 3));
  }

  function startOwn(nowMs: number): void {
    if (nowMs < ownBlockedUntilMs) return;
    ownBlockedUntilMs = 0;
    while (ownQueue.length > 0 && freeSlots() > 0) {
      const own = ownQueue.shift() as (typeof ownQueue)[number];
      nextRun += 1;
      const run: Run = {
        run: nextRun,
        key: own.key,
        shard: -1,
        request: own.request,
        submitter: self,
        guest: false,
        doNotCache: false,
        spaceBytes: own.spaceBytes,
        token: undefined,
        prefetch: false,
        starting: false,
        leader: undefined,
        phase: 'reserving',
        reserved: false,
        frozen: false,
        expiresAtMs: Number.POSITIVE_INFINITY,
        expiresInMs: Number.POSITIVE_INFINITY,
        outcome: undefined,
        promises: [],
        dueAtMs: Number.POSITIVE_INFINITY,
        attempts: 0,
        registering: false,
      };
      runs.set(run.run, run);
      effects.push({ kind: 'reserve', run: run.run, spaceBytes: run.spaceBytes });
    }
  }

  /** The own client's action waits while others hold room that they will give back; alone it never will have enough. */
  function waitForRoom(run: Run, nowMs: number): void {
    if (![...runs.values()].some((other) => other.reserved)) return failed(run, 'executorFault');
    end(run);
    ownQueue.unshift({ request: run.request, key: run.key, spaceBytes: run.spaceBytes });
    ownBlockedUntilMs = nowMs + limits.roomRetryMs;
  }

  function fetchOrRun(run: Run): void {
    if (run.submitter !== self) {
      run.phase = 'fetching';
      effects.push({ kind: 'fetchInputs', run: run.run, from: run.submitter, key: run.key, request: run.request });
      return;
    }
    begin(run);
  }

  /** Inputs are here. */
  function begin(run: Run): void {
    if (run.prefetch || run.frozen) {
      run.phase = 'waiting';
      return;
    }
    run.phase = 'running';
    effects.push({
      kind: 'run',
      run: run.run,
      key: run.key,
      request: run.request,
      guest: run.guest,
      token: run.token,
    });
  }

  function failed(run: Run, reason: FailureReason): void {
    if (run.token === undefined) {
      end(run);
      effects.push({ kind: 'ownEnded', request: run.request, outcome: undefined, reason });
      return;
    }
    if (run.leader !== undefined) send(run.leader, { kind: 'fail', claim: refOf(run), reason });
    end(run);
  }

  function ran(run: Run, outcome: Outcome): void {
    run.outcome = outcome;
    if (run.reserved) effects.push({ kind: 'release', run: run.run });
    run.reserved = false;
    if (run.token === undefined) {
      end(run);
      effects.push({ kind: 'ownEnded', request: run.request, outcome, reason: undefined });
      return;
    }
    run.phase = 'promising';
    effects.push({ kind: 'pinOutputs', run: run.run, outcome });
  }

  function handOver(run: Run, nowMs: number): void {
    run.phase = 'handingOver';
    run.dueAtMs = nowMs + limits.handOverMs;
    offerOutputs(run);
  }

  function offerOutputs(run: Run): void {
    send(run.submitter, {
      kind: 'handOver',
      shard: run.shard,
      key: run.key,
      request: run.request,
      token: run.token as Token,
      outcome: run.outcome as Outcome,
    });
  }

  function commit(run: Run, nowMs: number): void {
    run.phase = 'committing';
    run.dueAtMs = nowMs + limits.commitRetryMs;
    run.attempts += 1;
    if (run.attempts > limits.commitAttempts) {
      giveBack(run);
      return;
    }
    if (run.leader === undefined) return;
    if (run.registering) return;
    const result = (run.outcome as Outcome).result;
    send(run.leader, { kind: 'commit', claim: refOf(run), result, promises: run.promises });
  }

  function register(leader: NodeId, those: readonly Run[]): void {
    const claims: RunningClaim[] = those.map((run) => ({
      ...refOf(run),
      request: run.request,
      submitter: run.submitter,
      doNotCache: run.doNotCache,
      requires: capabilities,
      spaceBytes: run.spaceBytes,
    }));
    if (claims.length > 0) send(leader, { kind: 'register', claims });
  }

  /** A leader that is still taking over drops what comes too early: it is told again, well before it gives claims away. */
  function registerAgain(nowMs: number): void {
    registerAtMs = Number.POSITIVE_INFINITY;
    const byLeader = new Map<NodeId, Run[]>();
    for (const run of runs.values()) {
      if (run.registering && run.leader !== undefined) append(byLeader, run.leader, run);
    }
    for (const [leader, those] of byLeader) register(leader, those);
    if (byLeader.size > 0) registerAtMs = nowMs + limits.registerRetryMs;
  }

  function withToken(claim: { readonly key: ActionKey; readonly token: Token }): Run | undefined {
    return byClaim.get(claimName(claim.key, claim.token));
  }

  function sameAction(key: ActionKey): Run | undefined {
    for (const run of runs.values()) if (run.key === key && run.token && !run.doNotCache) return run;
    return undefined;
  }

  function adopt(run: Run, leader: NodeId, token: Token, expiresInMs: number, nowMs: number): void {
    byClaim.delete(claimName(run.key, run.token as Token));
    byClaim.set(claimName(run.key, token), run);
    run.token = token;
    run.leader = leader;
    run.registering = false;
    run.expiresInMs = expiresInMs;
    run.expiresAtMs = nowMs + expiresInMs;
    if (run.phase === 'handingOver') offerOutputs(run);
    if (run.phase === 'committing') commit(run, nowMs);
  }

  /** Gives free slots to reservations, oldest first; each start is confirmed by the leader, who may have given it away. */
  function startReserved(): void {
    let free = freeSlots();
    for (const run of runs.values()) {
      if (!run.prefetch || run.leader === undefined || run.registering) continue;
      if (run.starting) free -= 1;
      else if (free > 0) {
        free -= 1;
        run.starting = true;
        send(run.leader, { kind: 'start', claim: refOf(run) });
      }
    }
  }

  function onMessage(from: NodeId, message: ClaimMessage | AgentMessage, nowMs: number): void {
    switch (message.kind) {
      case 'granted': {
        const pull = pulls.get(from);
        if (pull) {
          pull.slots = -1;
          pull.workAtMs = nowMs;
        }
        for (const claim of message.claims) accept(from, claim, nowMs);
        return;
      }
      case 'renewed':
        for (const claim of message.claims) {
          const run = withToken(claim);
          if (!run) continue;
          run.expiresInMs = message.expiresInMs;
          run.expiresAtMs = nowMs + message.expiresInMs;
        }
        return;
      case 'revoked':
        for (const claim of message.claims) {
          const run = withToken(claim);
          if (run) stop(run);
        }
        return;
      case 'adopted': {
        const run = withToken({ key: message.claim.key, token: message.old });
        if (run) adopt(run, from, message.claim.token, message.expiresInMs, nowMs);
        return;
      }
      case 'started': {
        const run = withToken(message.claim);
        if (!run?.prefetch) return;
        run.prefetch = false;
        if (run.phase === 'waiting') begin(run);
        return;
      }
      case 'committed': {
        const run = withToken(message.claim);
        if (run?.phase !== 'committing') return;
        if (message.outcome === 'lost') {
          run.registering = true;
          registerAtMs = nowMs;
        } else end(run);
        return;
      }
      case 'handedOver': {
        const run = withToken(message);
        if (run?.phase !== 'handingOver') return;
        if (message.promise) run.promises.push(message.promise);
        commit(run, nowMs);
        return;
      }
      case 'handOverRefused': {
        const run = withToken(message);
        // The submitter may know less or more than the leader, which alone decides: publish without its promise.
        if (run?.phase === 'handingOver') commit(run, nowMs);
        return;
      }
      // What leaders and submitters are told is not for this machine.
      default:
        return;
    }
  }

  /** Freezes guests when they are no longer welcome, and thaws them when they are again before they were given back. */
  function onWelcome(nowMs: number): void {
    if (welcome() === wasWelcome) return;
    wasWelcome = welcome();
    giveBackAtMs = wasWelcome ? Number.POSITIVE_INFINITY : nowMs + limits.freezeMs;
    for (const run of runs.values()) {
      if (!run.guest) continue;
      run.frozen = !wasWelcome;
      if (run.phase === 'running') effects.push({ kind: wasWelcome ? 'thaw' : 'freeze', run: run.run });
      else if (run.phase === 'waiting' && wasWelcome) begin(run);
    }
  }

  function onLeader(shard: ShardId, leader: NodeId | undefined, nowMs: number): void {
    leaders.set(shard, leader);
    for (const run of runs.values()) {
      if (run.token !== undefined && run.shard === shard && run.leader !== leader) follow(run, leader, nowMs);
    }
  }

  /** Another leader has to adopt the claim before it counts. */
  function follow(run: Run, leader: NodeId | undefined, nowMs: number): void {
    run.leader = leader;
    run.registering = true;
    registerAtMs = nowMs;
  }

  /** Keeps one pull at every leader that may have work, for as many slots as are free. */
  function pullWork(nowMs: number): void {
    const offered = freeSlots();
    const ownOnly = !welcome();
    for (const [leader, pull] of pulls) {
      const stale = nowMs - pull.sentAtMs >= limits.pullRefreshMs;
      if (nowMs - pull.workAtMs > limits.hintMs) {
        if (pull.slots > 0) send(leader, pullFor(0));
        pulls.delete(leader);
      } else if (nowMs < pull.notBeforeMs) continue;
      else if (pull.slots !== offered || pull.ownOnly !== ownOnly || (stale && offered > 0))
        sendPull(leader, pull, offered, nowMs);
    }
  }

  /** When this pull has to be looked at again, if nothing happens before. */
  function pullDueMs(pull: Pull): number {
    const forgottenMs = pull.workAtMs + limits.hintMs + 1;
    const refreshMs = pull.slots > 0 ? pull.sentAtMs + limits.pullRefreshMs : forgottenMs;
    return Math.max(pull.notBeforeMs, Math.min(forgottenMs, refreshMs));
  }

  function sendPull(leader: NodeId, pull: Pull, offered: number, nowMs: number): void {
    pull.slots = offered;
    pull.ownOnly = !welcome();
    pull.sentAtMs = nowMs;
    send(leader, pullFor(offered));
  }

  function pullFor(offered: number): ClaimMessage {
    nextPull += 1;
    const [freeBytes, holds] = [config.freeBytes(), config.holds()];
    return {
      kind: 'pull',
      id: nextPull,
      slots: offered,
      reservations: offered === 0 && welcome() ? Math.max(0, limits.reservationsMax - reservations()) : 0,
      ownOnly: !welcome(),
      capabilities,
      freeBytes,
      holds,
    };
  }

  function renew(nowMs: number): void {
    renewAtMs = Number.POSITIVE_INFINITY;
    const byLeader = new Map<NodeId, ClaimRef[]>();
    for (const run of runs.values()) {
      if (run.token === undefined) continue;
      renewAtMs = Math.min(renewAtMs, nowMs + renewEvery(run));
      if (run.leader === undefined) continue;
      if (!run.registering) append(byLeader, run.leader, refOf(run));
      // A start that was not confirmed by now is asked for again.
      if (run.prefetch) run.starting = false;
    }
    for (const [leader, claims] of byLeader) send(leader, { kind: 'renewClaims', claims });
  }

  function onTimers(nowMs: number): void {
    if (nowMs >= giveBackAtMs) {
      giveBackAtMs = Number.POSITIVE_INFINITY;
      for (const run of runs.values()) if (run.guest && working(run)) giveBack(run);
    }
    for (const run of runs.values()) {
      if (nowMs < run.dueAtMs) continue;
      if (run.phase === 'handingOver' || run.phase === 'committing') commit(run, nowMs);
    }
    if (nowMs >= registerAtMs) registerAgain(nowMs);
    if (nowMs >= renewAtMs) renew(nowMs);
  }

  /** Outputs that wait for a hand-over or a commit need no slot, and neither do reservations. */
  function occupies(run: Run): boolean {
    return !run.prefetch && working(run);
  }

  function working(run: Run): boolean {
    return run.phase === 'reserving' || run.phase === 'fetching' || run.phase === 'waiting' || run.phase === 'running';
  }

  function apply(event: ExecutorEvent, nowMs: number): void {
    switch (event.kind) {
      case 'wake':
        return;
      case 'gap':
        // Every claim may be somebody else's by now; the leader says whose it is.
        for (const run of runs.values()) if (run.token) run.registering = true;
        registerAtMs = nowMs;
        pulls.clear();
        renewAtMs = nowMs;
        return;
      case 'message':
        return onMessage(event.from, event.message, nowMs);
      case 'slots':
        slots = event.slots;
        guests = event.guests;
        capabilities = event.capabilities;
        return onWelcome(nowMs);
      case 'owner':
        ownerPresent = event.present;
        return onWelcome(nowMs);
      case 'workAt': {
        const pull = pulls.get(event.leader);
        if (pull) pull.workAtMs = nowMs;
        else if (pulls.size < limits.pullsMax) {
          pulls.set(event.leader, { slots: 0, ownOnly: false, notBeforeMs: nowMs, sentAtMs: nowMs, workAtMs: nowMs });
        }
        return;
      }
      case 'leader':
        return onLeader(event.shard, event.leader, nowMs);
      case 'absent':
        pulls.delete(event.node);
        for (const run of runs.values()) {
          if (run.submitter === event.node && run.phase === 'handingOver') commit(run, nowMs);
        }
        return;
      case 'goodbye':
        for (const run of runs.values()) if (run.token && working(run)) giveBack(run);
        for (const leader of pulls.keys()) send(leader, pullFor(0));
        pulls.clear();
        return;
      case 'runOwn':
        ownQueue.push({ request: event.request, key: event.key, spaceBytes: event.spaceBytes });
        return;
      case 'stopOwn': {
        const at = ownQueue.findIndex((own) => own.request === event.request);
        if (at >= 0) ownQueue.splice(at, 1);
        for (const run of runs.values()) if (run.token === undefined && run.request === event.request) stop(run);
        return;
      }
      default:
        return onRunEvent(event, nowMs);
    }
  }

  function onRunEvent(event: Extract<ExecutorEvent, { readonly run: number }>, nowMs: number): void {
    const run = runs.get(event.run);
    if (!run) {
      // It was stopped meanwhile; a reservation that arrives late is let go.
      if (event.kind === 'reserved') effects.push({ kind: 'release', run: event.run });
      return;
    }
    switch (event.kind) {
      case 'reserved':
        run.reserved = true;
        return fetchOrRun(run);
      case 'reserveRefused':
        return run.token === undefined ? waitForRoom(run, nowMs) : giveBack(run);
      case 'fetched':
        if (run.phase !== 'fetching') return;
        return event.ok ? begin(run) : failed(run, 'inputsMissing');
      case 'ran':
        return ran(run, event.outcome);
      case 'runFailed':
        return failed(run, event.reason);
      case 'pinned':
        run.promises.push({ holder: self, storeGeneration: config.storeGeneration, pinnedForMs: event.forMs });
        return handOver(run, nowMs);
      case 'pinRefused':
        return handOver(run, nowMs);
      default:
        event satisfies never;
    }
  }

  return {
    step(event, nowMs) {
      effects = [];
      apply(event, nowMs);
      onTimers(nowMs);
      startOwn(nowMs);
      startReserved();
      pullWork(nowMs);
      let next = Math.min(renewAtMs, registerAtMs, giveBackAtMs);
      if (ownBlockedUntilMs > nowMs) next = Math.min(next, ownBlockedUntilMs);
      for (const run of runs.values()) next = Math.min(next, run.dueAtMs);
      for (const pull of pulls.values()) next = Math.min(next, pullDueMs(pull));
      if (next !== wakeAtMs || event.kind === 'wake') effects.push({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
    runs: () => runs.values(),
    freeSlots,
  };
}

function append<K, V>(groups: Map<K, V[]>, key: K, value: V): void {
  const group = groups.get(key);
  if (group) group.push(value);
  else groups.set(key, [value]);
}

function claimName(key: ActionKey, token: Token): string {
  return `${key} ${tokenText(token)}`;
}

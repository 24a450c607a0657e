/**
 * Runs actions: those of own clients that stay here, and those that it pulls claims for while there are free slots. Keeps
 * claims alive, fetches inputs, runs, keeps the outputs, hands them to the submitter, and commits with the claim's token.
 *
 * A claim is this node's only as long as its leader says so. Losing it stops a guest, and nothing else; a run that an own
 * client waits for goes on without it. Guests yield to the owner at once (executor/yielding.ts).
 *
 * Members are believed for what they are: what a leader says counts only from the leader of the claim, and what a submitter
 * says only from the submitter. Who is told by the wrong one repeats its own question, to the right one.
 */
import type { ClaimMessage, ClaimRef, FailureReason, GrantedClaim } from '../claims/messages.ts';
import { compareTokens, type NodeId, type RequestId, type ShardId, type Token } from '../ids.ts';
import { append, createHandingOver } from './executor/handing-over.ts';
import { createPulling } from './executor/pulling.ts';
import { createRunTable, type OwnAction, isLedBy, type Run, refOf, renewEvery, working } from './executor/runs.ts';
import type { Executor, ExecutorConfig, ExecutorEffect, ExecutorEvent } from './executor/types.ts';
import { createYielding } from './executor/yielding.ts';
import { executorLimits as limits } from './limits.ts';
import type { AgentMessage } from './messages.ts';

/** Creates the machine, with no slots until its first `slots` event. */
export function createExecutor(config: ExecutorConfig): Executor {
  const { self } = config;
  const runs = createRunTable(self, emit);
  const ownQueue: OwnAction[] = [];
  const leaders = new Map<ShardId, NodeId | undefined>();
  let slots = 0;
  let guestSlots = 0;
  let capabilities: readonly string[] = [];
  let told = { slots: 0, free: 0, capabilities };
  let renewAtMs = Number.POSITIVE_INFINITY;
  let ownBlockedUntilMs = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  let effects: ExecutorEffect[] = [];

  const yielding = createYielding({
    guests: function* () {
      for (const run of runs.all()) if (run.guest && working(run)) yield run;
    },
    freeze(run) {
      run.frozen = true;
      emit({ kind: 'freeze', run: run.run });
      sayStage(run, 'frozen');
    },
    thaw(run) {
      if (!run.frozen) return;
      run.frozen = false;
      emit({ kind: 'thaw', run: run.run });
      sayStage(run, 'executing');
    },
    giveBack,
  });
  const pulling = createPulling(config, {
    send,
    freeSlots,
    reservations: () => runs.reservations(),
    guestSlots: freeGuestSlots,
    welcome: () => yielding.welcome,
    capabilities: () => capabilities,
  });
  const handingOver = createHandingOver(config, runs, { emit, send, giveBack, capabilities: () => capabilities });

  function emit(effect: ExecutorEffect): void {
    effects.push(effect);
  }

  function send(to: NodeId, message: ClaimMessage | AgentMessage): void {
    emit({ kind: 'send', to, message });
  }

  function sayStage({ submitter, key, request, token }: Run, stage: 'executing' | 'frozen'): void {
    send(submitter, { kind: 'stage', key, request, token, stage });
  }

  function freeSlots(): number {
    return Math.max(0, slots - runs.occupied());
  }

  function freeGuestSlots(): number {
    return yielding.welcome ? Math.max(0, Math.min(guestSlots - runs.occupied('guests'), freeSlots())) : 0;
  }

  /** Stops whatever the run does. What is already durable stays. */
  function stop(run: Run): void {
    detachOwn(run);
    // Whoever fetched its inputs keeps them until it is told.
    const isUnderWay = run.phase === 'running' || run.phase === 'fetching' || run.phase === 'waiting';
    if (isUnderWay) emit({ kind: 'kill', run: run.run });
    runs.end(run);
  }

  function giveBack(run: Run): void {
    if (run.leader !== undefined && run.token) send(run.leader, { kind: 'giveBack', claims: [refOf(run)] });
    stop(run);
  }

  // ---- Claims ----

  function accept(from: NodeId, claim: GrantedClaim, nowMs: number): void {
    if (runs.withToken(claim)) return;
    const leader = leaders.get(claim.shard);
    const isLeader = leader === undefined || leader === from;
    const own = runs.unclaimed(claim);
    if (own && !claim.reserved && isLeader) return claimOwn(own, from, claim, nowMs);
    const twin = claim.doNotCache ? undefined : runs.mergeable(claim.key);
    if (twin?.token && !claim.reserved && isLeader && compareTokens(claim.token, twin.token) > 0) {
      // Its leader forgot the claim under which this very action already runs here: go on under the new one.
      const { request, submitter } = claim;
      Object.assign(twin, { request, submitter });
      return adopt(twin, from, claim.token, claim.expiresInMs, nowMs);
    }
    const isGuest = claim.submitter !== self;
    const unwelcome = isGuest && !yielding.welcome;
    const free = isGuest ? freeGuestSlots() : freeSlots();
    const full = claim.reserved ? runs.reservations() >= limits.reservationsMax : free === 0;
    // What waits here to be run without a claim is run so; whoever asked for that does not ask leaders any more.
    const isQueued = ownQueue.some(({ request }) => request === claim.request);
    if (own || isQueued || claim.stay || unwelcome || full || runs.size >= limits.runsMax) {
      if (!claim.stay) pulling.refused(from, nowMs);
      const { shard, key, token } = claim;
      return send(from, { kind: 'giveBack', claims: [{ shard, key, token }] });
    }
    const run = runs.addClaimed(claim, from, nowMs);
    if (!isLeader) {
      // Under way when the leadership changed, ahead of the news, or a lie: the leader that is known says which.
      run.unconfirmed = true;
      handingOver.follow(run, leader, nowMs);
    }
    keepAlive(run, nowMs);
  }

  /** What runs here already for an own client goes on under this claim. */
  function claimOwn(run: Run, from: NodeId, claim: GrantedClaim, nowMs: number): void {
    const { shard, request, submitter, doNotCache, expiresInMs, token } = claim;
    Object.assign(run, { shard, request, submitter, doNotCache, leader: from, registering: false });
    Object.assign(run, { expiresInMs, expiresAtMs: nowMs + expiresInMs });
    runs.reclaim(run, token);
    emit({ kind: 'ownClaimed', request: run.own as RequestId, token });
    if (submitter !== self && run.phase === 'running') sayStage(run, 'executing');
    keepAlive(run, nowMs);
  }

  /** Its claim is not this node's any more; the own client still waits for what runs here. */
  function unclaimOwn(run: Run): void {
    const request = run.own as RequestId;
    runs.reclaim(run, undefined);
    Object.assign(run, { request, submitter: self, shard: -1, leader: undefined, registering: false });
    emit({ kind: 'ownUnclaimed', request });
    if (run.phase === 'running') sayStage(run, 'executing');
  }

  function loseClaim(run: Run): void {
    if (run.own !== undefined && working(run) && !run.prefetch && !run.unconfirmed) unclaimOwn(run);
    else stop(run);
  }

  function keepAlive(run: Run, nowMs: number): void {
    renewAtMs = Math.min(renewAtMs, nowMs + renewEvery(run));
  }

  function adopt(run: Run, leader: NodeId, token: Token, expiresInMs: number, nowMs: number): void {
    runs.reclaim(run, token);
    Object.assign(run, { leader, registering: false, unconfirmed: false });
    Object.assign(run, { expiresInMs, expiresAtMs: nowMs + expiresInMs });
    if (run.own !== undefined) emit({ kind: 'ownClaimed', request: run.own, token });
    if (run.phase === 'waiting') begin(run);
    handingOver.adopted(run, nowMs);
  }

  function renew(nowMs: number): void {
    renewAtMs = Number.POSITIVE_INFINITY;
    const byLeader = new Map<NodeId, ClaimRef[]>();
    for (const run of runs.all()) {
      if (run.token === undefined) continue;
      renewAtMs = Math.min(renewAtMs, nowMs + renewEvery(run));
      if (run.leader === undefined) continue;
      if (!run.registering) append(byLeader, run.leader, refOf(run));
      // A start that was not confirmed by now is asked for again.
      if (run.prefetch) run.starting = false;
    }
    for (const [leader, claims] of byLeader) send(leader, { kind: 'renewClaims', claims });
  }

  // ---- Running ----

  function startOwn(nowMs: number): void {
    if (nowMs < ownBlockedUntilMs) return;
    ownBlockedUntilMs = 0;
    while (ownQueue.length > 0 && freeSlots() > 0) runs.addOwn(ownQueue.shift() as OwnAction);
  }

  /** What already runs here for somebody else is run once. */
  function runOwn(own: OwnAction): void {
    const running = runs.mergeable(own.key);
    const isBegun = running && !running.prefetch && !running.unconfirmed && working(running);
    if (!isBegun || !running.token || !own.isMergeable || running.own !== undefined) {
      ownQueue.push(own);
      return;
    }
    running.own = own.request;
    emit({ kind: 'ownClaimed', request: own.request, token: running.token });
  }

  /** A guest's run ends without an outcome: the own client that merged with it needs another. */
  function detachOwn(run: Run): void {
    const { own: request, key, spaceBytes } = run;
    if (!run.guest || request === undefined) return;
    run.own = undefined;
    ownQueue.push({ request, key, spaceBytes, isMergeable: true });
    emit({ kind: 'ownUnclaimed', request });
  }

  function stopOwn(request: RequestId): void {
    const at = ownQueue.findIndex((own) => own.request === request);
    if (at >= 0) ownQueue.splice(at, 1);
    for (const run of [...runs.all()]) {
      if (run.own !== request) continue;
      run.own = undefined;
      if (run.guest) continue;
      // Others may wait for it as well; who leads says so. Nobody can when there is no leader.
      if (run.token === undefined || run.leader === undefined) stop(run);
    }
  }

  /** Gives free slots to reservations, oldest first; each start is confirmed by the leader, who may have given it away. */
  function startReserved(): void {
    for (const run of runs.all()) {
      if (!run.prefetch || run.starting || run.leader === undefined || run.registering) continue;
      if ((run.guest ? freeGuestSlots() : freeSlots()) === 0) continue;
      run.starting = true;
      send(run.leader, { kind: 'start', claim: refOf(run) });
    }
  }

  /** There is no room on the disk: others may give theirs back; alone this will never have enough. */
  function waitForRoom(run: Run, nowMs: number): void {
    if (run.own === undefined) return giveBack(run);
    if (![...runs.all()].some((other) => other.reserved)) return failed(run, 'executorFault');
    if (!run.stayed) {
      if (run.leader !== undefined) pulling.refused(run.leader, nowMs);
      return giveBack(run);
    }
    const { own: request, key, spaceBytes } = run;
    const isMergeable = !run.doNotCache;
    if (run.token) emit({ kind: 'ownUnclaimed', request });
    giveBack(run);
    ownQueue.unshift({ request, key, spaceBytes, isMergeable });
    ownBlockedUntilMs = nowMs + limits.roomRetryMs;
  }

  function fetchOrRun(run: Run): void {
    if (!run.guest) return begin(run);
    run.phase = 'fetching';
    emit({ kind: 'fetchInputs', run: run.run, from: run.submitter, key: run.key, request: run.request });
  }

  /** Inputs are here. */
  function begin(run: Run): void {
    if (run.prefetch || run.unconfirmed) {
      run.phase = 'waiting';
      return;
    }
    run.phase = 'running';
    const { key, request, guest, token, doNotCache } = run;
    emit({ kind: 'run', run: run.run, key, request, guest, token, doNotCache });
    sayStage(run, 'executing');
  }

  function failed(run: Run, reason: FailureReason): void {
    detachOwn(run);
    const { own: request, token } = run;
    if (request !== undefined) emit({ kind: 'ownEnded', request, token, outcome: undefined, reason, runMs: 0 });
    if (token && run.leader !== undefined) send(run.leader, { kind: 'fail', claim: refOf(run), reason });
    runs.end(run);
  }

  // ---- Events ----

  function onMessage(from: NodeId, message: ClaimMessage | AgentMessage, nowMs: number): void {
    switch (message.kind) {
      case 'granted':
        pulling.granted(from, nowMs);
        for (const claim of message.claims) accept(from, claim, nowMs);
        return;
      case 'renewed':
        for (const claim of message.claims) {
          const run = runs.withToken(claim);
          if (!run || !isLedBy(run, from)) continue;
          run.expiresInMs = message.expiresInMs;
          run.expiresAtMs = nowMs + message.expiresInMs;
        }
        return;
      case 'revoked':
        for (const claim of message.claims) {
          const run = runs.withToken(claim);
          if (run && isLedBy(run, from)) loseClaim(run);
        }
        return;
      case 'adopted': {
        const run = runs.withToken({ key: message.claim.key, token: message.old });
        if (run && isLedBy(run, from)) adopt(run, from, message.claim.token, message.expiresInMs, nowMs);
        return;
      }
      case 'started': {
        const run = runs.withToken(message.claim);
        if (!run?.prefetch || !isLedBy(run, from)) return;
        run.prefetch = false;
        run.starting = false;
        if (run.phase === 'waiting') begin(run);
        return;
      }
      case 'committed': {
        const run = runs.withToken(message.claim);
        if (run?.phase !== 'committing' || !isLedBy(run, from)) return;
        if (message.outcome === 'lost') handingOver.follow(run, run.leader, nowMs);
        else runs.end(run);
        return;
      }
      case 'handedOver':
      case 'handOverRefused': {
        const run = runs.withToken(message);
        if (run?.phase !== 'handingOver' || run.submitter !== from) return;
        if (message.kind === 'handedOver' && message.promise) run.promises.push(message.promise);
        // A submitter that refuses may know less or more than the leader, which alone decides.
        return handingOver.commit(run, nowMs);
      }
      // What leaders and submitters are told is not for this machine.
      default:
        return;
    }
  }

  function onLeader(shard: ShardId, leader: NodeId | undefined, nowMs: number): void {
    leaders.set(shard, leader);
    for (const run of runs.all()) {
      if (run.token !== undefined && run.shard === shard && run.leader !== leader) {
        handingOver.follow(run, leader, nowMs);
      }
    }
  }

  function onGoodbye(): void {
    for (const run of [...runs.all()]) {
      if (!run.token || !working(run)) continue;
      if (run.leader !== undefined) send(run.leader, { kind: 'giveBack', claims: [refOf(run)] });
      loseClaim(run);
    }
    pulling.forgetAll(true);
  }

  function apply(event: ExecutorEvent, nowMs: number): void {
    switch (event.kind) {
      case 'wake':
        return;
      case 'gap':
        handingOver.followAll(nowMs);
        pulling.forgetAll(false);
        renewAtMs = nowMs;
        return;
      case 'message':
        return onMessage(event.from, event.message, nowMs);
      case 'slots':
        ({ slots, guestSlots, capabilities } = event);
        return yielding.allow(event.guests, nowMs);
      case 'owner':
        return yielding.owner(event.present, nowMs);
      case 'workAt':
        return pulling.workAt(event.leader, nowMs);
      case 'leader':
        return onLeader(event.shard, event.leader, nowMs);
      case 'absent':
        pulling.forget(event.node);
        for (const run of [...runs.all()]) {
          if (run.submitter === event.node && run.phase === 'handingOver') handingOver.commit(run, nowMs);
        }
        return;
      case 'goodbye':
        return onGoodbye();
      case 'runOwn':
        return runOwn(event);
      case 'stopOwn':
        return stopOwn(event.request);
      case 'ownWaiting':
        return pulling.ownWaiting(event.waiting);
      default:
        return onRunEvent(event, nowMs);
    }
  }

  function onRunEvent(event: Extract<ExecutorEvent, { readonly run: number }>, nowMs: number): void {
    const run = runs.get(event.run);
    if (!run) {
      // It was stopped meanwhile; a reservation that arrives late is let go.
      if (event.kind === 'reserved') emit({ kind: 'release', run: event.run });
      return;
    }
    switch (event.kind) {
      case 'reserved':
        run.reserved = true;
        return fetchOrRun(run);
      case 'reserveRefused':
        return waitForRoom(run, nowMs);
      case 'fetched':
        if (run.phase !== 'fetching') return;
        return event.ok ? begin(run) : failed(run, 'inputsMissing');
      case 'ran':
        return handingOver.ran(run, event.outcome, event.runMs, nowMs);
      case 'runFailed':
        return failed(run, event.reason);
      case 'pinned':
        return handingOver.pinned(run, event.forMs, nowMs);
      case 'pinRefused':
        return handingOver.pinned(run, undefined, nowMs);
      default:
        event satisfies never;
    }
  }

  /** Tells the submitter what it may count on. */
  function saySlots(): void {
    const free = freeSlots();
    if (told.slots === slots && told.free === free && told.capabilities === capabilities) return;
    told = { slots, free, capabilities };
    emit({ kind: 'slots', ...told });
  }

  return {
    step(event, nowMs) {
      effects = [];
      apply(event, nowMs);
      yielding.onTimers(nowMs);
      handingOver.onTimers(nowMs);
      if (nowMs >= renewAtMs) renew(nowMs);
      // Own clients come before guests.
      startOwn(nowMs);
      startReserved();
      pulling.pull(nowMs);
      saySlots();
      let next = Math.min(renewAtMs, handingOver.dueAtMs(), yielding.dueAtMs, pulling.dueAtMs());
      if (ownBlockedUntilMs > nowMs) next = Math.min(next, ownBlockedUntilMs);
      if (next !== wakeAtMs || event.kind === 'wake') emit({ kind: 'wakeAt', atMs: next });
      wakeAtMs = next;
      return effects;
    },
    runs: () => runs.all(),
    freeSlots,
  };
}

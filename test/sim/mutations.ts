/**
 * Planted bugs: each is a small edit of the machines, the driver or its log, the seed that catches it, and the checker that
 * says so. `node test/sim/search-mutations.ts` looks the seeds up anew; docs/testing.md lists them.
 */
export interface Mutation {
  readonly name: string;
  readonly edits: readonly { readonly file: string; readonly find: string; readonly replace: string }[];
  /** Undefined until a search found one. */
  readonly seed: number;
  /** One of these says what broke; which one can depend on small changes elsewhere. */
  readonly checker: string;
  readonly nodes?: number;
  readonly minutes?: number;
  /** Without any fault. */
  readonly calm?: boolean;
}

const claims = 'mesh/core/claims/claims.ts';
const registers = 'mesh/core/registers/registers.ts';
const rebuilding = 'mesh/core/claims/rebuilding.ts';
const handingOver = 'mesh/core/agents/executor/handing-over.ts';
const yielding = 'mesh/core/agents/executor/yielding.ts';
const submitter = 'mesh/core/agents/submitter.ts';
const placing = 'mesh/core/agents/submitter/placing.ts';
const fetching = 'mesh/core/agents/submitter/fetching.ts';
const membership = 'mesh/core/membership/membership.ts';
const promises = 'mesh/core/promises/promises.ts';
const driver = 'node/mesh/driver.ts';
const durableLog = 'node/mesh/durable-log.ts';

export const mutationNodes = 8;
export const mutationMinutes = 5;

export const mutations: readonly Mutation[] = [
  {
    name: 'token not checked at apply',
    edits: [
      {
        file: registers,
        find: "    if (token.generation !== context.generation || token.term !== context.term) return 'stale';\n    if (accepted && compareTokens(token, accepted) < 0) return 'stale';",
        replace: '    void accepted;',
      },
      {
        file: registers,
        find: '    if (current?.token && !(command.replaces && compareTokens(current.token, command.replaces) === 0))\n',
        replace: "    if (key === '')\n",
      },
    ],
    seed: 29,
    checker: 'token-order',
  },
  {
    name: 'vote not persisted',
    edits: [
      {
        file: 'mesh/core/raft/state.ts',
        find: "return persist(g, { kind: 'hardState', term: g.term, vote: g.vote });",
        replace: "return persist(g, { kind: 'hardState', term: g.term, vote: undefined });",
      },
    ],
    seed: 1,
    checker: 'nothing-forgotten',
  },
  {
    name: 'term not persisted',
    edits: [
      {
        file: 'mesh/core/raft/state.ts',
        find: "return persist(g, { kind: 'hardState', term: g.term, vote: g.vote });",
        replace: "return persist(g, { kind: 'hardState', term: 1, vote: undefined });",
      },
    ],
    seed: 1,
    checker: 'nothing-forgotten',
  },
  {
    name: 'vote for a candidate with an older log',
    edits: [
      {
        file: 'mesh/core/raft/election.ts',
        find: 'const upToDate = isUpToDate({ index: request.lastIndex, term: request.lastTerm }, lastEver(g));',
        replace: 'const upToDate = isUpToDate(lastEver(g), lastEver(g));',
      },
    ],
    seed: 1,
    checker: 'log-matching',
  },
  {
    name: 'entry of an older term committed by counting replicas',
    edits: [
      {
        file: 'mesh/core/raft/replication.ts',
        find: 'if (g.log.termAt(replicated) !== g.term) return;',
        replace: '',
      },
    ],
    seed: 2,
    checker: 'own-term',
  },
  {
    name: 'half of the voters taken for a majority',
    edits: [
      {
        file: 'mesh/core/raft/quorum.ts',
        find: 'return Math.floor(count / 2) + 1;',
        replace: 'return Math.max(1, Math.floor(count / 2));',
      },
    ],
    seed: 7,
    checker: 'state-machine-safety',
  },
  {
    name: 'append accepted without the entry before it',
    edits: [
      {
        file: 'mesh/core/raft/replication.ts',
        find: 'const known = prevIndex <= g.commit || g.log.termAt(prevIndex) === prevTerm;',
        replace: 'const known = prevIndex <= g.log.lastIndex;',
      },
    ],
    seed: 9,
    checker: 'state-machine-safety',
  },
  {
    name: 'two membership changes at once',
    edits: [
      {
        file: 'mesh/core/raft/raft.ts',
        find: "  if (g.log.configurationIndex > g.commit) return 'changePending';\n  if (!isSingleChange(g.log.configuration, target)) return 'invalid';",
        replace: '  void isSingleChange;',
      },
      {
        file: 'mesh/core/shards/helm.ts',
        find: 'if (!status.settled || status.transferring) return;',
        replace: 'if (status.transferring) return;',
      },
      {
        file: 'mesh/core/raft/raft.ts',
        find: "  if (g.commit < g.termStartIndex) return 'tooEarly';",
        replace: '',
      },
    ],
    seed: 1,
    checker: 'one-change',
  },
  {
    name: 'read served by a deposed leader after its lease',
    edits: [
      {
        file: 'mesh/core/raft/reading.ts',
        find: 'return nowMs - startMs < leaseMs;',
        replace: 'return nowMs - startMs < leaseMs || nowMs > 0;',
      },
      // A leader that nobody answers steps down about when its lease ends: one rule covers for the other.
      {
        file: 'mesh/core/raft/raft.ts',
        find: 'if (nowMs >= g.quorumCheckAtMs && !keepsQuorum(g, nowMs)) {',
        replace: 'if (nowMs >= g.quorumCheckAtMs && !keepsQuorum(g, nowMs) && nowMs < 0) {',
      },
    ],
    seed: 8,
    checker: 'fresh-reads',
  },
  {
    name: 'linearizable read answered without asking anybody',
    edits: [
      {
        file: 'mesh/core/raft/reading.ts',
        find: 'const ready = read.round <= confirmed && read.index <= g.applied;',
        replace: 'const ready = read.round >= 0 && read.index <= g.applied;',
      },
      {
        file: 'mesh/core/raft/reading.ts',
        find: '  return idle;\n',
        replace: '  releaseReads(g);\n  return idle;\n',
      },
      {
        file: 'mesh/core/raft/raft.ts',
        find: 'if (nowMs >= g.quorumCheckAtMs && !keepsQuorum(g, nowMs)) {',
        replace: 'if (nowMs >= g.quorumCheckAtMs && !keepsQuorum(g, nowMs) && nowMs < 0) {',
      },
    ],
    seed: 8,
    checker: 'fresh-reads',
  },
  {
    name: 'claim adopted after another was issued',
    edits: [
      {
        file: rebuilding,
        find: 'const taken = known?.claim !== undefined && known.claim.executor !== from;',
        replace: 'const taken = false;',
      },
    ],
    seed: 47,
    checker: 'one-claim',
  },
  {
    name: 'heartbeat renews a revoked claim',
    edits: [
      {
        file: claims,
        find: '      const task = table.current(from, ref);\n      if (!task?.claim) {\n        refuse(from, ref);\n        continue;\n      }\n      task.claim.expiresAtMs = nowMs + limits.claimLeaseMs;\n      outbox.renewed(from, claimRef(task, task.claim.token), limits.claimLeaseMs);',
        replace:
          '      const task = table.current(from, ref);\n      if (task?.claim) task.claim.expiresAtMs = nowMs + limits.claimLeaseMs;\n      outbox.renewed(from, ref, limits.claimLeaseMs);',
      },
    ],
    seed: 2,
    checker: 'one-claim',
  },
  {
    name: 'commit before outputs are promised',
    edits: [
      {
        file: handingOver,
        find: "      port.emit({ kind: 'pinOutputs', run: run.run, outcome });",
        replace:
          '      run.promises.push({ holder: self, storeGeneration: config.storeGeneration, pinnedForMs: 7_200_000 });\n      commit(run, nowMs);',
      },
    ],
    seed: 1,
    checker: 'outputs-promised',
  },
  {
    name: 'pin ignored by eviction',
    edits: [{ file: promises, find: '      if (blob.pins > 0) continue;\n', replace: '' }],
    seed: 53,
    checker: 'pins-kept',
  },
  {
    name: 'pin budget ignored',
    edits: [
      {
        file: promises,
        find: 'if (tooMuch || pins.size >= limits.pinsMax) {',
        replace: 'if (pins.size >= limits.pinsMax) {',
      },
    ],
    seed: 28,
    checker: 'pins-kept',
  },
  {
    name: 'tombstone lost on merge',
    edits: [
      {
        file: registers,
        find: "    if (offered.token && offered.token.generation >= context.generation) return 'stale';\n",
        replace:
          "    if (offered.token && offered.token.generation >= context.generation) return 'stale';\n    if (offered.kind === 'tombstone') return 'occupied';\n",
      },
    ],
    seed: 84,
    checker: 'tombstones',
  },
  {
    name: 'unclaimed result overwrites a claimed one',
    edits: [
      {
        file: registers,
        find: "if (current?.kind === 'result') return current.result === result ? addHolders(key, current, command) : 'occupied';",
        replace:
          "if (current?.kind === 'result' && current.result === result) return addHolders(key, current, command);",
      },
      {
        file: registers,
        find: "if (current && current.reason !== 'lost') return 'tombstoned';",
        replace: "if (current?.kind === 'tombstone' && current.reason !== 'lost') return 'tombstoned';",
      },
    ],
    seed: 1,
    checker: 'tombstones',
  },
  {
    name: 'lone node forces a generation',
    edits: [
      {
        file: 'mesh/core/shards/forming.ts',
        find: '    return consenting >= 2 && consenting >= majority(seen);',
        replace: '    return consenting >= 1 && seen > 0;',
      },
    ],
    seed: 6,
    checker: 'generations',
  },
  {
    name: "fsync skipped in the driver's persist",
    edits: [
      {
        file: durableLog,
        find: '      files.sync(name, (ok) => {\n        rewriteNeeded = !ok;\n        ended(ok, upTo);\n      });',
        replace: '      ended(true, upTo);',
      },
    ],
    seed: 1,
    checker: 'nothing-forgotten',
  },
  {
    name: 'messages sent before what they promise is durable',
    edits: [
      {
        file: driver,
        find: 'if (effect.after === undefined || effect.after <= durableTo) ports.send',
        replace: 'if (effect.after === undefined || durableTo >= 0) ports.send',
      },
    ],
    seed: 2,
    checker: 'nothing-forgotten',
  },
  {
    name: 'wall clock used in the driver',
    edits: [
      {
        file: driver,
        find: 'for (const effect of peer.step(event, clock.nowMs())) perform(effect);',
        replace: 'for (const effect of peer.step(event, Date.now())) perform(effect);',
      },
    ],
    seed: 1,
    checker: 'views-converge',
  },
  {
    name: 'a replaced disk votes as the one before',
    edits: [
      {
        file: 'mesh/core/shards/coordination.ts',
        find: 'const replica = replicaId(self, init.disk);',
        replace: 'const replica = replicaId(self, 1);',
      },
    ],
    seed: 27,
    checker: 'log-matching',
  },
  {
    name: 'guests welcome while the owner is there',
    edits: [{ file: yielding, find: 'const welcome = allowed && !ownerPresent;', replace: 'const welcome = allowed;' }],
    seed: 1,
    checker: 'owner-first',
  },
  {
    name: 'guests not frozen when the owner returns',
    edits: [
      {
        file: yielding,
        find: "else if (run.phase === 'running') port.freeze(run);",
        replace: "else if (run.phase === 'running') void run;",
      },
    ],
    seed: 2,
    checker: 'owner-first',
  },
  {
    name: 'client answered although a later claim was heard of',
    edits: [
      {
        file: fetching,
        find: 'if (handOver && compareTokens(handOver, token) < 0) drop(request);',
        replace: 'void handOver;',
      },
      {
        file: fetching,
        find: '      if (request.highest && compareTokens(handOver, request.highest) < 0) return;\n',
        replace: '',
      },
      {
        file: fetching,
        find: 'const outdated = request?.highest !== undefined && compareTokens(token, request.highest) < 0;',
        replace: 'const outdated = false;',
      },
    ],
    seed: 67,
    checker: 'outputs-promised',
  },
  {
    name: 'client answered before the outputs are at hand',
    edits: [
      {
        file: fetching,
        find: '      start(request, from, { result, handOver: token, token, executor: from, runMs, sizeBytes }, nowMs);',
        replace:
          "      void sizeBytes;\n      port.answer(request, { kind: 'result', outcome, source: 'mesh', token, executor: from }, runMs);",
      },
    ],
    seed: 1,
    checker: 'outputs-promised',
  },
  {
    name: 'no local run when the mesh is silent',
    edits: [
      {
        file: placing,
        find: 'if (request.local || !policy.canRunHere(request.item)) return;',
        replace: "if (request.local || !policy.canRunHere(request.item) || why !== 'lastTry') return;",
      },
    ],
    seed: 370,
    checker: 'every-action-ends',
  },
  {
    name: 'requests not offered to the next leader',
    edits: [
      {
        file: submitter,
        find: 'return request.local ? staysUnclaimed : !request.accepted;',
        replace: 'return staysUnclaimed && request.givenUp !== undefined;',
      },
      {
        file: submitter,
        find: '      } else if (!request.hedged && !(request.local && request.item.doNotCache)) outgoing.add(request);',
        replace: '      }',
      },
    ],
    calm: true,
    seed: 79,
    checker: 'duplicates',
  },
  {
    name: 'membership records believed without a signature',
    edits: [
      {
        file: membership,
        find: '    if (!known && !signer.verify(record)) return;\n',
        replace: '',
      },
    ],
    seed: 2,
    checker: 'views-converge',
  },
  {
    name: 'accusations not refuted',
    edits: [
      {
        file: membership,
        find: '    renewOwn(record.incarnation);\n  }\n\n  function doubtMore',
        replace: '  }\n\n  function doubtMore',
      },
    ],
    seed: 1,
    checker: 'views-converge',
  },
  {
    name: 'incarnations not kept on disk',
    edits: [
      {
        file: membership,
        find: 'let reservedTo = restored.at(-1)?.reservedTo ?? 0;',
        replace: 'let reservedTo = restored.length * 0;',
      },
      {
        file: membership,
        find: '    if (record.incarnation < incarnation) return;\n',
        replace: '    if (record.incarnation !== incarnation) return;\n',
      },
    ],
    seed: 1,
    checker: 'views-converge',
  },
  {
    name: 'absent members never called again',
    edits: [
      {
        file: membership,
        find: 'if (periods % limits.absentProbePeriods === 0) {',
        replace: 'if (entries.size < 2) {',
      },
    ],
    seed: 4,
    checker: 'views-converge',
  },
];

/** Arbitrary messages of every kind that the machines send, as they may look at the most varied. */
import fc from 'fast-check';
import { claimLimits } from '../../../../mesh/core/limits.ts';
import type { PeerMessage } from '../../../../mesh/core/peer.ts';

export const ends = { self: '12D3KooWself', far: '12D3KooWfar' } as const;

const id = fc.string({ minLength: 1, maxLength: 60 });
const uint32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const whole = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER - 1 });
const place = fc.integer({ min: 0, max: 2 ** 52 - 1 });
const ms = fc.double({ min: 0, max: 2 ** 50, noNaN: true }).map((value) => value + 0);
const flag = fc.boolean();
const shard = fc.integer({ min: 0, max: 65_535 });
const disk = fc.integer({ min: 1, max: 2 ** 47 });
const kind = <K extends string>(name: K) => fc.constant(name);
const list = <T>(of: fc.Arbitrary<T>) => fc.array(of, { maxLength: 3 });
const maybe = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: undefined });

const attributes = fc.record({
  site: id,
  subnet: id,
  dataAddress: id,
  cores: uint32,
  memoryBytes: whole,
  power: fc.constantFrom('mains', 'battery'),
  wired: flag,
  coordinator: fc.constantFrom('always-on', 'eligible', 'never'),
  storeGeneration: whole,
  guestSlots: uint32,
  capabilities: list(id),
});
const record = fc.record({
  id,
  incarnation: whole,
  presence: fc.constantFrom('here', 'suspended', 'left'),
  attributes,
  signature: id,
});
const rumours = list(fc.record({ record, verdict: fc.constantFrom('here', 'suspect', 'dead'), by: id }));
const places = list(place);

const token = fc.record({ generation: whole, term: whole, counter: whole });
const generation = fc.record({ number: whole, hash: uint32, forced: flag });
const replica = fc.tuple(id, disk).map(([node, number]) => `a${node}~${number}`);
const configuration = fc.record({ voters: list(replica), learners: list(replica) });
const promise = fc.record({ holder: id, storeGeneration: whole, pinnedForMs: ms });
const common = { result: id, token: maybe(token), nonDeterministic: flag };
const reason = fc.constantFrom('lost', 'wrong', 'nonDeterministic');
const entry = { ...common, kind: kind('result'), class: fc.constantFrom('claimed', 'unclaimed'), executor: id };
const tombstone = { ...common, kind: kind('tombstone'), reason };
const register = fc.oneof(
  fc.record({
    ...entry,
    holders: list(fc.record({ holder: id, storeGeneration: whole, untilMs: ms })),
    writtenAtMs: ms,
  }),
  fc.record({ ...tombstone, writtenAtMs: ms }),
);
const offered = fc.oneof(fc.record({ ...entry, promises: list(promise) }), fc.record(tombstone));
const published = { key: id, result: id, executor: id, promises: list(promise) };
const command = fc.oneof(
  fc.record({ kind: kind('commit'), ...published, token, replaces: maybe(token) }),
  fc.record({ kind: kind('publish'), ...published }),
  fc.record({ kind: kind('invalidate'), key: id, result: id, reason }),
  fc.record({ kind: kind('offer'), key: id, register: offered }),
);
const logEntry = fc.record({
  index: whole,
  term: whole,
  data: fc.oneof(
    fc.record({ kind: kind('noop') }),
    fc.record({
      kind: kind('command'),
      command: fc.record({ shardMs: ms, commands: list(command) }),
      sizeBytes: whole,
    }),
    fc.record({ kind: kind('configuration'), configuration }),
  ),
});
const snapshot = fc.record({
  index: whole,
  term: whole,
  configuration,
  sizeBytes: whole,
  state: fc.record({
    shardMs: ms,
    registers: list(fc.tuple(id, register)),
    evictedToken: maybe(token),
    history: uint32,
  }),
});
const ofGroup = {
  shard,
  generation,
  from: disk.map((number) => `${ends.self}~${number}`),
  to: disk.map((number) => `${ends.far}~${number}`),
};
const term = whole;
const groupMessage = fc.oneof(
  fc.record({ kind: kind('vote'), term, pre: flag, transfer: flag, lastIndex: whole, lastTerm: whole }),
  fc.record({ kind: kind('voted'), term, pre: flag, granted: flag }),
  fc.record({
    kind: kind('append'),
    term,
    prevIndex: whole,
    prevTerm: whole,
    entries: list(logEntry),
    commit: whole,
  }),
  fc.record({ kind: kind('appended'), term, accepted: flag, index: whole, refusedIndex: whole }),
  fc.record({ kind: kind('snapshot'), term, snapshot }),
  fc.record({ kind: kind('timeoutNow'), term }),
  fc.record({ kind: kind('removed'), term, index: whole }),
);
const beat = fc.oneof(
  fc.record({ kind: kind('heartbeat'), term, commit: whole, sentAtMs: ms, readRound: whole, sleep: flag }),
  fc.record({ kind: kind('heartbeatAck'), term, sentAtMs: ms, readRound: whole, asleep: flag }),
);

const request = { shard, request: id };
const claim = { shard, key: id, token };
const requires = list(id);
const sketch = list(uint32);
const after = maybe(
  fc.record({
    executor: id,
    reason: fc.constantFrom('executorFault', 'inputsMissing', 'actionInvalid', 'lost', 'givenBack'),
  }),
);
const requestState = fc.oneof(
  fc.record({ kind: kind('ready'), ...request, leaseMs: ms, after }),
  fc.record({ kind: kind('claimed'), ...request, executor: id, token, running: flag, ageMs: ms }),
  fc.record({ kind: kind('succeeded'), ...request, result: id, executor: id, token: maybe(token) }),
  fc.record({ kind: kind('finished'), ...request, result: id, executor: id, token }),
  fc.record({
    kind: kind('ended'),
    ...request,
    reason: fc.constantFrom(
      'cancelled',
      'tooManyDeaths',
      'tooManyRetries',
      'inputsMissing',
      'actionInvalid',
      'queueFull',
    ),
    after,
  }),
  fc.record({ kind: kind('unknown'), ...request }),
);
const item = fc.record({
  ...request,
  key: id,
  invocation: id,
  priority: int32,
  requires,
  spaceBytes: whole,
  inputs: sketch,
  doNotCache: flag,
  skipCacheLookup: flag,
  expectedMs: ms,
  reoffer: flag,
  stay: flag,
  avoid: requires,
  deaths: fc.integer({ min: 0, max: claimLimits.deathsMax }),
});
const granted = fc.record({
  ...claim,
  submitter: id,
  request: id,
  doNotCache: flag,
  spaceBytes: whole,
  reserved: flag,
  stay: flag,
  expiresInMs: ms,
});
const running = fc.record({ ...claim, request: id, submitter: id, doNotCache: flag, requires, spaceBytes: whole });
const ref = fc.record(claim);
const revoked = fc.record({
  ...claim,
  reason: fc.constantFrom('cancelled', 'expired', 'stolen', 'superseded', 'unknown', 'done'),
});
const outcome = fc.constantFrom('accepted', 'same', 'stale', 'occupied', 'tombstoned', 'mismatch');
const statuses = list(
  fc.record({ shard, generation, term, leader: maybe(id), configuration, configurationIndex: whole }),
);
const found = fc.record({ key: id, register, pinnedForMs: list(ms) });
const about = { id: whole, shard };

/** One arbitrary per room of the codec. */
const rooms = {
  swim: fc.oneof(
    fc.record({ kind: fc.constantFrom('ping', 'ack', 'nack'), seq: uint32, rumours }),
    fc.record({ kind: kind('pingRequest'), seq: uint32, target: id, rumours }),
    fc.record({ kind: kind('syncOffer'), summary: int32, rumours }),
    fc.record({ kind: kind('sync'), reply: flag, rumours }),
  ),
  provider: fc.oneof(
    fc.record({
      kind: kind('announce'),
      seq: uint32,
      life: whole,
      generation: whole,
      add: places,
      remove: places,
      clear: list(fc.integer({ min: 0, max: 255 })),
    }),
    fc.record({ kind: kind('announced'), seq: uint32, count: uint32, hash: int32, full: flag }),
    fc.record({ kind: kind('regionsAsked'), seq: uint32 }),
    fc.record({ kind: kind('regions'), seq: uint32, summaries: list(int32) }),
    fc.record({ kind: kind('whoHas'), seq: uint32, places }),
    fc
      .record({ kind: kind('holders'), seq: uint32, nodes: fc.array(id, { minLength: 3, maxLength: 5 }) })
      .chain((holders) => list(list(fc.integer({ min: 0, max: 2 }))).map((lists) => ({ ...holders, lists }))),
  ),
  keeping: fc.oneof(
    fc.record({ kind: kind('keep'), seq: uint32, blobs: list(id), forMs: whole }),
    fc.record({ kind: kind('kept'), seq: uint32, forMs: list(whole) }),
  ),
  raft: fc.oneof(
    fc.record({ kind: kind('raft'), ...ofGroup, message: groupMessage }),
    fc.record({ kind: kind('heartbeats'), beats: fc.array(fc.record({ ...ofGroup, message: beat })) }),
  ),
  registers: fc.oneof(
    fc.record({ kind: kind('lookup'), ...about, keys: list(id), fresh: flag }),
    fc.record({ kind: kind('lookedUp'), ...about, found: list(found) }),
    fc.record({ kind: kind('publish'), ...about, ...published }),
    fc.record({ kind: kind('invalidate'), ...about, key: id, result: id, reason }),
    fc.record({
      kind: kind('offerRegisters'),
      ...about,
      registers: list(fc.record({ key: id, register: offered })),
    }),
    fc.record({ kind: kind('written'), ...about, outcomes: list(outcome) }),
    fc.record({ kind: kind('redirect'), ...about, leader: maybe(id), reason: fc.constantFrom('notLeader', 'busy') }),
  ),
  shards: fc.oneof(
    fc.record({ kind: kind('shardStatus'), statuses }),
    fc.record({ kind: kind('askShards'), shards: list(shard) }),
    fc.record({
      kind: kind('formRequest'),
      shard,
      generation,
      voters: list(replica),
      because: fc.oneof(
        fc.record({ kind: kind('quorumGone') }),
        fc.record({ kind: kind('conflict'), one: generation, other: generation }),
      ),
    }),
    fc.record({
      kind: kind('formReply'),
      shard,
      generation,
      consent: flag,
      known: statuses.map(([first]) => first),
    }),
    fc.record({ kind: kind('formed'), shard, generation, voters: list(replica) }),
  ),
  claims: fc.oneof(
    fc.record({ kind: kind('submit'), items: list(item) }),
    fc.record({
      kind: fc.constantFrom('renewRequests', 'cancelRequests'),
      requests: list(fc.record(request)),
    }),
    fc.record({ kind: kind('requestState'), states: list(requestState) }),
    fc.record({
      kind: kind('pull'),
      id: whole,
      slots: uint32,
      reservations: uint32,
      ownOnly: flag,
      capabilities: requires,
      freeBytes: whole,
      holds: sketch,
    }),
    fc.record({ kind: kind('start'), claim: ref }),
    fc.record({ kind: fc.constantFrom('renewClaims', 'giveBack'), claims: list(ref) }),
    fc.record({
      kind: kind('fail'),
      claim: ref,
      reason: fc.constantFrom('executorFault', 'inputsMissing', 'actionInvalid'),
    }),
    fc.record({ kind: kind('commit'), claim: ref, result: id, cacheable: flag, promises: list(promise) }),
    fc.record({ kind: kind('register'), claims: list(running) }),
    fc.record({ kind: kind('granted'), pull: whole, claims: list(granted) }),
    fc.record({ kind: kind('started'), claim: ref, expiresInMs: ms }),
    fc.record({ kind: kind('renewed'), claims: list(ref), expiresInMs: ms }),
    fc.record({ kind: kind('revoked'), claims: list(revoked) }),
    fc.record({ kind: kind('adopted'), old: token, claim: ref, expiresInMs: ms }),
    fc.record({
      kind: kind('committed'),
      claim: ref,
      outcome: fc.constantFrom('accepted', 'stale', 'notPromised', 'lost'),
    }),
    fc.record({
      kind: kind('hints'),
      hints: list(
        fc.record({
          shard,
          key: id,
          state: fc.constantFrom('ready', 'claimed', 'done'),
          leader: fc.constant(ends.self),
          requires,
        }),
      ),
    }),
  ),
  agents: fc.oneof(
    fc.record({
      kind: kind('handOver'),
      ...claim,
      request: id,
      outcome: fc.record({ result: id, sizeBytes: whole, cacheable: flag }),
      runMs: ms,
    }),
    fc.record({ kind: kind('stage'), key: id, token, request: id, stage: fc.constantFrom('executing', 'frozen') }),
    fc.record({ kind: kind('handedOver'), key: id, token, promise: maybe(promise) }),
    fc.record({ kind: kind('handOverRefused'), key: id, token }),
  ),
};

export const messages = rooms as unknown as { readonly [room in keyof typeof rooms]: fc.Arbitrary<PeerMessage> };

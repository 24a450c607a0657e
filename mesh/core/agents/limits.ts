/** Bounds of the submitter and the executor, each with its unit and its reason. */

export const submitterLimits = {
  /** Requests of own clients at once; more are refused, and the client slows down. */
  requestsMax: 10_000,
  /** An offer that no leader answered is made again after this long, to whoever leads by then. */
  offerRetryMs: 1_000,
  /** Nothing heard from any leader for this long: the action runs here, without the mesh. */
  meshBudgetMs: 5_000,
  /** Waiting requests are renewed this often; their leases are several times longer. */
  renewMs: 2_000,
  /** A leader that knew the request and fell silent for this long has lost it: it is offered again. */
  silenceMs: 6_000,
  /** Nobody claimed a ready action while a slot here was free all this time: whatever the reason, it runs here. */
  idleBudgetMs: 30_000,
  /** A run here goes on beside an older claim of somebody else when it needs less than this share of that one's time. */
  mergePercent: 70,
  /** What waits for a slot here is compared with the mesh again this often; so many of it at a time. */
  redecideMs: 2_000,
  redecidedMax: 64,
  /** Holders tried for one known result before it is reported lost. */
  fetchAttempts: 3,
  /** Time for a transfer of nothing, and for each megabyte of it; what is not known counts as so many. */
  transferMsMin: 4_000,
  transferMsPerMegabyte: 1_000,
  transferMegabytesMin: 16,
  /** Times one request is offered anew after losing its executor or its result, before the last try here. */
  retriesMax: 4,
  /** Retries of all requests together: this many at once, then one more each `retryRefillMs`; a fleet-wide fault is no storm. */
  /** Runs here that end in a fault of this machine, before the mesh or nobody runs it. */
  localFaultsMax: 2,
  /** A machine that dies is known to be dead this long after its shards have another leader, at the latest. */
  absenceNewsMs: 20_000,
  retryBurst: 32,
  retryRefillMs: 500,
  /** Outputs handed over are promised for this long. */
  promiseMs: 2 * 60 * 60 * 1_000,
} as const;

export const executorLimits = {
  /** Leaders pulled from at once. */
  pullsMax: 64,
  /** A pull is repeated this often, in case that its leader was replaced. */
  pullRefreshMs: 5_000,
  /** A leader whose grant had to be given back is not pulled from for this long. */
  refusedPullMs: 250,
  /** Guests are not asked for while own actions wait, until a slot stayed free for so long: their leaders have a reason. */
  ownFirstMs: 500,
  /** A leader that had work for us in this time is still asked. */
  hintMs: 20_000,
  /** Renewals go out at a third of the shortest expiry, at least this often. */
  renewMsMin: 500,
  /** An own action that found no room on the disk asks again after this long. */
  roomRetryMs: 500,
  /** Claims are registered with a new leader this often until it answers. */
  registerRetryMs: 500,
  /** Frozen guests are given back, and killed, when the owner is still there after this long. */
  freezeMs: 3_000,
  /** How long a submitter may take to fetch outputs before they are published without its promise. */
  handOverMs: 15_000,
  /** A commit without an answer is sent again after this long. */
  commitRetryMs: 1_000,
  /** Commits of one result before it is given up; its blobs stay. */
  commitAttempts: 20,
  /** Actions whose inputs are fetched ahead while every slot is busy. */
  reservationsMax: 1,
  /** Runs at once, whatever the number of slots. */
  runsMax: 1_024,
} as const;

/** Running actions through a mesh that is awake: the parts, wired. */
import type { ActionKey as ActionName, BlobKey } from '../../mesh/core/ids.ts';
import type { Identity } from '../../mesh/net/identity/identity.ts';
import { createInputTrees } from '../../sandbox/input-tree.ts';
import type { OfferedRun } from '../execution/offering.ts';
import type { PreparedAction } from '../execution/prepare.ts';
import type { RunReport } from '../execution/run-action.ts';
import type { Offloading, OffloadingPorts, OffloadWork } from '../mesh/offloading.ts';
import type { Registers } from '../peers/registers.ts';
import type { OwnerEvent } from '../owner/owner-watch.ts';
import type { PeerTier } from '../peers/peer-tier.ts';
import { createPromiseHolder } from '../peers/promise-holder.ts';
import { createVouching, publisherRole } from '../peers/vouching.ts';
import { digestKey } from '../../protos/digest.ts';
import { StatusError, toStatusError } from '../../protos/status.ts';
import { type BlobHints, createBlobHints, inputChannel, inputsOf, outputChannel } from './blob-hints.ts';
import { bringInputs } from './inputs.ts';
import { actionName, actionOf, isAction } from './keys.ts';
import * as limits from './limits.ts';
import { createHeldTrees } from './item.ts';
import { createInvocations } from './invocations.ts';
import { createLogRelay, logChannel } from './log-relay.ts';
import type { OffloadOptions } from './offload.ts';
import { createRegisters } from './registers.ts';
import { createRequests } from './requests.ts';
import { createResults, type HandedResult, outcomeOf } from './results.ts';
import { createRuns } from './runs.ts';

export interface OpenOffload extends Offloading {
  readonly registers: Registers;
  /** What this node offers to actions as a member. */
  readonly offers: readonly string[];
  run(offered: OfferedRun): Promise<RunReport>;
  /** This node is about to stop: no further guest begins here. */
  turnGuestsAway(): void;
}

export function openOffload(options: OffloadOptions, ports: OffloadingPorts): OpenOffload {
  const { local, trees, peers, record, onLog } = options;
  const { clock } = options.ports;
  const { identity, machine } = ports;
  const deliver: OffloadingPorts['deliver'] = (event) => ports.deliver(event);
  const bring: PeerTier['bring'] = (digests, fetchOptions) => peers.bring(digests, fetchOptions);
  const self = identity.peerId;
  const workerName = (node: string): string => (node === self ? ownName : node);
  const ownName = `${options.ports.worker} (${self})`;
  const localTrees = createInputTrees(local);
  const heldTrees = createHeldTrees();
  const results = createResults({ local, bring, vouching: createVouching(identity, options.trust), self });
  const promises = createPromiseHolder({
    local,
    pinned: () => machine.promises.pins(),
    onBroken: (reason) => onLog('warning', reason),
  });
  const hold = (handed: HandedResult): Promise<boolean> => promises.hold(handed.name, handed.closure);
  /** Results that were kept, or are about to be, in order. */
  const keeping = new Map<BlobKey, Promise<void>>();
  /** What ran here and is not committed yet. */
  const uncommitted = new Map<ActionName, HandedResult>();
  const registers = createRegisters({
    local,
    hold: (name, digests) => promises.hold(name, digests),
    deliver,
  });
  const invocations = createInvocations({
    clock,
    onEnded: (invocation) => deliver({ kind: 'invocationEnded', invocation }),
  });
  const runs = createRuns({
    ports: { ...options.ports, worker: ownName },
    preparer: options.preparer,
    results,
    async bringInputs(key, from, signal) {
      const { action } = key;
      using _ = inputHints.use(key, from);
      const brought = await bringInputs({ local, trees: localTrees, bring }, action, {
        hints: [from],
        signal: AbortSignal.any([signal, AbortSignal.timeout(limits.inputsMaxMs)]),
      });
      heldTrees.add(brought.root);
      return brought;
    },
    async hold(handed, doNotCache) {
      if (outcomeOf(handed).cacheable && !doNotCache) uncommitted.set(actionName(handed.key), handed);
      for (const oldest of uncommitted.keys()) {
        if (uncommitted.size <= limits.resultsKept) break;
        uncommitted.delete(oldest);
      }
      return await hold(handed);
    },
    ownRequest: (request, name) => requests.own(request, name),
    known: () => new Set(Array.from(machine.executor.runs(), ({ run }) => run)),
    deliver,
    onOwnResult(handed) {
      if (outcomeOf(handed).cacheable) void keep(handed);
    },
    onMade: ({ key, closure }, submitter) => outputHints.tell(submitter, key, closure),
    onFailed: (key, reason) => onLog('info', `action ${digestKey(key.action)} could not be run: ${reason}`),
    onGuest({ instance, action }, submitter, change) {
      const atMs = clock.nowMs();
      if (change.kind === 'started') record({ kind: 'guestStarted', atMs, action, instance, submitter });
      else if (change.kind === 'frozen') record({ kind: 'guestFrozen', atMs, action, frozen: change.frozen });
      else record({ ...change, kind: 'guestEnded', atMs, action, instance, submitter });
    },
  });
  const logs = createLogRelay({
    send: (to, body) => ports.sendParcel(to, logChannel, body),
    runOf: (key) => runs.followable(key),
  });
  const trusted = trustedPlatform(identity, options);
  const [inputHints, outputHints] = [hintsOn(inputChannel), hintsOn(outputChannel)];
  const requests = createRequests({
    self,
    shards: identity.mesh.shards,
    unmatched({ prepared }) {
      try {
        options.platform.check(platformOf(prepared), 'anywhere');
        return undefined;
      } catch (thrown) {
        return toStatusError(thrown);
      }
    },
    requires({ prepared, onlyHere }) {
      const wanted = platformOf(prepared);
      const required = options.platform.requires(wanted);
      const here = onlyHere && required.every((key) => options.platform.capabilities.includes(key));
      return [...new Set([...required, ...(here ? [trusted.node] : trusted.requires)])].sort();
    },
    clock,
    results,
    async treeOf({ prepared, signal }) {
      const found = await trees.find(prepared.inputRoot, { signal });
      if (!('root' in found)) throw new StatusError('UNAVAILABLE', 'the input tree was evicted');
      heldTrees.add(found.root);
      return found.root;
    },
    hold,
    keep,
    logs,
    hintInputs: (node, key, prepared, root) => inputHints.tell(node, key, inputsOf(prepared, root)),
    useOutputs: (key, node) => outputHints.use(key, node),
    workerName,
    deliver,
    record,
    invalidate: (key, result) => registers.invalidate(key, result, 'wrong'),
    onLie: (node, reason) => onLog('warning', `${node}: ${reason}`),
  });
  ports.onParcel(logChannel, (from, body) => logs.onParcel(from, body));
  // Outputs of guests would not be handed out either.
  let takesGuests = options.servesBlobs;
  let slots: Extract<OwnerEvent, { readonly kind: 'slots' }> | undefined;
  const tellSlots = (): void => {
    if (!slots) return;
    const capabilities = [...slots.capabilities, ...trusted.offers].sort();
    deliver({ ...slots, guests: slots.guests && takesGuests, capabilities });
  };
  // The machine hears nothing before its start, which follows once this is open.
  let attached: Disposable | undefined;
  const attaching = setImmediate(() => {
    attached = options.owner.attach((event) => {
      if (event.kind === 'owner') return deliver(event);
      slots = event;
      tellSlots();
    });
  });

  function hintsOn(channel: string): BlobHints {
    const hints = createBlobHints({ send: (to, body) => ports.sendParcel(to, channel, body), bring });
    ports.onParcel(channel, (from, body) => hints.onParcel(from, body));
    return hints;
  }

  /** For later lookups; once, however many ask for it. */
  function keep(handed: HandedResult): Promise<void> {
    let done = keeping.get(handed.name);
    if (done) return done;
    done = peers.keep(handed.key, handed.result, handed.vouched);
    // Whoever waits for it hears of it.
    done.catch(() => {});
    keeping.set(handed.name, done);
    for (const oldest of keeping.keys()) {
      if (keeping.size <= limits.resultsKept) break;
      keeping.delete(oldest);
    }
    return done;
  }

  /** Accepted under its claim: from now on this node tells the result to whoever asks, also when nobody leads its shard. */
  function keepAccepted(name: ActionName): void {
    const handed = uncommitted.get(name);
    uncommitted.delete(name);
    if (!handed) return;
    keep(handed).catch((error: unknown) => {
      onLog('info', `the result of action ${name} was not kept: ${toStatusError(error).reason}`);
    });
  }

  function onNote(note: Extract<OffloadWork, { readonly kind: 'note' }>['note']): void {
    const atMs = clock.nowMs();
    switch (note.kind) {
      case 'pinned':
        return promises.onPinned(note.blob);
      case 'decided': {
        const { request, where, hereMs = Infinity, elsewhereMs = Infinity, why } = note;
        const run = requests.runOf(request);
        return run === undefined ? undefined : record({ kind: 'decided', atMs, run, where, hereMs, elsewhereMs, why });
      }
      case 'committed': {
        if (!isAction(note.key)) return;
        const key = actionOf(note.key);
        if (note.outcome !== 'accepted') record({ kind: 'commitRefused', atMs, ...key, outcome: note.outcome });
        else keepAccepted(note.key);
        return;
      }
      default:
    }
  }

  return {
    turnGuestsAway() {
      takesGuests = false;
      tellSlots();
    },
    registers,
    offers: trusted.offers,
    holds: () => heldTrees.sketch(),
    async run(offered) {
      using _ = invocations.enter(offered.context.invocation);
      return await requests.run(offered);
    },
    perform(work) {
      switch (work.kind) {
        case 'fetchInputs':
        case 'run':
        case 'freeze':
        case 'thaw':
        case 'kill':
          return runs.perform(work);
        case 'fetchOutputs':
        case 'stopFetch':
        case 'answer':
        case 'progress':
          return requests.perform(work);
        case 'note':
          return onNote(work.note);
        case 'lookedUp':
          return registers.perform(work);
        default:
          work satisfies never;
      }
    },
    async close() {
      clearImmediate(attaching);
      attached?.[Symbol.dispose]();
      registers.close();
      requests.close();
      await runs.close();
      invocations.close();
      promises.close();
    },
  };
}

function platformOf({ action, command }: PreparedAction) {
  // Clients of 2.1 and before write it into the command alone.
  return (action.platform ?? command.platform)?.properties ?? [];
}

/**
 * Whose results are not believed need not run anything, and nobody can run what this node hands out no inputs for: the
 * policy, said as what a node offers and an action asks for. The same names let a client choose a node by its platform
 * properties.
 */
function trustedPlatform(identity: Identity, { trust, servesBlobs }: OffloadOptions) {
  const { peerId } = identity;
  const isPublisher =
    identity.verifyMember(peerId, identity.certificate()).member?.roles.includes(publisherRole) ?? false;
  const node = `potluck-node=${peerId}`;
  const publisher = 'potluck-publisher=true';
  const own = trust === 'publishers' && isPublisher && servesBlobs ? publisher : node;
  return {
    node,
    offers: [node, ...(isPublisher ? [publisher] : [])],
    requires: trust === 'members' && servesBlobs ? [] : [own],
  };
}

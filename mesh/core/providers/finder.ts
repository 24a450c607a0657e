/** Looking up who holds blobs: asks their keepers in batches, one for each blob and a second when the first knows nobody. */
import type { BlobKey, NodeId } from '../ids.ts';
import type { Context } from './context.ts';
import * as limits from './limits.ts';
import { placeOf } from './places.ts';
import type { Found, Place, ProviderEffect, ProviderMessage } from './types.ts';

export interface Finder {
  find(find: number, blobs: readonly BlobKey[], thorough: boolean): void;
  stop(find: number): void;
  answered(from: NodeId, message: Extract<ProviderMessage, { kind: 'holders' }>): void;
  /** Everything under way is over: the time it was asked at is long ago. */
  giveUp(): void;
  onTimers(): void;
  nextMs(): number;
}

/** One blob of a find. */
interface Search {
  readonly blob: BlobKey;
  readonly place: Place;
  /** Keepers not asked yet, the next one first. */
  left: NodeId[];
  readonly keepers: number;
  answers: number;
  waiting: number;
  readonly holders: NodeId[];
}

interface Find {
  readonly find: number;
  readonly thorough: boolean;
  readonly endsAtMs: number;
  readonly searches: Set<Search>;
  resolved: Found[];
}

interface Question {
  readonly to: NodeId;
  readonly find: Find;
  readonly searches: readonly Search[];
  readonly endsAtMs: number;
}

export function createFinder(
  context: Context,
  own: (place: Place) => NodeId[],
  benched: (node: NodeId) => boolean,
  emit: (effect: ProviderEffect) => void,
): Finder {
  const { self } = context;
  const finds = new Map<number, Find>();
  const questions = new Map<number, Question>();
  const silentUntilMs = new Map<NodeId, number>();
  let seq = context.rng.below(2 ** 30);

  function keepersOf(place: Place): NodeId[] {
    const ring = context.ring();
    if (!ring) return [self];
    const nodes = ring.nearest(place, limits.recordKeepers).map((index) => ring.nodes[index] as NodeId);
    const silent = (node: NodeId): number => ((silentUntilMs.get(node) ?? 0) > context.nowMs() ? 1 : 0);
    const present = nodes.filter((node) => node === self || context.statusOf(node) === 'alive');
    return present.sort((a, b) => silent(a) - silent(b));
  }

  function learn(search: Search, holders: readonly NodeId[]): void {
    search.answers += 1;
    for (const node of holders) {
      if (node === self || search.holders.includes(node) || benched(node)) continue;
      if (context.statusOf(node) === 'alive') search.holders.push(node);
    }
  }

  function settled(find: Find, search: Search): boolean {
    if (search.waiting > 0) return false;
    if (search.left.length === 0) return true;
    if (find.thorough) return false;
    return search.holders.length > 0 || search.answers >= limits.keepersForMiss;
  }

  /** Sends what has to be asked next, and reports what is known. */
  function advance(find: Find): void {
    const byKeeper = new Map<NodeId, Search[]>();
    for (const search of find.searches) {
      while (!settled(find, search) && search.left.length > 0 && (find.thorough || search.waiting === 0)) {
        // A keeper that is asked for another blob already costs no message of its own.
        const shared = find.thorough ? -1 : search.left.findIndex((node) => node === self || byKeeper.has(node));
        const [keeper] = search.left.splice(Math.max(0, shared), 1) as [NodeId];
        if (keeper === self) {
          learn(search, own(search.place));
          continue;
        }
        search.waiting += 1;
        const batch = byKeeper.get(keeper);
        if (batch) batch.push(search);
        else byKeeper.set(keeper, [search]);
      }
      if (settled(find, search)) resolve(find, search, 'asked');
    }
    for (const [to, searches] of byKeeper) {
      for (let i = 0; i < searches.length; i += limits.placesPerQuestion) {
        ask(find, to, searches.slice(i, i + limits.placesPerQuestion));
      }
    }
    report(find);
  }

  function ask(find: Find, to: NodeId, searches: readonly Search[]): void {
    seq += 1;
    questions.set(seq, { to, find, searches, endsAtMs: context.nowMs() + limits.answerMs });
    context.send(to, { kind: 'whoHas', seq, places: searches.map(({ place }) => place) });
  }

  function resolve(find: Find, search: Search, sure: Found['sure']): void {
    find.searches.delete(search);
    const enough = Math.min(limits.keepersForMiss, search.keepers);
    find.resolved.push({
      blob: search.blob,
      holders: search.holders,
      sure: sure === 'asked' && (search.holders.length > 0 || search.answers >= enough) ? 'asked' : 'budget',
    });
  }

  function report(find: Find): void {
    const done = find.searches.size === 0;
    if (done) finds.delete(find.find);
    if (find.resolved.length === 0 && !done) return;
    emit({ kind: 'found', find: find.find, found: find.resolved, done });
    find.resolved = [];
  }

  function end(find: Find): void {
    for (const search of find.searches) resolve(find, search, 'budget');
    report(find);
  }

  function closed(question: Question): boolean {
    return finds.get(question.find.find) !== question.find;
  }

  return {
    find(number, blobs, thorough) {
      const searches = new Set<Search>();
      for (const blob of new Set(blobs)) {
        const place = placeOf(blob);
        const left = keepersOf(place);
        searches.add({ blob, place, left, keepers: left.length, answers: 0, waiting: 0, holders: [] });
      }
      const made: Find = {
        find: number,
        thorough,
        endsAtMs: context.nowMs() + limits.findBudgetMs,
        searches,
        resolved: [],
      };
      finds.set(number, made);
      if (finds.size > limits.findsMax) end(made);
      else advance(made);
    },
    stop: (find) => void finds.delete(find),
    answered(from, message) {
      const question = questions.get(message.seq);
      if (question?.to !== from) return;
      questions.delete(message.seq);
      silentUntilMs.delete(from);
      if (closed(question)) return;
      for (const [i, search] of question.searches.entries()) {
        search.waiting -= 1;
        const list = message.lists[i];
        if (list)
          learn(
            search,
            list.flatMap((index) => message.nodes[index] ?? []),
          );
      }
      advance(question.find);
    },
    giveUp() {
      questions.clear();
      for (const find of [...finds.values()]) end(find);
    },
    onTimers() {
      const nowMs = context.nowMs();
      const late = new Set<Find>();
      for (const [asked, question] of questions) {
        if (nowMs < question.endsAtMs) continue;
        questions.delete(asked);
        silentUntilMs.set(question.to, nowMs + limits.silentMs);
        if (closed(question)) continue;
        for (const search of question.searches) search.waiting -= 1;
        late.add(question.find);
      }
      for (const find of late) advance(find);
      for (const find of [...finds.values()]) if (nowMs >= find.endsAtMs) end(find);
      if (silentUntilMs.size > limits.findsMax) silentUntilMs.clear();
    },
    nextMs() {
      let next = Number.POSITIVE_INFINITY;
      for (const question of questions.values()) next = Math.min(next, question.endsAtMs);
      for (const find of finds.values()) next = Math.min(next, find.endsAtMs);
      return next;
    },
  };
}

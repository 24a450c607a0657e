/**
 * A set of (place, owner) pairs in flat arrays, about 20 bytes each: a chained hash table whose buckets are in order of
 * places, so that a region is a run of buckets. A place that very many hold (a compiler, on every machine of a large mesh)
 * keeps only its first owners there: the others are in a list of their own, so that one more costs the same as the first.
 */
import { placesEnd, regionOf } from './places.ts';
import { regions } from './limits.ts';
import type { Place } from './types.ts';

export interface Records {
  /** False when it was there already. */
  add(place: Place, owner: number): boolean;
  /** False when it was not there. */
  remove(place: Place, owner: number): boolean;
  has(place: Place, owner: number): boolean;
  /** Owners of a place, at most `max`, the newest first. */
  owners(place: Place, max: number): number[];
  /** Calls back for every pair of the region; the callback may not change the set. */
  eachIn(region: number, act: (place: Place, owner: number) => void): void;
  size(): number;
  /** Memory of the arrays. */
  allocatedBytes(): number;
}

const none = -1;
const capacityMin = 16;
/** Owners of one place in the table; further ones are in its list, of about so many bytes each. */
const chainedOwners = 16;
const listedBytes = 48;

/** Owners in no order that matters, the newest mostly last; and where each stands. */
interface Hot {
  readonly owners: number[];
  readonly at: Map<number, number>;
}

export function createRecords(): Records {
  let capacity = capacityMin;
  let places = new Float64Array(capacity);
  let owners = new Uint16Array(capacity);
  // The next of the same bucket, or the next free slot.
  let next = new Int32Array(capacity);
  let buckets = new Int32Array(capacityMin).fill(none);
  let free = none;
  let used = 0;
  let size = 0;
  let listed = 0;
  const hot = new Map<Place, Hot>();

  function bucketOf(place: Place): number {
    return Math.floor((place / placesEnd) * buckets.length);
  }

  function grow(): void {
    capacity = Math.trunc(capacity * 1.5);
    const [oldPlaces, oldOwners, oldNext] = [places, owners, next];
    places = new Float64Array(capacity);
    places.set(oldPlaces);
    owners = new Uint16Array(capacity);
    owners.set(oldOwners);
    next = new Int32Array(capacity);
    next.set(oldNext);
    if (capacity <= buckets.length * 2) return;
    // Half as many buckets as slots, and only when every slot is in use: so all of them are in some chain.
    buckets = new Int32Array(buckets.length * 2).fill(none);
    for (let slot = 0; slot < used; slot++) {
      const bucket = bucketOf(places[slot] as number);
      next[slot] = buckets[bucket] as number;
      buckets[bucket] = slot;
    }
  }

  function find(place: Place, owner: number): number {
    let slot = buckets[bucketOf(place)] as number;
    while (slot !== none && (places[slot] !== place || owners[slot] !== owner)) slot = next[slot] as number;
    return slot;
  }

  function chained(place: Place): number {
    let count = 0;
    for (let slot = buckets[bucketOf(place)] as number; slot !== none; slot = next[slot] as number) {
      if (places[slot] === place) count += 1;
    }
    return count;
  }

  function list(place: Place, owner: number): boolean {
    let known = hot.get(place);
    if (!known) hot.set(place, (known = { owners: [], at: new Map() }));
    if (known.at.has(owner)) return false;
    known.at.set(owner, known.owners.push(owner) - 1);
    listed += 1;
    return true;
  }

  function unlist(place: Place, owner: number): boolean {
    const known = hot.get(place);
    const at = known?.at.get(owner);
    if (!known || at === undefined) return false;
    const last = known.owners.pop() as number;
    known.at.delete(owner);
    if (last !== owner) {
      known.owners[at] = last;
      known.at.set(last, at);
    }
    if (known.owners.length === 0) hot.delete(place);
    listed -= 1;
    return true;
  }

  return {
    add(place, owner) {
      if (find(place, owner) !== none) return false;
      if (hot.has(place) || chained(place) >= chainedOwners) return list(place, owner);
      if (free === none && used === capacity) grow();
      let slot = free;
      if (slot === none) slot = used++;
      else free = next[slot] as number;
      const bucket = bucketOf(place);
      places[slot] = place;
      owners[slot] = owner;
      next[slot] = buckets[bucket] as number;
      buckets[bucket] = slot;
      size += 1;
      return true;
    },
    remove(place, owner) {
      const slot = find(place, owner);
      if (slot === none) return unlist(place, owner);
      const bucket = bucketOf(place);
      if (buckets[bucket] === slot) buckets[bucket] = next[slot] as number;
      else {
        let before = buckets[bucket] as number;
        while (next[before] !== slot) before = next[before] as number;
        next[before] = next[slot] as number;
      }
      next[slot] = free;
      free = slot;
      size -= 1;
      return true;
    },
    has: (place, owner) => find(place, owner) !== none || hot.get(place)?.at.has(owner) === true,
    owners(place, max) {
      const found = hot.get(place)?.owners.slice(-max).reverse() ?? [];
      let slot = buckets[bucketOf(place)] as number;
      while (slot !== none && found.length < max) {
        if (places[slot] === place) found.push(owners[slot] as number);
        slot = next[slot] as number;
      }
      return found;
    },
    eachIn(region, act) {
      const from = Math.floor((region * buckets.length) / regions);
      const to = Math.ceil(((region + 1) * buckets.length) / regions);
      for (let bucket = from; bucket < to; bucket++) {
        for (let slot = buckets[bucket] as number; slot !== none; slot = next[slot] as number) {
          const place = places[slot] as number;
          // With fewer buckets than regions, neighbours share one.
          if (regionOf(place) === region) act(place, owners[slot] as number);
        }
      }
      for (const [place, { owners: more }] of hot) {
        if (regionOf(place) === region) for (const owner of more) act(place, owner);
      }
    },
    size: () => size + listed,
    allocatedBytes: () =>
      places.byteLength + owners.byteLength + next.byteLength + buckets.byteLength + listed * listedBytes,
  };
}

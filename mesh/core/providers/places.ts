/** Where blobs stand: arithmetic over places (see types.ts), exact in doubles. */
import { hashPair, hashText } from '../hash.ts';
import type { BlobKey } from '../ids.ts';
import type { Place } from './types.ts';

const hexDigits = 13;
const perPoint = 2 ** 20;
const perRegion = 2 ** 44;
/** One more than the largest place. */
export const placesEnd = 2 ** 52;

/** The place of a blob, from the first 52 bits of its own hash. */
export function placeOf(blob: BlobKey): Place {
  const from = blob.indexOf('/') + 1;
  let place = 0;
  for (let i = from; i < from + hexDigits; i++) {
    const code = blob.charCodeAt(i);
    const digit = code >= 97 ? code - 87 : code - 48;
    // Names that are no digests, as in tests, are spread by a hash of their own.
    if (!(digit >= 0 && digit < 16)) return hashText(blob) * perPoint + (hashText(blob, 1) % perPoint);
    place = place * 16 + digit;
  }
  return place;
}

/** First 32 bits of a place: what is compared with the points of nodes. */
export function pointOf(place: Place): number {
  return Math.floor(place / perPoint);
}

/** 0 .. regions - 1, rising with the place. */
export function regionOf(place: Place): number {
  return Math.floor(place / perRegion);
}

/** Hash of one place; sets of places are compared by the exclusive or over their members. */
export function mixPlace(place: Place): number {
  return hashPair(pointOf(place), place % perPoint);
}

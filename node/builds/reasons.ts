/** Why a run went where it went, in words. */
import type { DecidedWhy } from '../../mesh/core/offload/types.ts';

const sentences: Readonly<Record<DecidedWhy, string>> = {
  freeSlot: 'a slot was free here, and elsewhere was not much sooner',
  soonerHere: 'waiting for a slot here was expected to be sooner',
  soonerElsewhere: 'elsewhere was expected to be sooner',
  slowLink: 'the links to those who could run it are too slow for its inputs and outputs',
  nobodyElse: 'nobody else lends a slot and could run it',
  noLeader: 'nobody led its shard at that moment',
  notHere: 'it is not to run on this node: another platform was asked for, or this node is avoided',
  silentLeader: 'who leads its shard did not answer in time',
  straggler: 'it took far longer elsewhere than such actions do, so it was run here as well',
  merged: 'the same action ran elsewhere already',
  badResult: 'a result that was found or handed over did not hold',
  lastTry: 'those who tried elsewhere failed, so it was run here',
};

export function reasonText(why: string): string {
  return Object.hasOwn(sentences, why) ? sentences[why as DecidedWhy] : why;
}

/**
 * Who keeps the records of a place: the nodes of which one point is nearest to it in XOR distance. A node stands at
 * several points, hashes of the mesh's salt, its id and a counter: nobody chooses its place, and load evens out.
 *
 * @see Maymounkov and Mazieres, "Kademlia", 2002, section 2 (the metric); docs/adr/0016-provider-index.md
 */
import assert from 'node:assert';
import { hashPair, hashText } from '../hash.ts';
import type { NodeId } from '../ids.ts';
import { pointsPerNode, providersMax } from './limits.ts';
import { pointOf } from './places.ts';
import type { Place } from './types.ts';

/** An immutable set of nodes and their points. */
export interface Ring {
  /** In order of ids. */
  readonly nodes: readonly NodeId[];
  has(node: NodeId): boolean;
  /** Indices into `nodes` of the `count` nearest nodes, nearest first; fewer when there are not so many. */
  nearest(place: Place, count: number): number[];
}

/** Makes the ring of nodes that are sorted and differ; two of the same nodes and salt are equal. */
export function createRing(nodes: readonly NodeId[], meshSalt: number): Ring {
  assert(nodes.length <= providersMax, 'too many nodes for a ring');
  // Point and node in one double, so that sorting is the engine's own over numbers. Equal points are ordered by node.
  const packed = new Float64Array(nodes.length * pointsPerNode);
  for (const [index, node] of nodes.entries()) {
    const name = hashText(node, meshSalt);
    const other = hashText(node, ~meshSalt);
    for (let i = 0; i < pointsPerNode; i++) {
      packed[index * pointsPerNode + i] = hashPair(hashPair(name, i), other) * 65_536 + index;
    }
  }
  packed.sort();
  const points = new Uint32Array(packed.length);
  const owners = new Uint16Array(packed.length);
  for (let i = 0; i < packed.length; i++) {
    const both = packed[i] as number;
    points[i] = Math.floor(both / 65_536);
    owners[i] = both % 65_536;
  }

  /** First of `from` .. `to - 1` whose point has the bit set; they agree in all bits above it. */
  function split(from: number, to: number, bit: number): number {
    let [low, high] = [from, to];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (((points[middle] as number) >>> bit) & 1) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Walks the points as a binary trie, on each level first into the half that agrees with the target. */
  function walk(from: number, to: number, bit: number, target: number, count: number, found: number[]): void {
    if (from === to || found.length === count) return;
    if (to - from === 1 || bit < 0) {
      for (let i = from; i < to && found.length < count; i++) {
        const owner = owners[i] as number;
        if (!found.includes(owner)) found.push(owner);
      }
      return;
    }
    const middle = split(from, to, bit);
    if ((target >>> bit) & 1) {
      walk(middle, to, bit - 1, target, count, found);
      walk(from, middle, bit - 1, target, count, found);
    } else {
      walk(from, middle, bit - 1, target, count, found);
      walk(middle, to, bit - 1, target, count, found);
    }
  }

  return {
    nodes,
    has(node) {
      let [low, high] = [0, nodes.length];
      while (low < high) {
        const middle = (low + high) >>> 1;
        if ((nodes[middle] as NodeId) < node) low = middle + 1;
        else high = middle;
      }
      return nodes[low] === node;
    },
    nearest(place, count) {
      const found: number[] = [];
      walk(0, points.length, 31, pointOf(place), count, found);
      return found;
    },
  };
}

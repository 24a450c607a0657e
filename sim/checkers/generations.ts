/**
 * A shard is formed anew only with the consent of others, never by one node alone; and when everything is healed, one
 * history of each shard is left, with a leader, and its voters hold the same registers.
 */
import { type Generation, nodeOf } from '../../mesh/core/ids.ts';
import type { CheckerFactory } from './checker.ts';

export const generations: CheckerFactory = (world, fail) => {
  const consents = new Map<string, Set<number>>();
  let observed = 0;
  let forced = 0;
  let met = 0;
  let merged = 0;
  let forgotten = 0;

  const nameOf = (shard: number, { number, hash }: Generation): string => `${shard}/${number}:${hash}`;

  return {
    name: 'generations',
    observed: () => observed + forgotten,
    sometimes: () => ({ 'forced generation': forced, 'histories met': met, 'histories merged': merged }),
    onReceive(node, from, message) {
      if (message.kind !== 'formReply' || !message.consent) return;
      const name = `${node.index} ${nameOf(message.shard, message.generation)}`;
      const known = consents.get(name);
      if (known) known.add(from);
      else consents.set(name, new Set([from]));
    },
    onNote(node, note) {
      if (note.kind === 'generationsMet') met += 1;
      if (note.kind === 'merged') merged += 1;
      if (note.kind !== 'generationForced') return;
      forced += 1;
      observed += 1;
      const agreed = consents.get(`${node.index} ${nameOf(note.shard, note.generation)}`) ?? new Set();
      agreed.add(node.index);
      if (agreed.size < 2) fail(`${node.id} formed ${nameOf(note.shard, note.generation)} alone`);
      const members = [...(node.peer()?.membership.members() ?? [])].filter(({ status }) => status !== 'left').length;
      if (agreed.size * 2 <= members) {
        fail(`${node.id} formed ${nameOf(note.shard, note.generation)} with ${agreed.size} of ${members} members`);
      }
    },
    onEnd() {
      for (let shard = 0; shard < world.shards; shard++) {
        // With every voter's disk gone and nobody left who heard of the shard, there is nothing to form anew.
        const known = world.nodes.some((node) =>
          node
            .peer()
            ?.coordination.statuses()
            .some((status) => status.shard === shard),
        );
        if (!known) {
          forgotten += 1;
          continue;
        }
        const groups = world.nodes.flatMap((node) => {
          const group = node.peer()?.coordination.groupOf(shard);
          return group ? [{ node, group }] : [];
        });
        const newest = Math.max(...groups.map(({ group }) => group.generation.number));
        const leading = groups.filter(
          ({ group }) => group.generation.number === newest && group.status.role === 'leader',
        );
        observed += 1;
        const [leader] = leading.sort((a, b) => b.group.status.term - a.group.status.term);
        if (!leader) return fail(`shard ${shard} has no leader after healing`);
        const name = nameOf(shard, leader.group.generation);
        const history = leader.group.registers.snapshot();
        for (const voter of leader.group.status.configuration.voters) {
          const mate = groups.find(({ node }) => `${node.id}~${node.disk().generation}` === voter);
          if (!mate) return fail(`${voter} votes in ${name} and ${nodeOf(voter)} does not know`);
          if (nameOf(shard, mate.group.generation) !== name) {
            fail(`${voter} is in ${nameOf(shard, mate.group.generation)}, not in ${name}`);
          }
          if (mate.group.status.commit !== leader.group.status.commit) continue;
          if (JSON.stringify(mate.group.registers.snapshot()) !== JSON.stringify(history)) {
            fail(`${voter} and the leader of ${name} hold different registers`);
          }
        }
      }
    },
  };
};

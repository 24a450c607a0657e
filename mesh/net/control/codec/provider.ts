/** The messages of the provider index. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type * as wire from '../../../../protos/gen/potluck/mesh/v1/control_pb.ts';
import type { ProviderMessage } from '../../../core/providers/types.ts';
import * as limits from '../limits.ts';
import { bounded, BrokenRule, integer, text, whole } from './checks.ts';

type Init = NonNullable<MessageInitShape<typeof wire.ProviderSchema>['message']>;

export function providerOf(message: ProviderMessage): Init {
  switch (message.kind) {
    case 'announce': {
      const { seq, life, generation, add, remove, clear } = message;
      return {
        case: 'announce',
        value: { seq, life, generation, add: [...add], remove: [...remove], clear: [...clear] },
      };
    }
    case 'announced': {
      const { seq, count, hash, full } = message;
      return { case: 'announced', value: { seq, count, hash, full } };
    }
    case 'regionsAsked':
      return { case: 'regionsAsked', value: { seq: message.seq } };
    case 'regions':
      return { case: 'regions', value: { seq: message.seq, summaries: [...message.summaries] } };
    case 'whoHas':
      return { case: 'whoHas', value: { seq: message.seq, places: [...message.places] } };
    case 'holders': {
      const lists = message.lists.map((at) => ({ at: [...at] }));
      return { case: 'holders', value: { seq: message.seq, nodes: [...message.nodes], lists } };
    }
    default:
      return message satisfies never;
  }
}

export function providerIn({ message }: wire.Provider): ProviderMessage {
  switch (message.case) {
    case 'announce': {
      const { seq, life, generation, add, remove, clear } = message.value;
      return {
        kind: 'announce',
        seq,
        life: integer(life),
        generation: whole(generation),
        add: places(add),
        remove: places(remove),
        clear: bounded(clear, limits.placesMax),
      };
    }
    case 'announced': {
      const { seq, count, hash, full } = message.value;
      return { kind: 'announced', seq, count, hash: integer(hash), full };
    }
    case 'regionsAsked':
      return { kind: 'regionsAsked', seq: message.value.seq };
    case 'regions': {
      const { seq, summaries } = message.value;
      return { kind: 'regions', seq, summaries: bounded(summaries, limits.placesMax).map(integer) };
    }
    case 'whoHas':
      return { kind: 'whoHas', seq: message.value.seq, places: places(message.value.places) };
    case 'holders': {
      const { seq, nodes, lists } = message.value;
      return {
        kind: 'holders',
        seq,
        nodes: bounded(nodes, limits.nodesMax).map(text),
        lists: bounded(lists, limits.placesMax).map(({ at }) => {
          if (at.some((index) => index >= nodes.length)) throw new BrokenRule('a holder that is not named');
          return at;
        }),
      };
    }
    case undefined:
      throw new BrokenRule('a provider message that is none');
    default:
      return message satisfies never;
  }
}

function places(list: readonly number[]): readonly number[] {
  return bounded(list, limits.placesMax).map(whole);
}

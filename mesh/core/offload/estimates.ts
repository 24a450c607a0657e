/**
 * How long an action will run, and where: each family of actions has a time of its own, on a machine of mean speed; each
 * pair of machine and mnemonic has a slowness against that. Speed is learned from the action's own history, never from
 * the size of its outputs, which rates a laptop that compiles headers above a workstation that links.
 */
import type { NodeId } from '../ids.ts';
import * as limits from './limits.ts';

/** What is known of an action before it runs. */
export interface ActionTraits {
  readonly mnemonic: string;
  /** Names the action over changes of its inputs: its mnemonic and first output, for example. */
  readonly family: string;
  /** What its client thinks, until its family was seen; 0 when it does not know. */
  readonly expectedMs?: number;
}

export interface Estimates {
  /** On a machine of mean speed. */
  meanRunMs(action: ActionTraits): number;
  runMs(action: ActionTraits, node: NodeId): number;
  /** Takes a run that ended well. Time spent frozen is not run time. */
  ran(action: ActionTraits, node: NodeId, runMs: number): void;
  /** Size of what the family left behind before, or 0. */
  outputBytes(action: ActionTraits): number;
  left(action: ActionTraits, sizeBytes: number): void;
  /** Against the mean, in percent; 100 is the mean, 200 twice as slow. */
  slownessPercent(node: NodeId, mnemonic: string): number;
  families(): number;
}

export function createEstimates(): Estimates {
  const familyMs = new Map<string, number>();
  const mnemonicMs = new Map<string, number>();
  const familyBytes = new Map<string, number>();
  const slowness = new Map<string, number>();
  const pair = (node: NodeId, mnemonic: string): string => `${node} ${mnemonic}`;

  function slownessPercent(node: NodeId, mnemonic: string): number {
    return slowness.get(pair(node, mnemonic)) ?? 100;
  }

  function meanRunMs({ family, mnemonic, expectedMs }: ActionTraits): number {
    return familyMs.get(family) ?? (expectedMs || mnemonicMs.get(mnemonic)) ?? limits.unknownRunMs;
  }

  function learn(of: Map<string, number>, key: string, value: number, max: number): void {
    const before = of.get(key);
    of.delete(key);
    of.set(key, before === undefined ? value : before + (value - before) / limits.observationShare);
    for (const oldest of of.keys()) {
      if (of.size <= max) break;
      of.delete(oldest);
    }
  }

  return {
    meanRunMs,
    slownessPercent,
    runMs: (action, node) => Math.ceil((meanRunMs(action) * slownessPercent(node, action.mnemonic)) / 100),
    ran(action, node, runMs) {
      const { family, mnemonic } = action;
      const known = familyMs.get(family);
      // Only an action that ran before tells how fast this machine is; one that is new may be long or short itself.
      if (known !== undefined && runMs >= limits.measuredRunMsMin) {
        const percent = Math.min(limits.slownessPercentMax, Math.max(limits.slownessPercentMin, (runMs * 100) / known));
        learn(slowness, pair(node, mnemonic), percent, limits.pairsMax);
      }
      const atMeanSpeedMs = (runMs * 100) / slownessPercent(node, mnemonic);
      learn(familyMs, family, atMeanSpeedMs, limits.familiesMax);
      learn(mnemonicMs, mnemonic, atMeanSpeedMs, limits.familiesMax);
    },
    outputBytes: ({ family }) => familyBytes.get(family) ?? 0,
    left: ({ family }, sizeBytes) => learn(familyBytes, family, sizeBytes, limits.familiesMax),
    families: () => familyMs.size,
  };
}

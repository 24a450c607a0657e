/** What this machine tells of an action that it ended, or could not run: a log beside the answer. */
import type { Sandbox } from '../../sandbox/sandbox.ts';

export interface ServerLogFacts {
  readonly worker: string;
  readonly sandbox: Pick<Sandbox, 'isolation' | 'limitsInForce'>;
  readonly timeoutMs: number;
  readonly phaseMs: ReadonlyMap<string, number>;
  /** A sentence. */
  readonly why: string;
}

/** The name of the log in `ExecuteResponse.server_logs`. */
export const serverLogName = 'worker';

export function serverLogText({ worker, sandbox, timeoutMs, phaseMs, why }: ServerLogFacts): string {
  const phases = Array.from(phaseMs, ([phase, ms]) => `  ${phase.padEnd(12)}${ms} ms`);
  return [
    why,
    '',
    `worker:    ${worker}`,
    `isolation: ${sandbox.isolation}`,
    `timeout:   ${timeoutMs / 1000} s`,
    'limits:',
    ...sandbox.limitsInForce.map((limit) => `  ${limit}`),
    'phases:',
    ...(phases.length > 0 ? phases : ['  none was entered']),
    '',
  ].join('\n');
}

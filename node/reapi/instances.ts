/** Which instance names a server answers to. */
import { StatusError } from '../../protos/status.ts';
import { limits } from './limits.ts';
import { isInstanceName } from './resource-name.ts';

/** Throws INVALID_ARGUMENT for a name that is malformed or not served. */
export type InstanceCheck = (name: string) => void;

/** `served` undefined: every well-formed name is served, each with action results of its own. */
export function checkInstances(served: readonly string[] | undefined): InstanceCheck {
  const names = served && new Set(served);
  return (name) => {
    if (names?.has(name)) return;
    // Not NOT_FOUND: clients would take that for a cache miss.
    if (names) {
      const list = [...names].map((served) => `"${served}"`).join(', ');
      throw new StatusError('INVALID_ARGUMENT', `instance "${name}" is not served here; served are ${list}`);
    }
    if (name.length > limits.instanceNameCharsMax) {
      throw new StatusError(
        'INVALID_ARGUMENT',
        `an instance name has at most ${limits.instanceNameCharsMax} characters`,
      );
    }
    if (name !== '' && !isInstanceName(name)) {
      throw new StatusError('INVALID_ARGUMENT', `"${name}" cannot be an instance name: a segment is empty or reserved`);
    }
  };
}

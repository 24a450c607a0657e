/** The names of the machines' world (mesh/core/ids.ts) and of the store's, turned into each other. */
import { type ActionKey as ActionName, actionKey, type BlobKey } from '../../mesh/core/ids.ts';
import { type Digest, type DigestFunction, digestFunctions, digestKey, makeDigest } from '../../protos/digest.ts';
import { StatusError } from '../../protos/status.ts';
import type { ActionKey } from '../storage/action-cache.ts';

export function actionName({ instance, action }: ActionKey): ActionName {
  return actionKey(instance, action.fn, action.hash, action.sizeBytes);
}

/** Throws INVALID_ARGUMENT for a text that no `actionName` made. */
export function actionOf(name: ActionName): ActionKey {
  const [fn = '', hash = '', size = '', ...instance] = name.split('/');
  return { instance: instance.join('/'), action: digestFrom(fn, hash, size, name) };
}

/** Whether `actionOf` takes it: names come from members as well. */
export function isAction(name: ActionName): boolean {
  try {
    actionOf(name);
    return true;
  } catch {
    return false;
  }
}

export const blobName: (digest: Digest) => BlobKey = digestKey;

function digestFrom(fn: string, hash: string, size: string, name: string): Digest {
  if (!Object.hasOwn(digestFunctions, fn) || !/^\d{1,16}$/.test(size)) {
    throw new StatusError('INVALID_ARGUMENT', `"${name.slice(0, 100)}" names no blob`);
  }
  return makeDigest(fn as DigestFunction, hash, Number(size));
}

/** What programs and pages can ask about builds, below `/api/`: JSON of the same form that the commands print. */
import { StatusError } from '../../protos/status.ts';

export interface ApiSources {
  builds(): Promise<readonly object[]>;
  build(id: string): Promise<object>;
  explain(action: string): Promise<object>;
  top(): object;
  audits(): object;
  /** How far the audit of an action is; `begin` starts one unless it is under way. */
  audit(action: string, begin: boolean): Promise<object>;
}

const prefix = '/api/';

/** The methods that are possible at a path and how to answer; `undefined` when nothing is there. */
export function findApi(
  sources: ApiSources,
  path: string,
): { readonly methods: readonly string[]; answer(method: string): Promise<object> } | undefined {
  if (!path.startsWith(prefix)) return undefined;
  const [what = '', ...rest] = path.slice(prefix.length).split('/');
  const operand = rest.length === 0 ? undefined : decode(rest.join('/'));
  const get = (answer: () => object | Promise<object>) => ({
    methods: ['GET', 'HEAD'],
    answer: async () => await answer(),
  });
  if (operand === undefined) {
    if (what === 'builds') return get(async () => ({ builds: await sources.builds() }));
    if (what === 'top') return get(() => sources.top());
    if (what === 'audit') return get(() => sources.audits());
    return undefined;
  }
  if (what === 'builds') return get(() => sources.build(operand));
  if (what === 'explain') return get(() => sources.explain(operand));
  if (what !== 'audit') return undefined;
  return { methods: ['GET', 'HEAD', 'POST'], answer: (method) => sources.audit(operand, method === 'POST') };
}

/** Throws INVALID_ARGUMENT. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new StatusError('INVALID_ARGUMENT', `"${text}" is no part of a URL`);
  }
}

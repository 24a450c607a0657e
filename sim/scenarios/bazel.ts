import type { Graph, GraphModel } from './graph.ts';
export function readBazelGraph(
  _files: { readonly profile: Buffer | undefined; readonly executionLog: Buffer | undefined },
  _model: GraphModel,
): Graph {
  throw new Error('not yet');
}

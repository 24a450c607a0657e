/** gRPC for the rest of the node: the server that runs plain handlers, and typed client calls. */
export type { CallReport } from './grpc-call.ts';
export {
  connectGrpc,
  type GrpcCallOptions,
  type GrpcClient,
  type GrpcClientOptions,
  type GrpcConnection,
} from './grpc-client.ts';
export { type GrpcServer, type GrpcServerOptions, serveGrpc } from './grpc-server.ts';

/** gRPC for the rest of the node: the server that runs plain handlers, and typed client calls. */
export type { CallReport } from './grpc-call.ts';
export { connectGrpc, type GrpcClientOptions, type GrpcConnection } from './grpc-client.ts';
export { type GrpcServer, serveGrpc } from './grpc-server.ts';

/** gRPC for the rest of the node: typed client calls and, on the other side, the server that runs plain handlers. */
export {
  connectGrpc,
  type GrpcCallOptions,
  type GrpcClient,
  type GrpcClientOptions,
  type GrpcConnection,
} from './grpc-client.ts';

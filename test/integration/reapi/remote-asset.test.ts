import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { durationFromMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { connectGrpc, type GrpcConnection, type GrpcServer, serveGrpc } from '../../../node/reapi/grpc.ts';
import { createRemoteAsset } from '../../../node/reapi/remote-asset.ts';
import { toWireDigest } from '../../../protos/digest.ts';
import { Fetch, Push } from '../../../protos/gen/build/bazel/remote/asset/v1/remote_asset_pb.ts';
import {
  DigestFunction_Value,
  DirectorySchema,
} from '../../../protos/gen/build/bazel/remote/execution/v2/remote_execution_pb.ts';
import { BadRequestSchema } from '../../../protos/gen/google/rpc/error_details_pb.ts';
import { codeName, type StatusError } from '../../../protos/status.ts';
import { blobOf, codeOf, noise } from './harness.ts';
import { type ObservedStore, openObservedStore } from './observed-store.ts';

let store: ObservedStore;
let server: GrpcServer;
let connection: GrpcConnection;
let origin: Server;
let originUrl: string;
const folder = mkdtempSync(join(tmpdir(), 'potluck-origin-'));
const content = blobOf(noise(300_000, 61));
/** Requests that the origin answered. */
let asked: string[] = [];

beforeAll(async () => {
  process.env['TMPDIR'] = folder;
  store = await openObservedStore();
  const services = createRemoteAsset({ blobs: store.blobs, actions: store.actions, maxBlobBytes: 1_000_000 });
  server = await serveGrpc({ listen: ['127.0.0.1:0'], services });
  connection = connectGrpc(server.addresses[0] as string);
  origin = createServer((request, response) => {
    asked.push(request.url ?? '');
    if (request.url === '/content') response.end(content.bytes);
    else if (request.url === '/secret') response.writeHead(403).end();
    else if (request.url === '/busy') response.writeHead(503).end();
    else if (request.url === '/large') response.end(Buffer.alloc(1_000_001));
    else if (request.url !== '/silent') response.writeHead(404).end();
  }).listen(0, '127.0.0.1');
  await once(origin, 'listening');
  originUrl = `http://127.0.0.1:${(origin.address() as AddressInfo).port}`;
});
afterAll(async () => {
  connection.close();
  await server.close();
  origin.closeAllConnections();
  origin.close();
  await store[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});
beforeEach(() => {
  asked = [];
});

const fetchClient = () => connection.client(Fetch);
const pushClient = () => connection.client(Push);
/** Keeps tests apart: content is registered by URI and qualifiers. */
let serial = 0;
const canonicalId = () => ({ name: 'bazel.canonical_id', value: String((serial += 1)) });
const sri = (bytes: Uint8Array, algorithm = 'sha256') => ({
  name: 'checksum.sri',
  value: `${algorithm}-${createHash(algorithm).update(bytes).digest('base64')}`,
});
const statusOf = async (call: Promise<{ status?: { code: number } | undefined }>) =>
  codeName((await call).status?.code ?? 0);

describe('FetchBlob', () => {
  test('fetches once, checks, and answers from the store afterwards', async () => {
    const request = { uris: [`${originUrl}/content`], qualifiers: [canonicalId(), sri(content.bytes, 'sha512')] };
    const response = await fetchClient().fetchBlob(request);
    expect(response).toMatchObject({
      status: { code: 0 },
      uri: request.uris[0],
      blobDigest: toWireDigest(content.digest),
      digestFunction: DigestFunction_Value.SHA256,
    });
    expect(Buffer.from((await store.blobs.get(content.digest)) ?? []).equals(content.bytes)).toBe(true);
    await fetchClient().fetchBlob(request);
    expect(asked).toEqual(['/content']);
    await fetchClient().fetchBlob({ ...request, oldestContentAccepted: timestampFromMs(Date.now() + 60_000) });
    expect(asked).toEqual(['/content', '/content']);
  });

  test('computes the digest that is asked for', async () => {
    const blake3 = blobOf(content.bytes, 'blake3');
    const response = await fetchClient().fetchBlob({
      uris: [`${originUrl}/content`],
      digestFunction: DigestFunction_Value.BLAKE3,
    });
    expect(response.blobDigest).toEqual(toWireDigest(blake3.digest));
  });

  test('tries addresses in order, past those that fail', async () => {
    const uris = ['/gone', '/busy', '/content', '/secret'].map((path) => originUrl + path);
    const response = await fetchClient().fetchBlob({ uris, qualifiers: [canonicalId(), sri(content.bytes)] });
    expect(response).toMatchObject({ status: { code: 0 }, uri: uris[2] });
    expect(asked).toEqual(['/gone', '/busy', '/content']);
  });

  test('tells in the response what the origin did', async () => {
    const status = (uri: string, ...qualifiers: { name: string; value: string }[]) =>
      statusOf(fetchClient().fetchBlob({ uris: [uri], qualifiers }));
    expect(await status(`${originUrl}/gone`)).toBe('NOT_FOUND');
    expect(await status(`${originUrl}/secret`)).toBe('PERMISSION_DENIED');
    expect(await status(`${originUrl}/busy`)).toBe('UNAVAILABLE');
    expect(await status(`${originUrl}/large`)).toBe('RESOURCE_EXHAUSTED');
    const silent = { uris: [`${originUrl}/silent`], timeout: durationFromMs(50) };
    expect(await statusOf(fetchClient().fetchBlob(silent))).toBe('DEADLINE_EXCEEDED');
    expect(await status(`${originUrl}/content`, sri(Buffer.from('other')))).toBe('ABORTED');
    expect(await status('http://127.0.0.1:1/')).toBe('UNAVAILABLE');
    expect(await status('ftp://127.0.0.1/x')).toBe('NOT_FOUND');
    expect(await status('no uri at all')).toBe('NOT_FOUND');
    expect(readdirSync(folder).filter((name) => name.startsWith('potluck-fetch-'))).toEqual([]);
  });

  test('reads regular files', async () => {
    const path = join(folder, 'a file');
    writeFileSync(path, 'from a file');
    const fetchFile = (uri: string) => fetchClient().fetchBlob({ uris: [uri] });
    const response = await fetchFile(pathToFileURL(path).href);
    expect(response.blobDigest).toEqual(toWireDigest(blobOf('from a file').digest));
    expect(await statusOf(fetchFile(pathToFileURL(folder).href))).toBe('NOT_FOUND');
    expect(await statusOf(fetchFile('file:///dev/zero'))).toBe('NOT_FOUND');
    expect(await statusOf(fetchFile('file:///no/such/file'))).toBe('NOT_FOUND');
  });

  test('refuses qualifiers that it cannot honour, naming them', async () => {
    const uris = [`${originUrl}/content`];
    const qualifiers = [
      { name: 'vcs.branch', value: 'main' },
      { name: 'checksum.sri', value: 'md5-abc' },
    ];
    const error = (await fetchClient()
      .fetchBlob({ uris, qualifiers })
      .catch((caught) => caught)) as StatusError;
    expect(error.code).toBe('INVALID_ARGUMENT');
    const [detail] = error.details.map(({ value }) => fromBinary(BadRequestSchema, value));
    expect(detail?.fieldViolations.map(({ field }) => field)).toEqual([
      'qualifiers.vcs.branch',
      'qualifiers.checksum.sri',
    ]);
    expect(await codeOf(fetchClient().fetchBlob({ uris, qualifiers: [sri(content.bytes), sri(content.bytes)] }))).toBe(
      'INVALID_ARGUMENT',
    );
    expect(await codeOf(fetchClient().fetchBlob({}))).toBe('INVALID_ARGUMENT');
    expect(asked).toEqual([]);
  });
});

describe('what was pushed', () => {
  test('is found under each of its addresses with the same qualifiers in any order, until it expires', async () => {
    await store.blobs.putMany([content]);
    const [one, two] = [{ name: 'vcs.branch', value: 'main' }, canonicalId()];
    const uris = ['git://example/a', 'git://example/b'];
    const blobDigest = toWireDigest(content.digest);
    await pushClient().pushBlob({ uris, qualifiers: [one, two], blobDigest });
    for (const uri of uris) {
      const response = await fetchClient().fetchBlob({ uris: ['git://other', uri], qualifiers: [two, one] });
      expect(response).toMatchObject({ status: { code: 0 }, uri, blobDigest });
    }
    expect(await statusOf(fetchClient().fetchBlob({ uris, instanceName: 'elsewhere' }))).toBe('NOT_FOUND');
    await pushClient().pushBlob({ uris: ['x:past'], blobDigest, expireAt: timestampFromMs(Date.now() - 1000) });
    expect(await statusOf(fetchClient().fetchBlob({ uris: ['x:past'] }))).toBe('NOT_FOUND');
  });

  test('must be there', async () => {
    const blobDigest = toWireDigest(blobOf('never stored').digest);
    expect(await codeOf(pushClient().pushBlob({ uris: ['x:y'], blobDigest }))).toBe('FAILED_PRECONDITION');
  });

  test('may be a directory, whole', async () => {
    const file = blobOf('a file of the tree');
    const files = [{ name: 'f', digest: toWireDigest(file.digest) }];
    const root = blobOf(toBinary(DirectorySchema, create(DirectorySchema, { files })));
    await store.blobs.putMany([root]);
    const rootDirectoryDigest = toWireDigest(root.digest);
    const uris = ['x:tree'];
    expect(await codeOf(pushClient().pushDirectory({ uris, rootDirectoryDigest }))).toBe('FAILED_PRECONDITION');
    await store.blobs.putMany([file]);
    await pushClient().pushDirectory({ uris, rootDirectoryDigest });
    expect(await fetchClient().fetchDirectory({ uris })).toMatchObject({ status: { code: 0 }, rootDirectoryDigest });
    expect(await statusOf(fetchClient().fetchDirectory({ uris: ['x:no tree'] }))).toBe('NOT_FOUND');
    expect(await statusOf(fetchClient().fetchBlob({ uris }))).toBe('NOT_FOUND');
  });
});

/**
 * The TLS key of one run of a node, with a certificate that only carries it. Who the node is follows from the hello that
 * comes after the TLS handshake (hello.ts), so the certificate says nothing and strangers learn nothing from it.
 */
import { type webcrypto, X509Certificate } from 'node:crypto';

export interface TlsIdentity {
  /** PEM. */
  readonly key: string;
  /** PEM. */
  readonly cert: string;
  /** DER of the public key (SubjectPublicKeyInfo). */
  readonly publicKey: Uint8Array;
}

const day = 24 * 60 * 60 * 1_000;
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

/** P-256, which every TLS 1.3 has; its handshake costs a tenth of a millisecond. */
export async function createTlsIdentity(): Promise<TlsIdentity> {
  // Only nodes that are in a mesh pay for loading it.
  await import('reflect-metadata');
  const { X509CertificateGenerator } = await import('@peculiar/x509');
  const keys = (await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
  const now = Date.now();
  const description = {
    serialNumber: '01',
    name: 'CN=potluck',
    // Nobody looks at the times; a clock that is wrong must not matter here.
    notBefore: new Date(now - 365 * day),
    notAfter: new Date(now + 3_650 * day),
    signingAlgorithm: algorithm,
    keys,
  };
  // Named, because others who use the library set another default for the whole process.
  const certificate = await X509CertificateGenerator.createSelfSigned(description, crypto);
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  const cert = certificate.toString('pem');
  return {
    key: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`,
    cert,
    publicKey: new X509Certificate(cert).publicKey.export({ type: 'spki', format: 'der' }),
  };
}

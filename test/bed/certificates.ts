// Certificates for the test bed: an authority that signs server and client certificates.
// Required by the X.509 library, and must be imported before it.
import 'reflect-metadata';
import type { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

export interface KeyPair {
  readonly certPem: string;
  readonly keyPem: string;
}

export interface Authority {
  readonly caPem: string;
  /** A serving certificate for DNS names and IP addresses. */
  serving(names: readonly string[], days?: number): Promise<KeyPair>;
  /**
   * A client certificate: Kubernetes reads CN as the user and each O as a group.
   *
   * @param uris alternative names
   */
  client(user: string, groups: readonly string[], uris?: readonly string[]): Promise<KeyPair>;
  /** An authority that this one signs. */
  intermediate(name: string): Promise<Authority>;
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const DAY_MS = 86_400_000;

/** Creates a certificate authority. */
export async function createAuthority(name: string): Promise<Authority> {
  const keys = await newKeys();
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: ALGORITHM,
    ...validity(30),
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return authorityOf(ca, keys);
}

function authorityOf(ca: x509.X509Certificate, keys: webcrypto.CryptoKeyPair): Authority {
  const issue = async (
    subject: x509.JsonName | string,
    extensions: x509.Extension[],
    days: number,
  ): Promise<KeyPair> => {
    const own = await newKeys();
    const cert = await x509.X509CertificateGenerator.create({
      subject,
      issuer: ca.subject,
      publicKey: own.publicKey,
      signingKey: keys.privateKey,
      signingAlgorithm: ALGORITHM,
      ...validity(days),
      extensions,
    });
    const pkcs8 = await crypto.subtle.exportKey('pkcs8', own.privateKey);
    return { certPem: cert.toString('pem'), keyPem: x509.PemConverter.encode(pkcs8, 'PRIVATE KEY') };
  };
  return {
    caPem: ca.toString('pem'),
    serving: (names, days = 7) =>
      issue(
        `CN=${names[0]}`,
        [
          new x509.SubjectAlternativeNameExtension(
            names.map((value) => ({ type: /^[\d.]+$/.test(value) ? 'ip' : 'dns', value })),
          ),
          new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
        ],
        days,
      ),
    client: (user, groups, uris = []) =>
      issue(
        [...groups.map((group) => ({ O: [group] })), { CN: [user] }],
        [
          new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
          ...(uris.length > 0
            ? [new x509.SubjectAlternativeNameExtension(uris.map((value) => ({ type: 'url', value })))]
            : []),
        ],
        7,
      ),
    intermediate: async (called) => {
      const own = await newKeys();
      const cert = await x509.X509CertificateGenerator.create({
        subject: `CN=${called}`,
        issuer: ca.subject,
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        signingAlgorithm: ALGORITHM,
        ...validity(30),
        extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
      });
      return authorityOf(cert, own);
    },
  };
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>;
}

function validity(days: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + days * DAY_MS) };
}

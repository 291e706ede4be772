// Creates and checks the certificates of tls.mode self: an authority, and the serving certificate for the webhook's Service.
// @peculiar/x509 needs reflect-metadata to be loaded first.
import 'reflect-metadata';
import { createPrivateKey, type webcrypto, X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { certificatesIn } from '../../lib/kubernetes/trust.ts';
import type { KeyPair } from './tls.ts';

const DAY_MS = 86_400_000;
export const AUTHORITY_LIFETIME_MS = 3_650 * DAY_MS;
export const SERVING_LIFETIME_MS = 30 * DAY_MS;
/** Certificates are valid from this long before their creation, for API servers whose clocks are behind. */
export const BACKDATED_MS = DAY_MS;

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
/** Node's name of the same curve. */
const NODE_CURVE = 'prime256v1';

/** Creates a certificate authority. @param now milliseconds since the epoch */
export async function newAuthority(now: number): Promise<KeyPair> {
  const keys = await newKeys();
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    // Each authority has its own subject, so that it is clear which of two trusted ones signed a certificate.
    name: `CN=ecr-anywhere ${new Date(now).toISOString()}`,
    keys,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(now - BACKDATED_MS),
    notAfter: new Date(now + AUTHORITY_LIFETIME_MS),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: cert.toString('pem'), key: await pemOf(keys.privateKey) };
}

/** Creates a serving certificate with a new key. @param name the DNS name by which the API server calls the Service */
export async function newServing(authority: KeyPair, name: string, now: number): Promise<KeyPair> {
  const keys = await newKeys();
  const issuer = new x509.X509Certificate(authority.cert);
  const signingKey = await crypto.subtle.importKey(
    'pkcs8',
    createPrivateKey(authority.key).export({ type: 'pkcs8', format: 'der' }),
    ALGORITHM,
    false,
    ['sign'],
  );
  const cert = await x509.X509CertificateGenerator.create({
    // Clients do not read the common name, and the DNS name may be longer than its 64 characters.
    subject: 'CN=ecr-anywhere webhook',
    issuer: issuer.subject,
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(Math.max(now - BACKDATED_MS, issuer.notBefore.getTime())),
    notAfter: new Date(Math.min(now + SERVING_LIFETIME_MS, issuer.notAfter.getTime())),
    extensions: [
      new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: name }]),
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      await x509.AuthorityKeyIdentifierExtension.create(issuer),
    ],
  });
  return { cert: cert.toString('pem'), key: await pemOf(keys.privateKey) };
}

/** Parses the first certificate of a PEM text; undefined if there is none. */
export function certificateOf(pem: string | undefined): X509Certificate | undefined {
  try {
    return pem === undefined ? undefined : new X509Certificate(pem);
  } catch {
    return undefined;
  }
}

/** Why a pair cannot be used as an authority; undefined if it can. The start of its validity is not checked: clocks differ. */
export function authorityProblem({ cert, key }: Partial<KeyPair>, now: number): string | undefined {
  if (cert === undefined && key === undefined) return 'is missing';
  const certificate = certificateOf(cert);
  if (!certificate) return 'is not a certificate';
  if (!certificate.ca) return 'is not the certificate of an authority';
  // An authority from elsewhere may have another kind of key, with which newServing cannot sign.
  if (certificate.publicKey.asymmetricKeyDetails?.namedCurve !== NODE_CURVE)
    return 'does not have a P-256 key';
  return keyProblem(certificate, key) ?? expired(certificate, now);
}

/** Why a pair cannot be served for this name under this authority; undefined if it can. */
export function servingProblem(
  { cert, key }: Partial<KeyPair>,
  authority: string,
  name: string,
  now: number,
): string | undefined {
  if (cert === undefined && key === undefined) return 'is missing';
  const certificate = certificateOf(cert);
  if (!certificate) return 'is not a certificate';
  if (!isSignedBy(certificate, certificateOf(authority))) return 'was not signed by the authority';
  if (certificate.checkHost(name) === undefined) return `is not for ${name}`;
  return keyProblem(certificate, key) ?? expired(certificate, now);
}

/** Whether one of the authorities in a bundle (PEM) signed a certificate. */
export function isTrusted(pem: string, bundle: string): boolean {
  const certificate = certificateOf(pem);
  return (
    certificate !== undefined &&
    certificatesIn(bundle).some((authority) => isSignedBy(certificate, certificateOf(authority)))
  );
}

/** When a certificate expires, in milliseconds since the epoch. */
export function expiryOf(pem: string): number {
  return certificateOf(pem)?.validToDate.getTime() ?? 0;
}

/** When the webhook created a certificate, in milliseconds since the epoch. */
export function createdAt(pem: string): number {
  return (certificateOf(pem)?.validFromDate.getTime() ?? 0) + BACKDATED_MS;
}

function isSignedBy(certificate: X509Certificate, authority: X509Certificate | undefined): boolean {
  return (
    authority !== undefined && certificate.checkIssued(authority) && certificate.verify(authority.publicKey)
  );
}

function keyProblem(certificate: X509Certificate, key: string | undefined): string | undefined {
  try {
    return certificate.checkPrivateKey(createPrivateKey(key ?? '')) ? undefined : 'does not match its key';
  } catch {
    return 'has no readable key';
  }
}

function expired(certificate: X509Certificate, now: number): string | undefined {
  return certificate.validToDate.getTime() <= now ? 'has expired' : undefined;
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>;
}

async function pemOf(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await crypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}

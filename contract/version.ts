// Determines which webhook wrote a Secret's credentials, and with which contract version. Pure.
import { ANNOTATION } from './names.ts';

/**
 * The version of the annotations' format. Version 1 is the format before the fingerprint contained a version.
 * Increase it if a reader of an older version would misread the annotations.
 */
export const CONTRACT_VERSION = 2;

/** The webhook that wrote the credentials: none, that of CentML/ecr-anywhere, or that of this project. */
export type Writer = { writer: 'none' } | { writer: 'original' } | { writer: 'ours'; contract: number };

/**
 * Determines the writer from the annotations in the API server's response to a Secret that was sent without any. Those
 * of a stored Secret are not reliable: CentML/ecr-anywhere keeps this project's annotations when it writes, and no hash
 * protects the version.
 *
 * | annotations | writer |
 * |---|---|
 * | neither `updated_at` nor `expires_at` | none |
 * | one of them, and no `fingerprint` | the original |
 * | a `fingerprint` without a number | ours, contract 1 |
 * | a `fingerprint` with a number | ours, of that contract |
 */
export function credentialsWriter(annotations: Readonly<Record<string, string>> | null | undefined): Writer {
  const { updatedAt, expiresAt, fingerprint } = ANNOTATION;
  if (annotations?.[updatedAt] === undefined && annotations?.[expiresAt] === undefined)
    return { writer: 'none' };
  const value = annotations[fingerprint];
  return value === undefined
    ? { writer: 'original' }
    : { writer: 'ours', contract: parseFingerprint(value).contract };
}

/** Formats a `fingerprint` annotation. @param hash of the owned entries */
export function formatFingerprint(hash: string): string {
  return `${CONTRACT_VERSION}.${hash}`;
}

/** Reads a `fingerprint` annotation. A hash is base64url and has no dot, so a number before a dot is the version. */
export function parseFingerprint(fingerprint: string): { contract: number; hash: string } {
  const [, contract, hash] = /^([1-9]\d{0,5})\.(.*)$/s.exec(fingerprint) ?? [];
  return contract === undefined || hash === undefined
    ? { contract: 1, hash: fingerprint }
    : { contract: Number(contract), hash };
}

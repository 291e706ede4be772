// Which webhook wrote a Secret, and in which words. Pure.
import { ANNOTATION } from './names.ts';

/**
 * What the annotations of this tree's webhook mean, by number. 1 is what was spoken before the fingerprint told it.
 * It goes up when a reader of an older number would misread what is written.
 */
export const CONTRACT_VERSION = 2;

/** Who wrote the credentials of a Secret: nobody, the webhook of CentML/ecr-anywhere, or this project's. */
export type Writer = { writer: 'none' } | { writer: 'original' } | { writer: 'ours'; contract: number };

/**
 * Tells the writer by the annotations that the API server answers to a Secret that was sent without them. What is
 * stored may have had several writers, the original leaves our annotations standing, and nothing seals the number.
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
  const sealed = annotations[fingerprint];
  return sealed === undefined
    ? { writer: 'original' }
    : { writer: 'ours', contract: parseFingerprint(sealed).contract };
}

/** A `fingerprint` annotation, from the hash of what is ours. */
export function formatFingerprint(hash: string): string {
  return `${CONTRACT_VERSION}.${hash}`;
}

/** Reads a `fingerprint` annotation. No hash has a dot (base64url), so what is before one is the contract. */
export function parseFingerprint(fingerprint: string): { contract: number; hash: string } {
  const [, contract, hash] = /^([1-9]\d{0,5})\.(.*)$/s.exec(fingerprint) ?? [];
  return contract === undefined || hash === undefined
    ? { contract: 1, hash: fingerprint }
    : { contract: Number(contract), hash };
}

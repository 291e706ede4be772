// The proof that a review comes through the API server: a random value in a Secret, which a MutatingAdmissionPolicy of the
// chart adds to each managed Secret on its way to the webhook (docs/callers.md). Pure, except that it creates new values.
//
// A proof is replaced in three steps, so that no Secret is refused: every replica accepts the next proof, then the policy
// sends it, then the replicas stop accepting the previous one.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { formatTime } from '../../contract/freshness.ts';

/** The keys of the Secret whose values the webhook accepts. The policy sends the first one. */
export const PROOF_KEYS = ['proof', 'next', 'previous'] as const;
/** When the current step of a replacement began, or when the current proof was first sent. RFC 3339. */
const SINCE_KEY = 'since';
/** The value of the last rotate annotation that the webhook acted on. */
const ROTATED_KEY = 'rotated';

/** The shortest duration of a step: by then every replica has read the previous step. */
export const OVERLAP_MS = 5 * 60_000;
/** The age at which the webhook replaces the proof. */
export const REPLACED_AFTER_MS = 30 * 86_400_000;

const PROOF_BYTES = 32;

/**
 * The digests of the proofs that the webhook accepts, of a Secret's data. Each proof is as the policy sends it: its CEL
 * expression sees the data in base64.
 */
export function acceptedOf(data: Readonly<Record<string, Buffer | undefined>>): Buffer[] {
  return PROOF_KEYS.flatMap((key) => (data[key]?.length ? [digestOf(data[key].toString('base64'))] : []));
}

/** Whether a proof is one of the accepted ones. The time that it takes does not depend on them. */
export function isAccepted(proof: string, accepted: readonly Buffer[]): boolean {
  const given = digestOf(proof);
  let isFound = false;
  for (const digest of accepted) isFound = timingSafeEqual(given, digest) || isFound;
  return isFound;
}

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** A change of the Secret's data; null removes a key. */
export interface ProofStep {
  readonly what: 'new proof' | 'next proof accepted' | 'next proof sent' | 'previous proof dropped';
  readonly change: Readonly<Record<string, string | null>>;
}

/**
 * The change that is due; undefined if none is.
 *
 * @param data the Secret's, decoded
 * @param rotateRequest the rotate annotation of the Secret. Each new value starts one replacement.
 * @param now milliseconds since the epoch, by the wall clock
 */
export function nextStep(
  data: Readonly<Record<string, string>>,
  rotateRequest: string | undefined,
  now: number,
): ProofStep | undefined {
  const since = formatTime(now);
  if (!data.proof) {
    const change = { proof: newProof(), next: null, previous: null, [SINCE_KEY]: since };
    return { what: 'new proof', change };
  }
  const began = Date.parse(data[SINCE_KEY] ?? '');
  // A time that is unreadable or in the future: start a replacement, which sets it.
  if (!(began <= now + OVERLAP_MS)) {
    return { what: 'next proof accepted', change: { next: data.next ?? newProof(), [SINCE_KEY]: since } };
  }
  const age = now - began;
  if (data.next) {
    if (age < OVERLAP_MS) return undefined;
    const change = { proof: data.next, next: null, previous: data.proof, [SINCE_KEY]: since };
    return { what: 'next proof sent', change };
  }
  const isRequested = rotateRequest !== undefined && rotateRequest !== data[ROTATED_KEY];
  if (data.previous && age >= OVERLAP_MS)
    return { what: 'previous proof dropped', change: { previous: null } };
  if (!isRequested && age < REPLACED_AFTER_MS) return undefined;
  return {
    what: 'next proof accepted',
    change: {
      next: newProof(),
      [SINCE_KEY]: since,
      ...(rotateRequest !== undefined && { [ROTATED_KEY]: rotateRequest }),
    },
  };
}

function newProof(): string {
  return randomBytes(PROOF_BYTES).toString('base64url');
}

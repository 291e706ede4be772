// Decides the next step for the certificates of tls.mode self. Pure, except that it creates new certificates.
//
// The authority is replaced in three steps, so that the webhook never serves a certificate that an API server does not trust:
// the API servers trust the next authority, then it signs, then they stop trusting the previous one. The dates in the
// certificates show how far this has come, so the replicas agree by the Secret alone.
import type { KeyPair } from './tls.ts';
import {
  authorityProblem,
  certificateOf,
  createdAt,
  expiryOf,
  isTrusted,
  newAuthority,
  newServing,
  SERVING_LIFETIME_MS,
  servingProblem,
} from './x509.ts';

/** The shortest duration of a step of the replacement: by then every API server and replica has the previous step. */
export const OVERLAP_MS = 5 * 60_000;
/** A serving certificate is renewed when less than a third of its lifetime is left. */
export const RENEWED_BEFORE_MS = SERVING_LIFETIME_MS / 3;
/** An authority is replaced when less than a year of its lifetime is left. */
export const REPLACED_BEFORE_MS = 365 * 86_400_000;

/** The keys of the Secret. */
const KEYS = {
  authority: { cert: 'ca.crt', key: 'ca.key' },
  serving: { cert: 'tls.crt', key: 'tls.key' },
  next: { cert: 'next-ca.crt', key: 'next-ca.key' },
  previous: 'previous-ca.crt',
  rotated: 'rotated',
} as const;

export interface Material {
  readonly authority: KeyPair;
  readonly serving: KeyPair;
  /** The authority that is already trusted and will sign next. */
  readonly next?: KeyPair | undefined;
  /** The certificate of the authority that is still trusted and no longer signs. */
  readonly previous?: string | undefined;
  /** The value of the last rotate-ca annotation that the webhook acted on. */
  readonly rotated?: string | undefined;
}

/** The content of the Secret, valid or not. */
interface Stored {
  readonly authority: Partial<KeyPair>;
  readonly serving: Partial<KeyPair>;
  readonly next: Partial<KeyPair> | undefined;
  readonly previous: string | undefined;
  readonly rotated: string | undefined;
}

export interface Situation {
  /** The Secret's data, decoded. */
  readonly stored: Readonly<Record<string, string>>;
  /** The certificates in the memory of this replica. */
  readonly held: Material | undefined;
  /** The authorities (PEM) that the API servers trust now. */
  readonly bundle: string;
  /** The annotation rotate-ca of the Secret. Each new value starts one replacement of the authority. */
  readonly rotateRequest: string | undefined;
  /** The DNS name of the serving certificate. */
  readonly name: string;
  /** Milliseconds since the epoch, by the wall clock, so that the time in which a node was suspended counts. */
  readonly now: number;
}

export interface Step {
  readonly what:
    | 'nothing'
    | 'stored again'
    | 'new authority'
    | 'new serving certificate'
    | 'next authority trusted'
    | 'next authority signs'
    | 'next authority dropped'
    | 'previous authority dropped';
  readonly why: string;
  /** The content that the Secret should have. */
  readonly material: Material;
}

/** The next step: the first rule that applies. */
export async function nextStep(situation: Situation): Promise<Step> {
  const { held, bundle, rotateRequest, name, now } = situation;
  const stored = parseData(situation.stored);
  const { next, previous, rotated } = stored;

  const problem = authorityProblem(stored.authority, now);
  if (problem !== undefined) {
    const why = `${KEYS.authority.cert} ${problem}`;
    const isHeldGood = held && !authorityProblem(held.authority, now);
    if (isHeldGood) return { what: 'stored again', why, material: held };
    const authority = await newAuthority(now);
    const serving = await newServing(authority, name, now);
    return { what: 'new authority', why, material: { authority, serving, rotated: rotateRequest } };
  }
  const authority = stored.authority as KeyPair;
  const rest = { authority, next: next as KeyPair | undefined, previous, rotated };

  const servingWhy = servingProblem(stored.serving, authority.cert, name, now);
  if (servingWhy !== undefined || expiryOf(stored.serving.cert ?? '') - now < RENEWED_BEFORE_MS) {
    const why = `${KEYS.serving.cert} ${servingWhy ?? 'expires soon'}`;
    return {
      what: 'new serving certificate',
      why,
      material: { ...rest, serving: await newServing(authority, name, now) },
    };
  }
  const serving = stored.serving as KeyPair;
  const material: Material = { ...rest, serving };

  if (next) {
    const nextWhy = authorityProblem(next, now);
    if (nextWhy !== undefined) {
      const why = `${KEYS.next.cert} ${nextWhy}`;
      return { what: 'next authority dropped', why, material: { ...material, next: undefined } };
    }
    const signs = next as KeyPair;
    if (isOver(createdAt(signs.cert), now) && isTrusted(signs.cert, bundle)) {
      return {
        what: 'next authority signs',
        why: 'every API server trusts it',
        material: {
          authority: signs,
          serving: await newServing(signs, name, now),
          previous: authority.cert,
          rotated,
        },
      };
    }
    return { what: 'nothing', why: '', material };
  }
  if (previous !== undefined) {
    if (certificateOf(previous) && !isOver(createdAt(serving.cert), now))
      return { what: 'nothing', why: '', material };
    const why = 'no replica serves a certificate that it signed';
    return { what: 'previous authority dropped', why, material: { ...material, previous: undefined } };
  }
  const isRequested = rotateRequest !== undefined && rotateRequest !== rotated;
  if (isRequested || expiryOf(authority.cert) - now < REPLACED_BEFORE_MS) {
    const why = isRequested ? 'requested by annotation' : `${KEYS.authority.cert} expires within a year`;
    return {
      what: 'next authority trusted',
      why,
      material: { ...material, next: await newAuthority(now), rotated: rotateRequest ?? rotated },
    };
  }
  return { what: 'nothing', why: '', material };
}

/** The authorities that the API servers should trust, PEM. */
export function trustedBy({ authority, next, previous }: Material): string {
  return [authority.cert, next?.cert, previous]
    .filter((pem) => pem !== undefined)
    .map((pem) => `${pem.trim()}\n`)
    .join('');
}

/** The data of the Secret; null removes a key. */
export function dataOf(material: Material): Record<string, string | null> {
  const { authority, serving, next, previous, rotated } = material;
  return {
    [KEYS.authority.cert]: authority.cert,
    [KEYS.authority.key]: authority.key,
    [KEYS.serving.cert]: serving.cert,
    [KEYS.serving.key]: serving.key,
    [KEYS.next.cert]: next?.cert ?? null,
    [KEYS.next.key]: next?.key ?? null,
    [KEYS.previous]: previous ?? null,
    [KEYS.rotated]: rotated ?? null,
  };
}

function parseData(data: Readonly<Record<string, string>>): Stored {
  const pair = ({ cert, key }: { cert: string; key: string }): Partial<KeyPair> => {
    const [certPem, keyPem] = [data[cert], data[key]];
    return { ...(certPem !== undefined && { cert: certPem }), ...(keyPem !== undefined && { key: keyPem }) };
  };
  return {
    authority: pair(KEYS.authority),
    serving: pair(KEYS.serving),
    next: KEYS.next.cert in data || KEYS.next.key in data ? pair(KEYS.next) : undefined,
    previous: data[KEYS.previous],
    rotated: data[KEYS.rotated],
  };
}

/** Whether a step has lasted long enough. Also true if the clock was set back far, so that the replacement goes on. */
function isOver(since: number, now: number): boolean {
  return Math.abs(now - since) >= OVERLAP_MS;
}

// What is to be done about the certificates of tls.mode self: a table. Pure but for the new certificates themselves.
//
// The authority is exchanged in three steps, so that at no moment an API server is shown what it does not trust:
// the next one is trusted, then it signs, then the previous one is trusted no more. How far that is can be read from
// the certificates' own dates, so replicas need nothing but the Secret to agree.
import type { KeyPair } from './tls.ts';
import {
  authorityProblem,
  certificateOf,
  expiryOf,
  isTrusted,
  madeAt,
  newAuthority,
  newServing,
  SERVING_LIFETIME_MS,
  servingProblem,
} from './x509.ts';

/** Each step of an exchange lasts at least so long: every API server and every replica has heard of it by then. */
export const OVERLAP_MS = 5 * 60_000;
/** A serving certificate is renewed when a third of its life is left. */
export const RENEWED_BEFORE_MS = SERVING_LIFETIME_MS / 3;
/** An authority is exchanged when a year is left, if nobody has done so before. */
export const EXCHANGED_BEFORE_MS = 365 * 86_400_000;

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
  /** Trusted already, and signs next. */
  readonly next?: KeyPair | undefined;
  /** A certificate: trusted still, and signs no more. */
  readonly previous?: string | undefined;
  /** The last command to exchange the authority that was followed. */
  readonly rotated?: string | undefined;
}

/** What a Secret has of it, good or not. */
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
  /** What this replica holds. */
  readonly mine: Material | undefined;
  /** The certificates (PEM) that the API servers trust at the moment. */
  readonly bundle: string;
  /** The command on the Secret to exchange the authority: any text, followed once. */
  readonly command: string | undefined;
  /** The DNS name that is served. */
  readonly name: string;
  /** Milliseconds since the epoch. Wall time, so that a node that slept counts its sleep. */
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
  /** What the Secret shall hold. */
  readonly material: Material;
}

/** The next step; the first row that fits. */
export async function nextStep(situation: Situation): Promise<Step> {
  const { mine, bundle, command, name, now } = situation;
  const stored = read(situation.stored);
  const { next, previous, rotated } = stored;

  const problem = authorityProblem(stored.authority, now);
  if (problem !== undefined) {
    const why = `${KEYS.authority.cert} ${problem}`;
    const isMineGood = mine && !authorityProblem(mine.authority, now);
    if (isMineGood) return { what: 'stored again', why, material: mine };
    const authority = await newAuthority(now);
    const serving = await newServing(authority, name, now);
    return { what: 'new authority', why, material: { authority, serving, rotated: command } };
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
    if (isOver(madeAt(signs.cert), now) && isTrusted(signs.cert, bundle)) {
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
    if (certificateOf(previous) && !isOver(madeAt(serving.cert), now))
      return { what: 'nothing', why: '', material };
    const why = 'nothing that it signed is served any more';
    return { what: 'previous authority dropped', why, material: { ...material, previous: undefined } };
  }
  const isAsked = command !== undefined && command !== rotated;
  if (isAsked || expiryOf(authority.cert) - now < EXCHANGED_BEFORE_MS) {
    const why = isAsked ? 'asked for' : `${KEYS.authority.cert} expires within a year`;
    return {
      what: 'next authority trusted',
      why,
      material: { ...material, next: await newAuthority(now), rotated: command ?? rotated },
    };
  }
  return { what: 'nothing', why: '', material };
}

/** The certificates that the API servers shall trust, PEM. */
export function trustedBy({ authority, next, previous }: Material): string {
  return [authority.cert, next?.cert, previous]
    .filter((pem) => pem !== undefined)
    .map((pem) => `${pem.trim()}\n`)
    .join('');
}

/** The Secret's data; null for what it shall not have. */
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

function read(data: Readonly<Record<string, string>>): Stored {
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

/** A clock that has been put back must not make an exchange last for ever. */
function isOver(since: number, now: number): boolean {
  return Math.abs(now - since) >= OVERLAP_MS;
}

// What a registered token says of itself, read without verifying it: whose it is and what it is bound to, so that the
// same can be asked for again, and when that is due. Pure.
import { z } from 'zod';

/** Of a token of a service account that is bound to a Secret. Times are milliseconds since the epoch. */
export interface BoundToken {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** What the token is bound to: deleting this Secret ends it. */
  readonly secret: { readonly name: string; readonly uid: string };
  readonly audiences: readonly string[];
  readonly issuedAt: number;
  readonly expiresAt: number;
}

/** Of any other JWT. */
export interface OtherToken {
  readonly reason: string;
  readonly issuedAt?: number;
  /** Absent: never, as far as it says. */
  readonly expiresAt?: number;
}

/** The last second that a Date can be (ECMA-262, "Time Values and Time Range"). */
const LAST_SECOND = 8.64e12;
/** NumericDate (RFC 7519, section 2), in milliseconds. */
const Time = z
  .number()
  .min(0)
  .max(LAST_SECOND)
  .transform((seconds) => seconds * 1000);

const Claims = z.object({ iat: Time.optional(), exp: Time.optional() });

/** Of an object (Kubernetes, "Object Names and IDs"): it is in commands that people are told. */
const Name = z.string().regex(/^[a-z\d][a-z\d.-]{0,252}$/);

/** Private claims of tokens that TokenRequest made (Kubernetes, "Managing Service Accounts", schema of the claims). */
const BoundClaims = z.object({
  iat: Time,
  exp: Time,
  aud: z.union([z.string().transform((audience) => [audience]), z.array(z.string())]),
  'kubernetes.io': z.object({
    namespace: Name,
    serviceaccount: z.object({ name: Name }),
    secret: z.object({ name: Name, uid: z.string() }),
  }),
});

/** The three parts of a JWT in its compact form (RFC 7515, section 7.1). */
const JWT = /^[\w-]+\.([\w-]+)\.[\w-]+$/;

/** Reads a token. @returns undefined where it is no JWT, and so says nothing */
export function readToken(token: string): BoundToken | OtherToken | undefined {
  const payload = payloadOf(token);
  const any = Claims.safeParse(payload);
  if (!any.success) return undefined;
  const bound = BoundClaims.safeParse(payload);
  if (bound.success) {
    const { iat, exp, aud, 'kubernetes.io': of } = bound.data;
    return {
      namespace: of.namespace,
      serviceAccount: of.serviceaccount.name,
      secret: of.secret,
      audiences: aud,
      issuedAt: iat,
      expiresAt: exp,
    };
  }
  const { iat, exp } = any.data;
  return {
    reason: 'it is no token of a service account that is bound to a Secret',
    ...(iat !== undefined && { issuedAt: iat }),
    ...(exp !== undefined && { expiresAt: exp }),
  };
}

/** Whether a token is past this part of its life. @param now milliseconds since the epoch */
export function isPastFraction(
  part: number,
  { issuedAt, expiresAt }: { readonly issuedAt?: number; readonly expiresAt?: number },
  now: number,
): boolean {
  if (expiresAt === undefined) return false;
  const start = issuedAt ?? expiresAt;
  return now > start + (expiresAt - start) * part;
}

function payloadOf(token: string): unknown {
  const payload = JWT.exec(token)?.[1];
  if (payload === undefined) return undefined;
  try {
    return JSON.parse(Buffer.from(payload, 'base64url').toString());
  } catch {
    return undefined;
  }
}

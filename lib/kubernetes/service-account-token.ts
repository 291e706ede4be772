// Reads the claims of a registered token without verifying it: its service account, the Secret it is bound to and its
// lifetime. The refresher needs them to request the next token, and to know when. Pure.
import { z } from 'zod';

/** A service account's token that is bound to a Secret. Times are milliseconds since the epoch. */
export interface BoundToken {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Deleting this Secret invalidates the token. */
  readonly secret: { readonly name: string; readonly uid: string };
  readonly audiences: readonly string[];
  readonly issuedAt: number;
  readonly expiresAt: number;
}

/** Any other JWT. */
export interface OtherToken {
  /** Why it cannot be renewed. */
  readonly reason: string;
  readonly issuedAt?: number;
  /** Absent if the token states no expiry. */
  readonly expiresAt?: number;
}

/** The last second of the year 9999: RFC 3339, as which the cluster state stores a time, has no later one. */
const LAST_SECOND = 253_402_300_799;
/** NumericDate (RFC 7519, section 2), in milliseconds. */
const Time = z
  .number()
  .min(0)
  .max(LAST_SECOND)
  .transform((seconds) => seconds * 1000);

const Claims = z.object({ iat: Time.optional(), exp: Time.optional() });

/** The name of an object (Kubernetes, "Object Names and IDs"). It is part of commands that the CLI prints. */
const Name = z.string().regex(/^[a-z\d][a-z\d.-]{0,252}$/);

/** The private claims of tokens from TokenRequest (Kubernetes, "Managing Service Accounts", schema of the claims). */
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

/** Reads a token. @returns undefined if it is not a JWT with an object as its payload */
export function readToken(token: string): BoundToken | OtherToken | undefined {
  const payload = payloadOf(token);
  const any = Claims.safeParse(payload);
  if (!any.success) return undefined;
  const bound = BoundClaims.safeParse(payload);
  if (bound.success) {
    const { iat, exp, aud, 'kubernetes.io': claims } = bound.data;
    return {
      namespace: claims.namespace,
      serviceAccount: claims.serviceaccount.name,
      secret: claims.secret,
      audiences: aud,
      issuedAt: iat,
      expiresAt: exp,
    };
  }
  const { iat, exp } = any.data;
  return {
    reason: 'it is not a ServiceAccount token that is bound to a Secret',
    ...(iat !== undefined && { issuedAt: iat }),
    ...(exp !== undefined && { expiresAt: exp }),
  };
}

/**
 * Whether a fraction of a token's lifetime has passed. A token without an issue time counts from its expiry.
 *
 * @param fraction such as 1/2
 * @param now milliseconds since the epoch
 */
export function isPastFraction(
  fraction: number,
  { issuedAt, expiresAt }: { readonly issuedAt?: number; readonly expiresAt?: number },
  now: number,
): boolean {
  if (expiresAt === undefined) return false;
  const start = issuedAt ?? expiresAt;
  return now > start + (expiresAt - start) * fraction;
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

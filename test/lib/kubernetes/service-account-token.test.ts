// The claims of a registered token, at the limits of time. test/functions/refresher/tokens tests the rest.
import { expect, test } from 'vitest';
import { z } from 'zod';
import { readToken } from '../../../lib/kubernetes/service-account-token.ts';

const tokenOf = (claims: object) => `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.c2ln`;
const LAST = Date.UTC(9999, 11, 31, 23, 59, 59);

test('reads no expiry that the cluster state could not store', () => {
  const expiresAt = readToken(tokenOf({ exp: LAST / 1000 }))?.expiresAt;
  expect(expiresAt).toBe(LAST);
  expect(z.iso.datetime().safeParse(new Date(LAST).toISOString()).success).toBe(true);
  expect(readToken(tokenOf({ exp: LAST / 1000 + 1 }))).toBeUndefined();
});

// Tests the error for a session of the function's role that ends before the token would.
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { keylessTokens } from '../../../../functions/refresher/access/keyless.ts';

afterEach(() => {
  vi.unstubAllEnvs();
});

test('says that the next run has a new session, because the function cannot sign in', async () => {
  const error = '<Code>SessionDurationEscalationException</Code><Message>too long</Message>';
  const sts = createServer((_, response) => {
    response.writeHead(403, { 'content-type': 'text/xml' });
    response.end(`<ErrorResponse><Error>${error}</Error></ErrorResponse>`);
  }).listen(0, '127.0.0.1');
  await using _ = {
    async [Symbol.asyncDispose]() {
      sts.closeAllConnections();
      sts.close();
    },
  };
  await once(sts, 'listening');
  const env = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' };
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
  vi.stubEnv('AWS_ENDPOINT_URL_STS', `http://127.0.0.1:${(sts.address() as AddressInfo).port}`);

  const { token } = keylessTokens({
    region: 'eu-central-1',
    stage: 'EcrAnywhere',
    clusterDeadlineMs: 10_000,
  });
  const failing = token({ cluster: 'a' }, 'a', AbortSignal.timeout(20_000));
  await expect(failing).rejects.toThrow(/SessionDurationEscalationException.*the next run has a new session/);
  await expect(failing).rejects.not.toThrow(/sign in/);
});

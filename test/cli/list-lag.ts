// The lag of ListSecrets in front of the local AWS, which lists every change at once: the deployed function sees the secrets
// as they were at a moment that the test chooses. AWS documents up to five minutes (API reference, ListSecrets).
import { createServer } from 'node:http';
import type { Emulator } from '../bed/emulator.ts';
import { awsName, forward, type Reply, serve } from './wire.ts';

export interface ListLag extends AsyncDisposable {
  /** For the function: its requests to Secrets Manager pass through here. */
  readonly env: Readonly<Record<string, string>>;
  /** Forwards to this local AWS from now on. Until `catchUp`, lists are empty. */
  attach(emulator: Emulator): void;
  /** The next request for the list gets the present secrets, and later requests get that same list. */
  catchUp(): void;
}

export async function startListLag(): Promise<ListLag> {
  const empty: Reply = {
    status: 200,
    headers: { 'content-type': 'application/x-amz-json-1.1' },
    body: JSON.stringify({ SecretList: [] }),
  };
  let emulator: Emulator | undefined;
  let listed: Reply | undefined = empty;
  const server = await serve(createServer(), 'http', async (received, body) => ({
    treatment: {},
    async pass() {
      if (!emulator) throw new Error('the local AWS has not been started');
      const isList = awsName(received, body) === 'secretsmanager:ListSecrets';
      if (isList && listed) return listed;
      const { httpsAgent } = emulator.clientConfig.requestHandler;
      const reply = await forward(received, body, emulator.endpoint, httpsAgent, { keepsHost: true });
      if (isList) listed = reply;
      return reply;
    },
  }));
  return {
    env: { AWS_ENDPOINT_URL_SECRETS_MANAGER: server.url },
    attach(started) {
      emulator = started;
    },
    catchUp() {
      listed = undefined;
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

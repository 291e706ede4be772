// The answers of functions that were deployed before failure codes, as the command line reads them.
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CommandLine, startCommandLine } from '../command-line.ts';
import { DEPLOYED, functionAnswer } from '../wire.ts';

let aws: Server;
let cli: CommandLine;
let answer: object = {};
beforeAll(async () => {
  aws = createServer((request, response) => {
    const { status, headers, body } = request.url?.includes('invocations')
      ? functionAnswer(answer)
      : DEPLOYED;
    response.writeHead(status, headers).end(body);
  }).listen(0, '127.0.0.1');
  await once(aws, 'listening');
  cli = await startCommandLine({
    AWS_ENDPOINT_URL: `http://127.0.0.1:${(aws.address() as AddressInfo).port}`,
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'secret',
  });
});
afterAll(async () => {
  aws?.closeAllConnections();
  aws?.close();
  await cli?.[Symbol.asyncDispose]();
});

const lookedAt = new Date().toISOString();

test('a discovery target is recognized by its former source', async () => {
  answer = { clusters: [{ name: 'EKS in us-east-1', source: 'eks-scope', isPaused: false, lookedAt }] };
  const { stdout } = await cli.run(['status', '-o', 'json']);
  expect(JSON.parse(stdout).clusters).toEqual([expect.objectContaining({ source: 'eks-discovery' })]);
});

test('a token that is not renewed gets its code', async () => {
  const reason = 'the registered token expires at 2030-01-01T00:00:00Z and is not renewed: HTTP 403';
  answer = {
    clusters: [{ name: 'prod', source: 'registered', isPaused: false, lookedAt, failures: 2, reason }],
  };
  const { stdout } = await cli.run(['status', '-o', 'json']);
  expect(JSON.parse(stdout).clusters).toEqual([expect.objectContaining({ codes: ['token-late'] })]);
});

test('list prints what status -o wide prints', async () => {
  answer = { clusters: [{ name: 'prod', source: 'registered', isPaused: false, lookedAt, failures: 0 }] };
  const [list, wide] = [await cli.run(['list']), await cli.run(['status', '-o', 'wide'])];
  expect(list).toEqual(wide);
  expect(list.stdout).toMatch(/SOURCE/);
});

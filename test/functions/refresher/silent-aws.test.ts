// Tests the function while AWS is silent: each service leaves the first request of each kind without an answer, or stops in
// the middle of it.
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { Context } from 'aws-lambda';
import { afterEach, expect, test, vi } from 'vitest';
import { CLUSTERS_PREFIX } from '../../../contract/names.ts';
import { ENVIRONMENT } from '../../../functions/refresher/settings.ts';
import { startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { json, page, startApiServer } from '../api-server.ts';
import { startEks } from '../eks.ts';
import { startSecretsManager } from '../secrets-manager.ts';

const ROLE = 'arn:aws:iam::210987654321:role/clusters';
const STAGE = 'Test';
const KEY = 'AKIAIOSFODNN7EXAMPLE';

let stack = new AsyncDisposableStack();
afterEach(async () => {
  vi.unstubAllEnvs();
  await stack.disposeAsync();
  stack = new AsyncDisposableStack();
});

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  stack.defer(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

type Silence = 'no answer' | 'half an answer';

/** Starts a proxy that is silent once for each operation. @param calls the operations, in the order of the requests */
const silentOnce = (target: string, silence: Silence, calls: string[]) =>
  serve(async (request, response) => {
    const { method = '', url = '', headers } = request;
    const sent = await text(request);
    const operation = String(headers['x-amz-target'] ?? /Action=(\w+)/.exec(sent)?.[1] ?? `${method} ${url}`);
    calls.push(operation);
    const isFirst = calls.filter((call) => call === operation).length === 1;
    if (isFirst && silence === 'no answer') return;
    const { 'content-type': type = '', 'x-amz-target': awsTarget, authorization = '' } = headers;
    const answer = await fetch(`${target}${url}`, {
      method,
      headers: {
        'content-type': type,
        authorization,
        ...(awsTarget !== undefined && { 'x-amz-target': String(awsTarget) }),
      },
      ...(method !== 'GET' && { body: sent }),
    });
    const body = Buffer.from(await answer.arrayBuffer());
    response.writeHead(answer.status, {
      'content-type': answer.headers.get('content-type') ?? '',
      'content-length': body.length,
    });
    if (isFirst) response.write(body.subarray(0, body.length / 2));
    else response.end(body);
  });

test.each<{ silence: Silence }>([{ silence: 'no answer' }, { silence: 'half an answer' }])(
  'serves its clusters if every service gives $silence once',
  async ({ silence }) => {
    const cluster = stack.use(await startApiServer((_, response) => json(response, page([]))));
    const kubeconfig = (command: string, args: readonly string[]) =>
      JSON.stringify({
        'current-context': 'main',
        contexts: [{ name: 'main', context: { cluster: 'main', user: 'main' } }],
        clusters: [
          {
            name: 'main',
            cluster: {
              server: cluster.url,
              'certificate-authority-data': Buffer.from(cluster.caPem).toString('base64'),
            },
          },
        ],
        users: [{ name: 'main', user: { exec: { command, args } } }],
      });
    const secrets = stack.use(
      await startSecretsManager({
        [`${CLUSTERS_PREFIX}eks`]: kubeconfig('aws', [
          ...['eks', 'get-token', '--cluster-name', 'prod', '--role-arn', ROLE],
        ]),
        [`${CLUSTERS_PREFIX}keyless`]: kubeconfig('ecr-anywhere', [
          ...['get-token', '--cluster', 'keyless', '--stack-name', STAGE],
        ]),
      }),
    );
    const [eks, aws] = await Promise.all([startEks(), startAwsEndpoint()]);
    stack.use(eks);
    stack.use(aws);
    eks.clusters.set('prod', { endpoint: cluster.url, ca: cluster.caPem });
    aws.settings.roles[ROLE] = {};
    aws.settings.issuer = { sign: () => 'token' };
    aws.settings.principals[KEY] = {
      secretAccessKey: 'secret',
      arn: 'arn:aws:sts::123456789012:assumed-role/refresher/run',
      account: '123456789012',
      userId: 'AROAEXAMPLE:run',
    };
    const table = await serve((_, response) => {
      response.writeHead(200, { 'content-type': 'application/x-amz-json-1.0' }).end('{"Attributes": {}}');
    });
    const calls: string[] = [];
    const env = {
      [ENVIRONMENT.clusterDeadline]: '30',
      [ENVIRONMENT.clusterConcurrency]: '2',
      [ENVIRONMENT.stateTable]: 'table',
      [ENVIRONMENT.topic]: 'arn:aws:sns:eu-central-1:111122223333:alarms',
      [ENVIRONMENT.stackName]: 'EcrAnywhere',
      [ENVIRONMENT.assumableRoles]: ROLE,
      [ENVIRONMENT.keylessStage]: STAGE,
      [ENVIRONMENT.allowLocalServers]: 'true',
      AWS_LAMBDA_FUNCTION_NAME: 'refresher',
      AWS_REGION: 'eu-central-1',
      AWS_ACCESS_KEY_ID: KEY,
      AWS_SECRET_ACCESS_KEY: 'secret',
      AWS_ENDPOINT_URL_SECRETS_MANAGER: await silentOnce(secrets.url, silence, calls),
      AWS_ENDPOINT_URL_EKS: await silentOnce(eks.url, silence, calls),
      AWS_ENDPOINT_URL_STS: await silentOnce(aws.url, silence, calls),
      AWS_ENDPOINT_URL_DYNAMODB: await silentOnce(table, silence, calls),
      POWERTOOLS_LOG_LEVEL: 'SILENT',
      POWERTOOLS_METRICS_DISABLED: 'true',
    };
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    // The handler reads its environment when it is loaded.
    vi.resetModules();
    const { handler } = await import('../../../functions/refresher/handler.ts');
    const answer = await handler({}, { getRemainingTimeInMillis: () => 120_000 } as Context);
    expect(answer).toEqual({
      clusters: ['eks', 'keyless'].map((name) =>
        expect.objectContaining({ cluster: name, served: true, failed: false }),
      ),
    });
    expect(JSON.stringify(answer)).not.toContain('stateNotSaved');
    const repeated = calls.filter((call, index) => calls.indexOf(call) !== index);
    expect([...new Set(repeated)].toSorted()).toEqual([
      'AssumeRole',
      'DynamoDB_20120810.Scan',
      'DynamoDB_20120810.UpdateItem',
      'GET /clusters/prod',
      'GetWebIdentityToken',
      'secretsmanager.BatchGetSecretValue',
      'secretsmanager.ListSecrets',
    ]);
  },
);

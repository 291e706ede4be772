// doctor, as far as the refresher sees a cluster from AWS: each link broken for real, named, and mended by the command that
// doctor names. And doctor without a name, over several clusters.
import { createSign } from 'node:crypto';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { DynamoDBClient, UpdateItemCommand } from '@aws-sdk/client-dynamodb';
import {
  GetFunctionConfigurationCommand,
  LambdaClient,
  UpdateFunctionConfigurationCommand,
} from '@aws-sdk/client-lambda';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { parse, stringify } from 'yaml';
import { LINKS } from '../../../../cli/commands/doctor/checks.ts';
import type { ControlPlane } from '../../../bed/control-plane.ts';
import { refresherKubeconfig, refresherToken } from '../../../bed/webhook.ts';
import { startChangingProxy } from '../register/changing-proxy.ts';
import { DoctorBed } from './doctor-bed.ts';

let on: DoctorBed;
beforeAll(async () => {
  on = await DoctorBed.start(['beta']);
});
afterAll(() => on?.[Symbol.asyncDispose]());

const REPLACE = 'ecr-anywhere register alpha --replace --context bed';

test('a healthy cluster: all well', async () => {
  await on.expectWell();
  const { code, stdout } = await on.run(['doctor', 'alpha']);
  expect({ code, last: stdout.trimEnd().split('\n').at(-1) }).toEqual({ code: 0, last: 'All well.' });
  expect(stdout.split('\n').filter((line) => line.startsWith('✔'))).toHaveLength(Object.keys(LINKS).length);
});

describe('before the function', () => {
  test('session: nobody is signed in', async () => {
    const env = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined };
    const repair = await on.expectBroken('session', { says: /nobody is signed in to AWS/, options: { env } });
    expect(repair).toBe('aws sso login');
  });

  test('session: it has expired', async () => {
    const sts = createServer((_, response) => {
      response
        .writeHead(403, { 'content-type': 'text/xml' })
        .end(
          '<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>The security token included in the request is expired</Message></Error></ErrorResponse>',
        );
    }).listen(0, '127.0.0.1');
    await once(sts, 'listening');
    const { port } = sts.address() as AddressInfo;
    const env = { AWS_ENDPOINT_URL_STS: `http://127.0.0.1:${port}` };
    const repair = await on.expectBroken('session', {
      says: /the AWS session has expired/,
      ...{ options: { env }, args: ['alpha', '--region', 'eu-central-1'] },
    });
    expect(repair).toBe('aws sso login --region eu-central-1');
    sts.close();
  });

  test('stack: there is none of that name', async () => {
    const repair = await on.expectBroken('stack', {
      says: /there is no stack Other in eu-central-1/,
      args: ['alpha', '--stack-name', 'Other'],
    });
    expect(repair).toBe(
      'npx cdk deploy -c stackName=Other # with the settings that the stack has: -c … or cdk.json',
    );
  });

  test('function: it does not start', async () => {
    const { functionName, emulator } = on.bed.deployment;
    const lambda = new LambdaClient(emulator.clientConfig);
    const { Environment } = await lambda.send(
      new GetFunctionConfigurationCommand({ FunctionName: functionName }),
    );
    const { MEMORY_TABLE: _, ...Variables } = Environment?.Variables ?? {};
    await lambda.send(
      new UpdateFunctionConfigurationCommand({ FunctionName: functionName, Environment: { Variables } }),
    );
    const repair = await on.expectBroken('function', { says: /MEMORY_TABLE/ });
    expect(repair).toBe(
      `aws logs tail --since 1h "$(aws lambda get-function-configuration --function-name ${functionName} --query LoggingConfig.LogGroup --output text)"`,
    );
    await lambda.send(
      new UpdateFunctionConfigurationCommand({
        FunctionName: functionName,
        Environment: { Variables: Environment?.Variables },
      }),
    );
    await on.expectWell();
  });
});

describe('what is registered', () => {
  test('registered: it is not', async () => {
    await on.run(['unregister', 'alpha']);
    const repair = await on.expectBroken('registered', { says: /no cluster alpha; there are: none/ });
    expect(repair).toBe('ecr-anywhere register alpha --context bed');
    await on.repair(repair);
    await on.expectWell();
  });

  test('registered: under another name', async () => {
    const repair = await on.expectBroken('registered', {
      says: /no cluster alhpa: the one of this context is registered as alpha/,
      args: ['alhpa'],
    });
    expect(repair).toBe('ecr-anywhere doctor alpha --context bed');
    await on.repair(repair);
  });

  test('paused', async () => {
    await on.run(['pause', 'alpha']);
    const repair = await on.expectBroken('paused', { says: /^paused/ });
    expect(repair).toBe('ecr-anywhere resume alpha');
    await on.repair(repair);
    await on.expectWell();
  });

  test('schedule: nobody has looked for hours', async () => {
    const { emulator } = on.bed.deployment;
    await new DynamoDBClient(emulator.clientConfig).send(
      new UpdateItemCommand({
        TableName: on.bed.deployment.resource('RefresherFunctionMemory'),
        Key: { cluster: { S: 'alpha' } },
        UpdateExpression: 'SET lookedAt = :at',
        ExpressionAttributeValues: { ':at': { S: new Date(Date.now() - 3 * 3_600_000).toISOString() } },
      }),
    );
    const repair = await on.expectBroken('schedule', { says: /^the last run looked 3h 0m ago$/ });
    expect(repair).toBe(
      'npx cdk deploy -c scheduleEnabled=true # with the settings that the stack has: -c … or cdk.json',
    );
    // What it would bring about.
    await on.bed.deployment.invoke();
    await on.expectWell();
  });

  test('kubeconfig: it is none', async () => {
    await on.bed.deployment.registerCluster('alpha', 'not: [a kubeconfig');
    const repair = await on.expectBroken('kubeconfig', { says: /not YAML/ });
    expect(repair).toBe(REPLACE);
    await on.repair(repair);
    await on.expectWell();
  });

  test("kubeconfig: another cluster's", async () => {
    const { controlPlane } = on.bed.cluster('beta');
    await on.bed.deployment.registerCluster('alpha', await refresherKubeconfig(controlPlane));
    const repair = await on.expectBroken('kubeconfig', { says: /leads to another cluster/ });
    expect(repair).toBe(REPLACE);
    await on.repair(repair);
    await on.expectWell();
  });

  test('reachable: nobody listens there', async () => {
    const kubeconfig = await refresherKubeconfig(on.controlPlane);
    await on.bed.deployment.registerCluster(
      'alpha',
      kubeconfig.replace(/server: .*/, 'server: https://127.0.0.1:1'),
    );
    const repair = await on.expectBroken('reachable', { says: /ECONNREFUSED/ });
    expect(repair).toBe(`${REPLACE.replace(' --context bed', '')} --server https://ADDRESS --context bed`);
    await on.repair(repair.replace('https://ADDRESS', on.controlPlane.server));
    await on.expectWell();
  });

  test('credential: its token was revoked', async () => {
    await on.kubectl('delete', 'secret', 'ecr-anywhere-refresher-token', '--namespace', 'ecr-anywhere');
    await vi.waitFor(async () => expect((await on.doctor()).report.firstBroken?.link).toBe('credential'), {
      timeout: 30_000,
    });
    const repair = await on.expectBroken('credential', { says: /HTTP 401/ });
    expect(repair).toBe(REPLACE);
    await on.repair(repair);
    await on.expectWell();
  });

  test('identity: an administrator', async () => {
    const admin = await readFile(on.controlPlane.adminKubeconfigPath, 'utf8');
    await on.bed.deployment.registerCluster('alpha', admin);
    const repair = await on.expectBroken('identity', {
      says: /^admin is neither the chart's ServiceAccount nor in the group ecr-anywhere:refreshers$/,
    });
    expect(repair).toBe(REPLACE);
    await on.repair(repair);
    await on.expectWell();
  });

  test('permissions: a binding is gone', async () => {
    await on.kubectl('delete', 'clusterrolebinding', 'ecr-anywhere-refresher');
    const repair = await on.expectBroken('permissions', { says: /^it may not: list namespaces$/ });
    expect(repair).toBe(
      'helm upgrade ecr-anywhere webhook/chart --namespace ecr-anywhere --reset-then-reuse-values --kube-context bed',
    );
    await on.repair(repair);
    await on.expectWell();
  });

  test('token: it is bound to nothing, so that it cannot be renewed', async () => {
    const { stdout } = await on.kubectl(
      ...['create', 'token', 'ecr-anywhere-refresher', '--namespace', 'ecr-anywhere', '--duration=1h'],
    );
    await on.bed.deployment.registerCluster('alpha', on.controlPlane.kubeconfigForToken(stdout.trim()));
    const repair = await on.expectBroken('token', {
      says: /^it expires at \S+Z, and is not renewed: it is no token of a service account that is bound to a Secret$/,
    });
    expect(repair).toBe(REPLACE);
    await on.repair(repair);
    await on.expectWell();
  });

  test('token: it is nearly over, and the chart allows none that lives as long', async () => {
    await on.webhook.upgrade({ refresher: { token: { maxSeconds: 600 } } });
    const kubeconfig = on.controlPlane.kubeconfigForToken(await nearlyOver(on.controlPlane));
    const file = join(on.cli.home, 'nearly-over');
    await writeFile(file, kubeconfig, { mode: 0o600 });
    const askForNext = [
      ...['create', 'token', 'ecr-anywhere-refresher', '--namespace', 'ecr-anywhere', '--duration=1h'],
      ...['--bound-object-kind', 'Secret', '--bound-object-name', 'ecr-anywhere-refresher-token'],
      ...['--kubeconfig', file],
    ];
    // A policy is in force a moment after it is stored.
    await expect
      .poll(() => on.controlPlane.kubectl(askForNext, { mayFail: true }), { timeout: 10_000 })
      .toMatchObject({ stderr: expect.stringContaining('600 seconds at most') });
    await on.bed.deployment.registerCluster('alpha', kubeconfig);
    await on.bed.deployment.invoke();
    const repair = await on.expectBroken('token', {
      says: /^it expires at \S+Z, and is not renewed: POST .*HTTP 403: .*600 seconds at most/,
    });
    expect(repair).toBe(REPLACE);
    await on.repair(repair);
    await on.expectWell();
    await on.webhook.upgrade({});
    await on.repair(REPLACE);
  });

  test('clock: the API server is an hour ahead', async () => {
    await using proxy = await startChangingProxy(on.controlPlane);
    await on.bed.deployment.registerCluster(
      'alpha',
      proxy.through(await refresherKubeconfig(on.controlPlane)),
    );
    proxy.aheadSeconds = 3600;
    const repair = await on.expectBroken('clock', { says: /clock is 3600 s ahead of AWS'/ });
    expect(repair).toBe('timedatectl set-ntp true');
    proxy.aheadSeconds = -600;
    await on.expectBroken('clock', { says: /clock is 600 s behind AWS'/ });
    proxy.aheadSeconds = 0;
    await on.expectWell();
    await on.repair(REPLACE);
  });
});

describe('what is registered is registered as the same again', () => {
  test('a client certificate', async () => {
    const file = join(on.cli.home, 'member');
    const member = await on.controlPlane.kubeconfigFor('member', ['ecr-anywhere:refreshers']);
    await writeFile(file, member, { mode: 0o600 });
    await on.bed.deployment.registerCluster('alpha', await on.controlPlane.kubeconfigFor('somebody'));
    const repair = await on.expectBroken('identity', {
      ...{ says: /^somebody is neither/, also: ['permissions'] },
    });
    expect(repair).toBe('ecr-anywhere register alpha --replace --credential KUBECONFIG --context bed');
    await on.repair(repair.replace('KUBECONFIG', file));
    await on.expectWell();
    await on.repair(REPLACE);
  });
});

describe('the operator’s own context', () => {
  /** A kubeconfig with a context for each cluster. */
  const contexts = async (current: string) => {
    const parts = await Promise.all(
      ['alpha', 'beta'].map(async (name) => {
        const { controlPlane } = on.bed.cluster(name);
        const config = parse(await readFile(controlPlane.adminKubeconfigPath, 'utf8'));
        return {
          contexts: [{ name, context: { cluster: name, user: name } }],
          clusters: [{ ...config.clusters[0], name }],
          users: [{ ...config.users[0], name }],
        };
      }),
    );
    const file = join(on.cli.home, `contexts-${current}`);
    const all = (key: 'contexts' | 'clusters' | 'users') => parts.flatMap((part) => part[key] as object[]);
    const merged = {
      ...{ apiVersion: 'v1', kind: 'Config', 'current-context': current },
      ...{ contexts: all('contexts'), clusters: all('clusters'), users: all('users') },
    };
    await writeFile(file, stringify(merged), { mode: 0o600 });
    return file;
  };

  test('context: another cluster’s', async () => {
    const file = await contexts('beta');
    const repair = await on.expectBroken('context', {
      says: /^the context beta is of another cluster than alpha$/,
      args: ['alpha', '--kubeconfig', file],
    });
    expect(repair).toBe(`ecr-anywhere doctor alpha --kubeconfig ${file} --context CONTEXT`);
    await on.repair(repair.replace('CONTEXT', 'alpha'));
  });

  test('context: it is the tag that tells, where the refresher does not get there', async () => {
    await on.bed.deployment.registerCluster('alpha', 'not: [a kubeconfig');
    const options = { env: { KUBECONFIG: await contexts('beta') } };
    await on.expectBroken('kubeconfig', { says: /not YAML/, also: ['context'], options });
    await on.repair(REPLACE);
  });

  test('context: nothing tells whose it is, so nobody looks into it unless it is named', async () => {
    const kubeconfig = await refresherKubeconfig(on.controlPlane);
    const away = kubeconfig.replace(/server: .*/, 'server: https://127.0.0.1:1');
    await on.bed.deployment.registerCluster('by-hand', away);
    const file = await contexts('beta');
    const options = { env: { KUBECONFIG: file } };
    const says = /ECONNREFUSED/;
    const ofContext = async (args: string[]) => {
      const { findings } = (await on.doctor(args, options)).report;
      return ['context', 'chart'].map((name) => findings.find(({ link }) => link === name));
    };

    // What that context is of would be registered in its place.
    const repair = await on.expectBroken('reachable', { says, args: ['by-hand'], options });
    expect(repair).toBe('ecr-anywhere register by-hand --replace --server https://ADDRESS --context CONTEXT');
    const unknown = {
      verdict: 'unknown',
      says: 'it is not known whether the context beta is of by-hand: name it with --context',
    };
    expect(await ofContext(['by-hand'])).toMatchObject([unknown, unknown]);

    for (const named of [
      ['--context', 'beta'],
      ['--kubeconfig', file],
    ])
      expect(await ofContext(['by-hand', ...named])).toMatchObject([
        { verdict: 'well', says: 'beta, which is not known to be the same cluster' },
        { verdict: 'well', says: expect.stringMatching(/^release ecr-anywhere in/) },
      ]);
    await on.bed.deployment.unregisterCluster('by-hand');
  });

  test.each([
    { what: 'there is none', file: '', says: /^there is no kubeconfig$/ },
    { what: 'nobody listens there', file: 'dead', says: /no answer: .*ECONNREFUSED/ },
    { what: 'its credential is none', file: 'nobody', says: /HTTP 401/ },
  ])('context: $what', async ({ file, says }) => {
    const config = on.controlPlane.kubeconfigForToken('nobody');
    await writeFile(join(on.cli.home, 'nobody'), config);
    await writeFile(join(on.cli.home, 'dead'), config.replace(/server: .*/, 'server: https://127.0.0.1:1'));
    const KUBECONFIG = file ? join(on.cli.home, file) : undefined;
    await on.expectBroken('context', { says, options: { env: { KUBECONFIG } } });
  });
});

interface Fleet {
  readonly clusters: readonly {
    readonly cluster: string;
    readonly firstBroken?: { readonly link: string; readonly says: string; readonly repair: string };
  }[];
}

describe('all clusters', () => {
  test('each with its first broken link', async () => {
    const { deployment } = on.bed;
    const beta = on.bed.cluster('beta').controlPlane;
    await on.run(['register', 'beta', '--kubeconfig', beta.adminKubeconfigPath]);
    await deployment.registerCluster('junk', 'not: [a kubeconfig');
    await deployment.registerCluster('resting', await refresherKubeconfig(beta));
    await on.run(['pause', 'resting']);
    await deployment.registerCluster('revoked', beta.kubeconfigForToken('no-token-of-yours'));
    const away = (await refresherKubeconfig(beta)).replace(/server: .*/, 'server: https://127.0.0.1:1');
    await deployment.registerCluster('silent', away);

    const { code, stdout } = await on.run(['doctor', '--output', 'json']);
    const { clusters } = JSON.parse(stdout) as Fleet;
    expect(clusters.map(({ cluster, firstBroken }) => [cluster, firstBroken?.link])).toEqual([
      ['alpha', undefined],
      ['beta', undefined],
      ['junk', 'kubeconfig'],
      ['resting', 'paused'],
      ['revoked', 'credential'],
      ['silent', 'reachable'],
    ]);
    expect(code).toBe(1);
    expect(clusters[2]?.firstBroken?.repair).toBe('ecr-anywhere register junk --replace');

    const { stdout: text } = await on.run(['doctor']);
    expect(text).toMatch(/^alpha +none/m);
    expect(text).toMatch(/^silent +reachable from the Lambda +.*ECONNREFUSED/m);
    expect(text).toContain('4 of 6 have a broken link; 2 are well.');
    const rows = text.split('\n').slice(text.split('\n').findIndex((line) => line.startsWith('CLUSTER')) + 1);
    expect(rows.slice(0, 6).map((row) => row.split(' ')[0])).toEqual([
      ...['junk', 'resting', 'revoked', 'silent', 'alpha', 'beta'],
    ]);
  });

  test('all well', async () => {
    for (const name of ['junk', 'resting', 'revoked', 'silent'])
      await on.bed.deployment.unregisterCluster(name);
    const { code, stdout } = await on.run(['doctor']);
    expect(stdout).toContain('All well, as far as it can be seen from AWS.');
    expect(code).toBe(0);
  });

  test('and where there is no way to the function, that is what is said', async () => {
    await on.expectBroken('stack', { says: /there is no stack Other/, args: ['--stack-name', 'Other'] });
  });
});

/** A token of the refresher's that has lived for fifty minutes of its hour. */
async function nearlyOver({ dir }: ControlPlane): Promise<string> {
  const [header = '', payload = ''] = (await refresherToken(on.controlPlane, '1h')).split('.');
  const now = Math.floor(Date.now() / 1000);
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
  const aged = { ...claims, iat: now - 3000, nbf: now - 3000, exp: now + 600 };
  const text = `${header}.${Buffer.from(JSON.stringify(aged)).toString('base64url')}`;
  const key = await readFile(join(dir, 'service-accounts.key'), 'utf8');
  return `${text}.${createSign('RSA-SHA256').update(text).sign(key).toString('base64url')}`;
}

test('nothing that was printed is a credential', () => on.expectNoCredential());

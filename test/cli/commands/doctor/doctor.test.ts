// doctor with the refresher's function and a cluster: each case breaks one thing that doctor sees from AWS, and doctor must
// name it. A repair that doctor prints is executed, and every check must pass again.
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import {
  GetFunctionConfigurationCommand,
  LambdaClient,
  UpdateFunctionConfigurationCommand,
} from '@aws-sdk/client-lambda';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { refresherKubeconfig } from '../../../bed/webhook.ts';
import { type Case, DoctorBed } from './doctor-bed.ts';

let on: DoctorBed;
beforeAll(async () => {
  on = await DoctorBed.start(['beta']);
});
afterAll(() => on?.[Symbol.asyncDispose]());

const REPLACE = 'ecr-anywhere register alpha --replace --context bed';
const DRY_RUN = 'ecr-anywhere register alpha --replace --dry-run --context bed';
const DEAD_SERVER = 'server: https://127.0.0.1:1';

describe('the way to the function', () => {
  test('no-session: the AWS session has expired', async () => {
    const sts = createServer((_, response) => {
      response
        .writeHead(403, { 'content-type': 'text/xml' })
        .end(
          '<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>The security token included in the request is expired</Message></Error></ErrorResponse>',
        );
    }).listen(0, '127.0.0.1');
    await once(sts, 'listening');
    const { port } = sts.address() as AddressInfo;
    const failure = await on.expectFailed('no-session', {
      options: { env: { AWS_ENDPOINT_URL_STS: `http://127.0.0.1:${port}` } },
      args: ['alpha', '--region', 'eu-central-1'],
    });
    expect(failure.investigate).toBe('aws configure list --region eu-central-1');
    sts.close();
  });

  test('stack-not-found: the stack has another name', async () => {
    for (const args of [['alpha'], []]) {
      const failure = await on.expectFailed('stack-not-found', {
        ...{ message: ['Other', 'eu-central-1'], args: [...args, '--stack-name', 'Other'] },
      });
      expect(failure.investigate).toMatch(/^aws cloudformation describe-stacks /);
    }
  });

  test('function-failed: it does not start', async () => {
    const { functionName, emulator } = on.bed.deployment;
    const lambda = new LambdaClient(emulator.clientConfig);
    const { Environment } = await lambda.send(
      new GetFunctionConfigurationCommand({ FunctionName: functionName }),
    );
    const { MEMORY_TABLE: _, ...Variables } = Environment?.Variables ?? {};
    await lambda.send(
      new UpdateFunctionConfigurationCommand({ FunctionName: functionName, Environment: { Variables } }),
    );
    const failure = await on.expectFailed('function-failed', { message: ['MEMORY_TABLE'] });
    expect(failure.investigate).toBe(
      `aws logs tail --since 1h "$(aws lambda get-function-configuration --function-name ${functionName} --query LoggingConfig.LogGroup --output text)"`,
    );
    await lambda.send(
      new UpdateFunctionConfigurationCommand({
        FunctionName: functionName,
        Environment: { Variables: Environment?.Variables },
      }),
    );
    await on.expectPassed();
  });
});

describe('the registration', () => {
  test.each<Case>([
    {
      name: 'the cluster is not registered',
      code: 'not-registered',
      message: ['alpha', 'none'],
      breaks: () => on.run(['unregister', 'alpha']),
      investigate: 'ecr-anywhere register alpha --dry-run --context bed',
      mends: async () => {
        await on.repair('ecr-anywhere register alpha --dry-run --context bed');
        // The context is certain if the operator names it.
        const args = ['alpha', '--context', 'bed'];
        const { repair = '' } = await on.expectFailed('not-registered', { args });
        expect(repair).toBe('ecr-anywhere register alpha --context bed');
        await on.repair(repair);
      },
    },
    {
      name: 'the cluster is paused',
      code: 'paused',
      breaks: () => on.run(['pause', 'alpha']),
      repair: 'ecr-anywhere resume alpha',
    },
    {
      name: 'the registered secret is not a kubeconfig',
      code: 'registration-unusable',
      message: ['YAML'],
      breaks: () => on.bed.deployment.registerCluster('alpha', 'not: [a kubeconfig'),
      // What was registered is not known.
      investigate: DRY_RUN,
      mends: async () => {
        await on.repair(DRY_RUN);
        await on.repair(REPLACE);
      },
    },
    {
      name: 'the kubeconfig is that of another cluster',
      code: 'different-cluster',
      message: ['alpha'],
      breaks: async () =>
        on.bed.deployment.registerCluster(
          'alpha',
          await refresherKubeconfig(on.bed.cluster('beta').controlPlane),
        ),
      repair: REPLACE,
    },
    {
      name: 'no server listens at the registered address',
      code: 'unreachable',
      message: ['ECONNREFUSED'],
      breaks: async () => {
        const kubeconfig = await refresherKubeconfig(on.controlPlane);
        await on.bed.deployment.registerCluster('alpha', kubeconfig.replace(/server: .*/, DEAD_SERVER));
      },
      investigate: 'kubectl --context bed cluster-info',
      mends: async () => {
        const { firstFailed } = (await on.doctor()).report;
        const register = 'ecr-anywhere register alpha --replace --server https://ADDRESS --context bed';
        expect(firstFailed?.hint).toContain(register);
        await on.repair(register.replace('https://ADDRESS', on.controlPlane.server));
      },
    },
    {
      name: 'the token was revoked',
      code: 'credential-rejected',
      message: ['HTTP 401'],
      breaks: async () => {
        await on.kubectl('delete', 'secret', 'ecr-anywhere-refresher-token', '--namespace', 'ecr-anywhere');
        await expect
          .poll(async () => (await on.doctor()).report.firstFailed?.code, { timeout: 30_000 })
          .toBe('credential-rejected');
      },
      repair: REPLACE,
    },
    {
      name: 'the identity is an administrator',
      code: 'identity-not-restricted',
      message: ['admin', 'ecr-anywhere:refreshers'],
      breaks: async () =>
        on.bed.deployment.registerCluster(
          'alpha',
          await readFile(on.controlPlane.adminKubeconfigPath, 'utf8'),
        ),
      repair: REPLACE,
    },
    {
      name: 'a binding does not exist',
      code: 'permission-missing',
      message: ['list namespaces'],
      breaks: () => on.kubectl('delete', 'clusterrolebinding', 'ecr-anywhere-refresher'),
      repair:
        'helm upgrade ecr-anywhere webhook/chart --namespace ecr-anywhere --reset-then-reuse-values --kube-context bed',
    },
    {
      name: 'the token is bound to no Secret',
      code: 'token-not-renewed',
      breaks: async () => {
        const { stdout } = await on.kubectl(
          ...['create', 'token', 'ecr-anywhere-refresher', '--namespace', 'ecr-anywhere', '--duration=1h'],
        );
        const kubeconfig = on.controlPlane.kubeconfigForToken(stdout.trim());
        await on.bed.deployment.registerCluster('alpha', kubeconfig);
      },
      repair: REPLACE,
    },
  ])('$code: $name', (one) => on.expectCase(one));

  test('registered-under-other-name: the name is misspelt', async () => {
    const failure = await on.expectFailed('registered-under-other-name', {
      ...{ message: ['alhpa', 'alpha'], args: ['alhpa'] },
    });
    expect(failure.investigate).toBe('ecr-anywhere doctor alpha --context bed');
    await on.repair(failure.investigate ?? '');
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

  test('wrong-context: it belongs to another cluster', async () => {
    const file = await contexts('beta');
    const failure = await on.expectFailed('wrong-context', {
      ...{ message: ['beta', 'alpha'], args: ['alpha', '--kubeconfig', file] },
    });
    expect(failure.investigate).toBe(`kubectl --kubeconfig ${file} config get-contexts`);
    await on.repair(failure.investigate ?? '');
    const named = await on.doctor(['alpha', '--kubeconfig', file, '--context', 'alpha']);
    expect(named.report.ok).toBe(true);
  });

  test('wrong-context: by the tag, if the refresher cannot reach the cluster', async () => {
    await on.bed.deployment.registerCluster('alpha', 'not: [a kubeconfig');
    const options = { env: { KUBECONFIG: await contexts('beta') } };
    const failure = await on.expectFailed('registration-unusable', { also: ['wrong-context'], options });
    // The right context is not known.
    expect(failure.investigate).toBe(DRY_RUN.replace('bed', 'CONTEXT'));
    await on.repair(REPLACE);
  });

  test('the cluster of a context that cannot be verified is checked only if the context is named', async () => {
    const kubeconfig = await refresherKubeconfig(on.controlPlane);
    await on.bed.deployment.registerCluster('by-hand', kubeconfig.replace(/server: .*/, DEAD_SERVER));
    const file = await contexts('beta');
    const options = { env: { KUBECONFIG: file } };
    const ofContext = async (args: string[]) => {
      const { findings } = (await on.doctor(args, options)).report;
      return ['context', 'chart'].map((name) => findings.find(({ check }) => check === name));
    };

    // The cluster of this context would be registered in its place.
    const failure = await on.expectFailed('unreachable', { args: ['by-hand'], options });
    expect(failure.hint).toContain(
      'ecr-anywhere register by-hand --replace --server https://ADDRESS --context CONTEXT',
    );
    const skipped = { verdict: 'skipped', message: expect.stringMatching(/context beta .* by-hand/) };
    expect(await ofContext(['by-hand'])).toMatchObject([skipped, skipped]);

    for (const named of [
      ['--context', 'beta'],
      ['--kubeconfig', file],
    ])
      expect(await ofContext(['by-hand', ...named])).toMatchObject([
        { verdict: 'passed', message: expect.stringMatching(/^beta; .*by-hand/) },
        { verdict: 'passed', message: expect.stringContaining('release ecr-anywhere in') },
      ]);
    await on.bed.deployment.unregisterCluster('by-hand');
  });

  test('context-unusable: no server listens there', async () => {
    const config = on.controlPlane.kubeconfigForToken('not-a-token');
    const KUBECONFIG = join(on.cli.home, 'dead');
    await writeFile(KUBECONFIG, config.replace(/server: .*/, DEAD_SERVER));
    const options = { env: { KUBECONFIG } };
    const failure = await on.expectFailed('context-unusable', { message: ['ECONNREFUSED'], options });
    expect(failure.investigate).toBe('kubectl config get-contexts');
  });
});

interface Fleet {
  readonly ok: boolean;
  readonly clusters: readonly {
    readonly cluster: string;
    readonly ok: boolean;
    readonly problem?: { readonly code: string; readonly investigate?: string };
  }[];
}

describe('all clusters', () => {
  test('doctor names the first failure of each, and lists failed clusters first', async () => {
    const { deployment } = on.bed;
    const beta = on.bed.cluster('beta').controlPlane;
    await on.run(['register', 'beta', '--kubeconfig', beta.adminKubeconfigPath]);
    await deployment.registerCluster('junk', 'not: [a kubeconfig');
    await deployment.registerCluster('resting', await refresherKubeconfig(beta));
    await on.run(['pause', 'resting']);
    await deployment.registerCluster('revoked', beta.kubeconfigForToken('no-token-of-yours'));
    const away = (await refresherKubeconfig(beta)).replace(/server: .*/, DEAD_SERVER);
    await deployment.registerCluster('silent', away);

    const { code, stdout } = await on.run(['doctor', '--output', 'json']);
    const { ok, clusters } = JSON.parse(stdout) as Fleet;
    expect({ code, ok }).toEqual({ code: 1, ok: false });
    expect(clusters.map(({ cluster, ok: isOk, problem }) => [cluster, isOk, problem?.code])).toEqual([
      ['alpha', true, undefined],
      ['beta', true, undefined],
      ['junk', false, 'registration-unusable'],
      ['resting', false, 'paused'],
      ['revoked', false, 'credential-rejected'],
      ['silent', false, 'unreachable'],
    ]);
    expect(clusters[2]?.problem?.investigate).toBe('ecr-anywhere register junk --replace --dry-run');

    const { stdout: text } = await on.run(['doctor']);
    expect(text).toMatch(/^silent +API server reachable from AWS +.*ECONNREFUSED/m);
    expect(text).toContain('4 failed, 0 could not be checked (both exit code 1), 2 passed.');
  });
});

test('no output contains a credential', () => on.expectNoCredential());

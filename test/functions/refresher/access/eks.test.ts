// Tests EKS clusters, registered and tagged: the tokens that the refresher signs, and that only the named cluster gets one.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { ANNOTATION, CLUSTERS_PREFIX, TAG } from '../../../../contract/names.ts';
import { usableAccess } from '../../../../functions/refresher/access/access.ts';
import {
  type DiscoveryTarget,
  type EksSettings,
  eksAccess,
} from '../../../../functions/refresher/access/eks.ts';
import { revoke } from '../../../../functions/refresher/actions/revoke.ts';
import { clusterStatuses } from '../../../../functions/refresher/actions/status.ts';
import {
  type ClusterStateWriter,
  clusterStates,
} from '../../../../functions/refresher/clusters/cluster-state.ts';
import { openable, selectClusters } from '../../../../functions/refresher/clusters/clusters.ts';
import { readEvent } from '../../../../functions/refresher/event.ts';
import type { ClusterReport } from '../../../../functions/refresher/run/cluster-report.ts';
import { run, runClusters } from '../../../../functions/refresher/run/run.ts';
import { metricsOf } from '../../../../functions/refresher/run/whole-run.ts';
import { regionOfEndpoint } from '../../../../lib/aws/eks-endpoint.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../../bed/aws-endpoint.ts';
import { type ApiServer, json, page, startApiServer } from '../../api-server.ts';
import { startClusterStateTable } from '../../cluster-state-table.ts';
import { type EksDouble, startEks } from '../../eks.ts';
import { HOUR, NO_KEYLESS } from '../../real-cluster.ts';
import { startSecretsManager } from '../../secrets-manager.ts';

const REGION = 'eu-central-1';
const ROLE = 'arn:aws:iam::210987654321:role/clusters';
const OWN_KEY = 'AKIAIOSFODNN7EXAMPLE';

let stack: AsyncDisposableStack;
let eks: EksDouble;
let aws: AwsEndpoint;
let cluster: ApiServer;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  [eks, aws] = await Promise.all([startEks(), startAwsEndpoint()]);
  stack.use(eks);
  stack.use(aws);
  for (const [name, value] of Object.entries({
    ...aws.env,
    AWS_ENDPOINT_URL_EKS: eks.url,
    AWS_ACCESS_KEY_ID: OWN_KEY,
    AWS_SECRET_ACCESS_KEY: 'secret',
    AWS_REGION: REGION,
  }))
    vi.stubEnv(name, value);
  aws.settings.roles[ROLE] = { externalId: 'x-1' };
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await stack.disposeAsync();
});

let each: AsyncDisposableStack;
beforeEach(async () => {
  each = new AsyncDisposableStack();
  cluster = each.use(await startApiServer((_, response) => json(response, page([]))));
  eks.clusters.clear();
  eks.clusters.set('prod', { endpoint: cluster.url, ca: cluster.caPem });
  eks.isDenied = false;
});
afterEach(() => each.disposeAsync());

const kubeconfig = (args: readonly string[] = [], server = cluster.url) =>
  JSON.stringify({
    'current-context': 'main',
    contexts: [{ name: 'main', context: { cluster: 'main', user: 'main' } }],
    clusters: [{ name: 'main', cluster: { server } }],
    users: [
      {
        name: 'main',
        user: { exec: { command: 'aws', args: ['eks', 'get-token', '--cluster-name', 'prod', ...args] } },
      },
    ],
  });

const SETTINGS = {
  clusterDeadlineMs: 20_000,
  clusterConcurrency: 1,
  region: REGION,
  allowLocalServers: true,
  eksDiscovery: [],
};

/** Runs the refresher over one cluster with the function's settings. */
async function runOn(
  text: string,
  assumableRoles: readonly string[] = [],
  allowLocalServers = true,
  clusterDeadlineMs = SETTINGS.clusterDeadlineMs,
) {
  await using registry = await startSecretsManager({ [`${CLUSTERS_PREFIX}a`]: text });
  const [report] = await run(
    {
      secrets: registry.client,
      eks: eksAccess({ region: REGION, assumableRoles, clusterDeadlineMs: 20_000 }),
      keyless: NO_KEYLESS,
    },
    readEvent({}),
    { ...SETTINGS, allowLocalServers, clusterDeadlineMs },
    Date.now,
    AbortSignal.timeout(30_000),
    () => {},
  );
  if (!report) throw new Error('no report');
  return report;
}

/** The parts of the token that the cluster received. */
function token(): { url: URL; key: string | undefined; region: string | undefined } {
  const [, encoded = ''] =
    /^Bearer k8s-aws-v1\.([\w-]+)$/.exec(cluster.requests.at(-1)?.headers.authorization ?? '') ?? [];
  const url = new URL(Buffer.from(encoded, 'base64url').toString());
  const [key, , region] = url.searchParams.get('X-Amz-Credential')?.split('/') ?? [];
  return { url, key, region };
}

describe('the token of an EKS cluster', () => {
  test('is a presigned GetCallerIdentity of the region’s STS for this cluster, without other parameters', async () => {
    expect(await runOn(kubeconfig())).toMatchObject({ served: true });
    const { url, key, region } = token();
    expect(url.origin + url.pathname).toBe('https://sts.eu-central-1.amazonaws.com/');
    // The verifier refuses a URL with an unknown parameter.
    expect([...url.searchParams.keys()].sort()).toEqual([
      ...['Action', 'Version', 'X-Amz-Algorithm', 'X-Amz-Credential', 'X-Amz-Date'],
      ...['X-Amz-Expires', 'X-Amz-Signature', 'X-Amz-SignedHeaders'],
    ]);
    expect(url.searchParams.get('Action')).toBe('GetCallerIdentity');
    expect(url.searchParams.get('X-Amz-SignedHeaders')).toBe('host;x-k8s-aws-id');
    expect(Number(url.searchParams.get('X-Amz-Expires'))).toBeLessThanOrEqual(900);
    expect([key, region]).toEqual([OWN_KEY, REGION]);
    expect(eks.calls.at(-1)).toEqual({ cluster: 'prod', accessKeyId: OWN_KEY, region: REGION });
  });

  test.each([
    { region: 'cn-north-1', host: 'sts.cn-north-1.amazonaws.com.cn' },
    { region: 'us-gov-west-1', host: 'sts.us-gov-west-1.amazonaws.com' },
    { region: 'us-east-1', host: 'sts.us-east-1.amazonaws.com' },
    { region: 'eu-west-3', host: 'sts.eu-west-3.amazonaws.com' },
  ])('is signed for $host in $region', async ({ region, host }) => {
    expect(await runOn(kubeconfig(['--region', region]))).toMatchObject({ served: true });
    expect([token().url.hostname, token().region]).toEqual([host, region]);
    expect(eks.calls.at(-1)?.region).toBe(region);
  });

  test('is signed as the role that the kubeconfig names, with its external ID', async () => {
    const text = kubeconfig().replace(
      '{"command":"aws","args":["eks","get-token","--cluster-name","prod"]}',
      JSON.stringify({
        command: 'aws-iam-authenticator',
        args: ['token', '-i', 'prod', '-r', ROLE, '-e', 'x-1'],
      }),
    );
    expect(await runOn(text, [ROLE])).toMatchObject({ served: true });
    expect(aws.stsCalls.at(-1)).toMatchObject({
      action: 'AssumeRole',
      role: ROLE,
      externalId: 'x-1',
      ok: true,
    });
    expect(eks.calls.at(-1)?.accessKeyId).not.toBe(OWN_KEY);
    expect(token().key).toBe(eks.calls.at(-1)?.accessKeyId);
    expect(token().url.searchParams.has('X-Amz-Security-Token')).toBe(true);
  });
});

describe('no server gets a token of a cluster that', () => {
  const isNotServed = async (
    running: ReturnType<typeof runOn>,
    says: RegExp,
    at: ClusterReport['failedAt'] = 'kubeconfig',
  ) => {
    const { served, reason, failedAt } = await running;
    expect({ served, failedAt }).toEqual({ served: false, failedAt: at });
    expect(reason).toMatch(says);
    expect(cluster.requests).toHaveLength(0);
  };

  test('names a role that is not allowed, which is not assumed', async () => {
    const before = aws.stsCalls.length;
    await isNotServed(
      runOn(kubeconfig(['--role-arn', ROLE]), []),
      /the refresher may not assume .* CDK setting assumableRoles/,
      'setting',
    );
    expect(aws.stsCalls).toHaveLength(before);
  });

  test('names a role that cannot be assumed', async () => {
    await isNotServed(runOn(kubeconfig(['--role-arn', ROLE]), [ROLE]), /AccessDenied/);
  });

  test('has another server than the EKS endpoint', async () => {
    const other = each.use(await startApiServer((_, response) => json(response, page([]))));
    await isNotServed(
      runOn(kubeconfig([], other.url)),
      /not the endpoint that EKS returns for the cluster prod.*register the cluster again/,
    );
    expect(other.requests).toHaveLength(0);
  });

  test('names a role while STS does not respond, and the run ends in time', async () => {
    const silent = 'arn:aws:iam::210987654321:role/silent';
    aws.settings.roles[silent] = { silent: true };
    await isNotServed(
      runOn(kubeconfig(['--role-arn', silent]), [silent], true, 500),
      /the cluster reached its deadline/,
      'reach',
    );
  });

  test('EKS throttles', async () => {
    eks.throttle(5);
    await isNotServed(runOn(kubeconfig()), /TooManyRequestsException/, 'reach');
  }, 60_000);

  test('EKS does not have', async () => {
    eks.clusters.clear();
    await isNotServed(
      runOn(kubeconfig()),
      /EKS cluster prod in eu-central-1: ResourceNotFoundException: No cluster/,
    );
  });

  test('is being created', async () => {
    eks.clusters.set('prod', { status: 'CREATING' });
    await isNotServed(runOn(kubeconfig()), /has no endpoint: it is CREATING/, 'reach');
  });

  test('is in an account that denies DescribeCluster, and the hint names the setting', async () => {
    eks.isDenied = true;
    await isNotServed(
      runOn(kubeconfig()),
      /AccessDeniedException.*add the region to the CDK setting eksRegions/,
      'setting',
    );
  });

  test('has a local server, unless tests allow it', async () => {
    await isNotServed(
      runOn(kubeconfig(), [], false),
      /server: 127\.0\.0\.1 is a loopback or link-local address/,
    );
    expect(eks.calls.filter(({ cluster: name }) => name === 'x')).toEqual([]);
  });
});

describe('tagged clusters', () => {
  const OTHER_ROLE = 'arn:aws:iam::321098765432:role/discovery';
  const managed = { [TAG.managed]: 'true' };
  const arnOf = (name: string, region = REGION, account = '123456789012') =>
    `arn:aws:eks:${region}:${account}:cluster/${name}`;

  async function discover(
    eksDiscovery: readonly DiscoveryTarget[],
    event: object = {},
    clusterDeadlineMs = SETTINGS.clusterDeadlineMs,
    registered: Readonly<Record<string, string>> = {},
    state?: ClusterStateWriter,
    more: Partial<EksSettings> = {},
  ) {
    const secrets = Object.entries(registered).map(([name, value]) => [`${CLUSTERS_PREFIX}${name}`, value]);
    await using registry = await startSecretsManager(Object.fromEntries(secrets));
    const services = {
      secrets: registry.client,
      eks: eksAccess({ region: REGION, assumableRoles: [], clusterDeadlineMs: 20_000, ...more }),
      keyless: NO_KEYLESS,
      ...(state && { state }),
    };
    const settings = { ...SETTINGS, eksDiscovery, clusterDeadlineMs };
    const signal = AbortSignal.timeout(30_000);
    return await run(services, readEvent(event), settings, Date.now, signal, () => {});
  }
  const outcomes = async (running: ReturnType<typeof discover>) =>
    Object.fromEntries(
      (await running).map(({ cluster: name, served, isPaused, reason }) => [
        name,
        served ? 'served' : isPaused ? 'paused' : reason,
      ]),
    );

  beforeEach(() => {
    const here = { endpoint: cluster.url, ca: cluster.caPem, region: REGION, account: '123456789012' };
    eks.clusters.clear();
    for (const [name, more] of Object.entries({
      tagged: { tags: managed },
      untagged: {},
      'tagged otherwise': { tags: { [TAG.managed]: 'yes' } },
      creating: { tags: managed, status: 'CREATING', endpoint: undefined, ca: undefined },
      deleting: { tags: managed, status: 'DELETING' },
      updating: { tags: managed, status: 'UPDATING' },
      private: { tags: managed, isPrivate: true },
      paused: { tags: { ...managed, [TAG.paused]: 'true' } },
      elsewhere: { tags: managed, region: 'us-east-1' },
      theirs: { tags: managed, account: '321098765432' },
    })) {
      const { endpoint, ca, ...rest } = { ...here, ...more };
      eks.clusters.set(name, { ...rest, ...(endpoint && ca && { endpoint, ca }) });
    }
    eks.accountOf = (key) => (key === OWN_KEY ? '123456789012' : '321098765432');
  });

  test('of all pages are refreshed without registration, under their ARNs', async () => {
    expect(await outcomes(discover([{ region: REGION }]))).toEqual({
      [arnOf('tagged')]: 'served',
      [arnOf('updating')]: 'served',
      [arnOf('paused')]: 'paused',
      [arnOf('private')]: expect.stringMatching(/private endpoint only.*proxy-url/),
    });
    expect(token()).toMatchObject({ key: OWN_KEY, region: REGION });
    // One call returns the tags, the endpoint and the certificate authority.
    expect(eks.calls.filter(({ cluster: name }) => name === 'updating')).toHaveLength(1);
  });

  test('are described again by a batch, to which the list is data', async () => {
    await using registry = await startSecretsManager({});
    const services = {
      secrets: registry.client,
      eks: eksAccess({ region: REGION, assumableRoles: [], clusterDeadlineMs: 20_000 }),
      keyless: NO_KEYLESS,
    };
    const settings = { ...SETTINGS, eksDiscovery: [{ region: REGION }] };
    const signal = AbortSignal.timeout(30_000);
    const serve = (data: string, of: typeof settings) =>
      runClusters(
        ...([{}, openable(JSON.parse(data), services, of, signal), readEvent({})] as const),
        ...([of, Date.now, signal, () => {}, {}] as const),
      );
    const { clusters } = await selectClusters(services, undefined, settings, signal);
    const data = JSON.stringify(clusters);
    const described = () => eks.calls.filter(({ cluster: name }) => name === 'updating').length;
    const before = described();

    expect(await outcomes(serve(data, settings))).toEqual({
      [arnOf('tagged')]: 'served',
      [arnOf('updating')]: 'served',
      [arnOf('paused')]: 'paused',
      [arnOf('private')]: expect.stringMatching(/private endpoint only.*proxy-url/),
    });
    expect(described()).toBe(before + 1);
    expect(await outcomes(serve(data, { ...settings, eksDiscovery: [] }))).toMatchObject({
      [arnOf('tagged')]: expect.stringMatching(/no longer in the CDK setting eksDiscovery/),
    });
  });

  test('with a private endpoint only are refreshed by a function in a VPC', async () => {
    const inVpc = discover([{ region: REGION }], {}, undefined, undefined, undefined, { isInVpc: true });
    expect(await outcomes(inVpc)).toMatchObject({ [arnOf('private')]: 'served' });
  });

  test('are those of the stage if the tag of another stage has another value', async () => {
    const settings = { managedTag: 'yes' };
    const ofStage = discover([{ region: REGION }], {}, undefined, undefined, undefined, settings);
    expect(await outcomes(ofStage)).toEqual({ [arnOf('tagged otherwise')]: 'served' });
  });

  test('are found in another region, and in another account through a role', async () => {
    const scopes = [{ region: 'us-east-1' }, { region: REGION, roleArn: OTHER_ROLE }];
    expect(await outcomes(discover(scopes))).toEqual({
      [arnOf('elsewhere', 'us-east-1')]: 'served',
      [arnOf('theirs', REGION, '321098765432')]: 'served',
    });
    expect(aws.stsCalls.at(-1)).toMatchObject({ action: 'AssumeRole', role: OTHER_ROLE, ok: true });
  });

  test('are refreshed once if two discovery targets find the same cluster', async () => {
    // The role is in the same account.
    eks.accountOf = () => '123456789012';
    const reports = await discover([{ region: REGION }, { region: REGION, roleArn: OTHER_ROLE }]);
    expect(reports.map(({ cluster: name }) => name).sort()).toEqual(
      ['paused', 'private', 'tagged', 'updating'].map((name) => arnOf(name)),
    );
    expect(token()).toMatchObject({ key: OWN_KEY });
  });

  test('are refreshed alone if the event names one by its ARN', async () => {
    const name = arnOf('updating');
    expect(await outcomes(discover([{ region: REGION }], { clusters: [name] }))).toEqual({
      [name]: 'served',
    });
    expect(cluster.requests).toHaveLength(1);
    await expect(discover([{ region: REGION }], { clusters: ['typo'] })).rejects.toThrow(
      /Not registered: typo\. Registered are: .*updating/,
    );
  });

  test('are not looked up for an event that names only registered clusters', async () => {
    const before = eks.calls.length;
    await expect(
      discover([{ region: REGION }], { clusters: ['a'] }, undefined, { a: 'junk' }),
    ).resolves.toEqual([expect.objectContaining({ cluster: 'a', served: false })]);
    expect(eks.calls).toHaveLength(before);
  });

  test('are left out if they are deleted during discovery', async () => {
    eks.gone.add('tagged');
    const found = await outcomes(discover([{ region: REGION }]));
    eks.gone.clear();
    expect(Object.keys(found).sort()).toEqual(['paused', 'private', 'updating'].map((name) => arnOf(name)));
  });

  test('keep their stored state, which ages, when they are no longer found', async () => {
    const expiresAt = Date.now() + 10 * HOUR;
    const secret = {
      ...{ name: 'pull', namespace: 'team' },
      annotations: { [ANNOTATION.expiresAt]: new Date(expiresAt).toISOString() },
    };
    const holder = each.use(
      await startApiServer(({ path }, response) =>
        json(response, page(path === '/api/v1/namespaces' ? [{ name: 'team' }] : [secret])),
      ),
    );
    eks.clusters.clear();
    eks.clusters.set('one', { endpoint: holder.url, ca: holder.caPem, tags: managed });
    const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
    each.defer(() => rm(dir, { recursive: true, force: true }));
    const table = each.use(await startClusterStateTable(dir));
    const state = clusterStates(table.client, table.name);
    const look = () => discover([{ region: REGION }], {}, undefined, {}, state);
    expect((await look()).map(({ cluster: name, served }) => [name, served])).toEqual([[arnOf('one'), true]]);
    eks.isDenied = true;
    const reports = await look();
    expect(reports.map(({ cluster: name, served }) => [name, served])).toEqual([[`EKS in ${REGION}`, false]]);
    const later = Date.now() + 3 * HOUR;
    expect(metricsOf(reports, later).SoonestExpiry).toBe(Math.round((expiresAt - later) / 1000));

    // The status shows both: without a response of EKS the cluster may still exist.
    await using registry = await startSecretsManager({});
    const status = () =>
      clusterStatuses(
        { secrets: registry.client, state },
        { eksDiscovery: [{ region: REGION }] },
        15 * 60_000,
        Date.now(),
        AbortSignal.timeout(10_000),
      );
    const soonestExpiry = new Date(expiresAt).toISOString();
    expect(await status()).toEqual([
      expect.objectContaining({ name: arnOf('one'), source: 'eks', managed: 1, failures: 0, soonestExpiry }),
      expect.objectContaining({
        name: `EKS in ${REGION}`,
        source: 'eks-discovery',
        failures: 1,
        soonestExpiry,
      }),
    ]);
  });

  test('have no token to revoke, and the answer needs none', async () => {
    await using registry = await startSecretsManager({});
    const calls = aws.stsCalls.length;
    const results = await revoke(
      {
        secrets: registry.client,
        eks: eksAccess({ region: REGION, assumableRoles: [], clusterDeadlineMs: 20_000 }),
        keyless: NO_KEYLESS,
      },
      [arnOf('tagged')],
      { ...SETTINGS, eksDiscovery: [{ region: REGION }] },
      AbortSignal.timeout(30_000),
      () => {},
    );
    expect(results).toEqual([
      {
        cluster: arnOf('tagged'),
        outcome: 'nothing-to-revoke',
        code: 'short-lived-token',
        reason: expect.stringContaining('access entry'),
      },
    ]);
    expect(cluster.requests).toEqual([]);
    expect(aws.stsCalls).toHaveLength(calls);
  });

  test('are found after EKS throttled a request', async () => {
    eks.throttle(3);
    expect(Object.keys(await outcomes(discover([{ region: REGION }])))).toHaveLength(4);
  });

  test('of a discovery target that fails do not affect other targets', async () => {
    const denied = 'arn:aws:iam::321098765432:role/denied';
    aws.settings.roles[denied] = { denied: true };
    const found = await outcomes(discover([{ region: 'us-east-1' }, { region: REGION, roleArn: denied }]));
    expect(found).toEqual({
      [arnOf('elsewhere', 'us-east-1')]: 'served',
      [`EKS in ${REGION} as ${denied}`]: expect.stringMatching(/ListClusters: AccessDenied/),
    });
  });

  test('of a discovery target that does not respond delay others by one deadline at most', async () => {
    const silent = 'arn:aws:iam::321098765432:role/silent';
    aws.settings.roles[silent] = { silent: true };
    const found = await outcomes(
      discover([{ region: 'us-east-1' }, { region: REGION, roleArn: silent }], {}, 2_000),
    );
    expect(found).toEqual({
      [arnOf('elsewhere', 'us-east-1')]: 'served',
      [`EKS in ${REGION} as ${silent}`]: 'no answer in time',
    });
  });

  test('that cannot be described are reported, and the others are refreshed', async () => {
    eks.undescribed.add('untagged');
    const found = await outcomes(discover([{ region: REGION }]));
    eks.undescribed.clear();
    expect(found[`EKS in ${REGION}`]).toMatch(/untagged: AccessDeniedException/);
    expect(found[arnOf('tagged')]).toBe('served');
  });
});

test('the region is that of the endpoint if the kubeconfig has none', async () => {
  const server = 'https://0A1B.gr7.us-east-1.eks.amazonaws.com';
  eks.clusters.set('prod', { endpoint: server, ca: 'a certificate' });
  const access = await usableAccess(
    'a',
    { server, identity: { eks: { cluster: 'prod' } } },
    {
      eks: eksAccess({ region: REGION, assumableRoles: [], clusterDeadlineMs: 20_000 }),
      keyless: NO_KEYLESS,
    },
    { region: REGION, allowLocalServers: false },
    AbortSignal.timeout(10_000),
  );
  expect(access).toMatchObject({ server, ca: 'a certificate', isLocalAllowed: false });
  expect(eks.calls.at(-1)).toMatchObject({ cluster: 'prod', region: 'us-east-1' });
});

test('a throttled request is retried', async () => {
  eks.throttle(2);
  expect(await runOn(kubeconfig())).toMatchObject({ served: true });
});

test.each([
  { server: 'https://0A1B.gr7.eu-central-1.eks.amazonaws.com', region: 'eu-central-1' },
  { server: 'https://0A1B.yl4.cn-north-1.eks.amazonaws.com.cn', region: 'cn-north-1' },
  { server: 'https://0A1B.gr7.us-gov-east-1.eks.amazonaws.com', region: 'us-gov-east-1' },
  { server: 'https://0A1B.gr7.eu-west-1.api.aws', region: 'eu-west-1' },
  { server: 'https://eu-west-1.example.com', region: undefined },
  { server: 'https://10.0.0.1:6443', region: undefined },
])('regionOfEndpoint returns $region for $server', ({ server, region }) => {
  expect(regionOfEndpoint(server)).toBe(region);
});

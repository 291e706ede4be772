// The chart refuses each registry policy that the webhook refuses, and renders each that it accepts: the rules are written
// twice (webhook/admission/policy.ts, webhook/chart/templates/_policy.tpl), and here both judge the same values.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { readPolicy } from '../../../webhook/admission/policy.ts';
import { CHART, helm } from '../../bed/helm.ts';

const REGION = 'eu-central-1';
const ACCOUNT = '123456789012';
const HOST = `${ACCOUNT}.dkr.ecr.${REGION}.amazonaws.com`;
const OTHER = `210987654321.dkr.ecr.${REGION}.amazonaws.com`;
const role = (name: string, partition = 'aws') => `arn:${partition}:iam::${ACCOUNT}:role/${name}`;
const all = { namespaces: ['*'] };
const a = { host: HOST, namespaces: ['team-a'] };
const b = { host: OTHER, namespaces: ['team-b'] };
const own = (...namespaces: string[]) => ({ namespaces });

interface Values {
  readonly ownRegistry?: object;
  readonly registries?: readonly object[];
}
interface Case extends Values {
  readonly what: string;
  /** The role of the webhook's web identity. */
  readonly webhookRole?: string;
  readonly region?: string;
}

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-policy-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

let written = 0;
async function render(values: Values, aws: object = {}) {
  written += 1;
  const file = join(dir, `values-${written}.json`);
  const general = {
    image: { repository: 'registry.example.com/x' },
    refresher: { namespaces: ['*'] },
    aws: { region: REGION, ...aws },
    acceptAnyCaller: true,
  };
  await writeFile(file, JSON.stringify({ ...general, ...values }));
  const args = ['template', 'ecr-anywhere', CHART, '--kube-version', '1.30.0', '--values', file];
  return helm(args, { mayFail: true });
}

/** The policy document of the ConfigMap. */
function documentIn(stdout: string): string {
  const [configMap] = parseAllDocuments(stdout)
    .map((document) => document.toJS() as { kind?: string; data?: Record<string, string> } | null)
    .filter((manifest) => manifest?.kind === 'ConfigMap' && manifest.data?.['policy.yaml'] !== undefined);
  return configMap?.data?.['policy.yaml'] ?? '';
}

function webhookRefuses(document: string, { webhookRole, region = REGION }: Case): boolean {
  const account = webhookRole?.split(':')[4];
  try {
    readPolicy(document, { region, roleArn: webhookRole, account });
    return false;
  } catch {
    return true;
  }
}

const awsOf = ({ webhookRole, region = REGION }: Case) => ({
  region,
  ...(webhookRole && { webIdentity: { roleArn: webhookRole } }),
});

const DOMAINS: [region: string, domain: string, dualStack?: string][] = [
  ['eu-central-1', 'amazonaws.com', 'on.aws'],
  ['ap-southeast-5', 'amazonaws.com', 'on.aws'],
  ['cn-north-1', 'amazonaws.com.cn', 'on.amazonwebservices.com.cn'],
  ['us-gov-west-1', 'amazonaws.com', 'on.aws'],
  ['eusc-de-east-1', 'amazonaws.eu', 'on.amazonwebservices.eu'],
  ['us-iso-east-1', 'c2s.ic.gov'],
  ['us-isob-east-1', 'sc2s.sgov.gov'],
  ['eu-isoe-west-1', 'cloud.adc-e.uk'],
  ['us-isof-south-1', 'csp.hci.ic.gov'],
];

const VALID: Case[] = [
  { what: "the webhook's own registry for every namespace", ownRegistry: own('*') },
  { what: 'for some', ownRegistry: own('team-a', 'shop-*', '123', 'true') },
  { what: 'of an explicit account', ownRegistry: { ...own('*'), account: '210987654321' } },
  ...DOMAINS.map(([region, domain, dualStack]) => ({
    what: `all hosts of ${region}`,
    region,
    registries: [
      { host: `${ACCOUNT}.dkr.ecr.${region}.${domain}`, ...all },
      { host: `${ACCOUNT}.dkr.ecr-fips.${region}.${domain}`, ...all },
      ...(dualStack
        ? ['dkr-ecr', 'dkr-ecr-fips'].map((part) => ({
            host: `${ACCOUNT}.${part}.${region}.${dualStack}`,
            ...all,
          }))
        : []),
    ],
  })),
  {
    what: 'ECR Public for other namespaces',
    ownRegistry: own('*'),
    registries: ['public.ecr.aws', 'ecr-public.aws.com'].map((host) => ({ host, namespaces: ['builds'] })),
  },
  {
    what: 'two roles',
    registries: [
      { ...a, roleArn: role('a') },
      { ...b, roleArn: role('b'), externalId: 'id' },
    ],
  },
  {
    what: 'the same namespaces in another order',
    registries: [a, b].map((entry, index) => ({
      ...entry,
      namespaces: index ? ['x', 'y', 'y'] : ['y', 'x'],
    })),
  },
  { what: 'sharedRole in all', registries: [a, b].map((entry) => ({ ...entry, sharedRole: true })) },
  {
    what: 'another region',
    ownRegistry: own('team-b'),
    registries: [{ ...a, host: HOST.replace(REGION, 'us-east-1') }],
  },
  {
    what: 'a narrow entry before a wide one',
    registries: [
      { ...a, roleArn: role('a') },
      { host: HOST, ...all },
    ],
  },
  {
    what: 'patterns of which none is wider',
    registries: [
      { ...a, namespaces: ['a*'], roleArn: role('a') },
      { ...a, namespaces: ['*a'], roleArn: role('b') },
    ],
  },
  {
    what: "a narrow entry before the webhook's own registry",
    ownRegistry: own('*'),
    registries: [{ ...a, roleArn: role('a') }],
    webhookRole: role('webhook'),
  },
  {
    what: 'a covered own registry whose account is not known',
    ownRegistry: own('team-a'),
    registries: [{ ...a, roleArn: role('a') }],
  },
];

const INVALID: Case[] = [
  { what: 'no ECR host', registries: [{ host: 'ghcr.io', ...all }] },
  { what: 'a host with a scheme', registries: [{ host: `https://${HOST}`, ...all }] },
  { what: 'a host of another partition’s domain', registries: [{ host: `${HOST}.cn`, ...all }] },
  {
    what: 'a dual-stack host in a partition without them',
    region: 'us-iso-east-1',
    registries: [{ host: `${ACCOUNT}.dkr-ecr.us-iso-east-1.on.aws`, ...all }],
  },
  { what: 'an upper-case namespace', registries: [{ ...a, namespaces: ['Team'] }] },
  { what: 'no namespaces', registries: [{ ...a, namespaces: [] }] },
  { what: 'an empty namespace', ownRegistry: own('') },
  { what: 'a namespace with a dash at its end', ownRegistry: own('a-') },
  { what: 'an account of other digits', ownRegistry: { ...own('*'), account: '1234' } },
  { what: 'an account as a number', ownRegistry: { ...own('*'), account: 123456789012 } },
  { what: 'no role', registries: [{ ...a, roleArn: 'pull' }] },
  { what: 'a role with a space', registries: [{ ...a, roleArn: role('a b') }] },
  { what: 'an external ID with a space', registries: [{ ...a, roleArn: role('a'), externalId: 'a b' }] },
  {
    what: 'an external ID that is too long',
    registries: [{ ...a, roleArn: role('a'), externalId: 'x'.repeat(1225) }],
  },
  { what: 'an external ID without a role', registries: [{ ...a, externalId: 'id' }] },
  { what: 'an unknown field', registries: [{ ...a, rolearn: role('a') }] },
  {
    what: "an unknown field of the webhook's own registry",
    ownRegistry: { ...own('*'), roleArn: role('a') },
  },
  ...DOMAINS.slice(2).map(([region, domain]) => ({
    what: `another partition: ${region}`,
    registries: [{ host: `${ACCOUNT}.dkr.ecr.${region}.${domain}`, ...all }],
  })),
  { what: 'a role of another partition', registries: [{ ...a, roleArn: role('a', 'aws-cn') }] },
  { what: 'two hosts, no roles, different namespaces', registries: [a, b] },
  {
    what: 'a host’s other name, no roles, different namespaces',
    registries: [a, { ...b, host: `${ACCOUNT}.dkr-ecr.${REGION}.on.aws` }],
  },
  {
    what: 'a role for different namespaces',
    registries: [a, b].map((entry) => ({ ...entry, roleArn: role('x') })),
  },
  {
    what: 'the webhook’s own role, named once',
    registries: [a, { ...b, roleArn: role('own') }],
    webhookRole: role('own'),
  },
  { what: 'sharedRole in one entry only', registries: [{ ...a, sharedRole: true }, b] },
  {
    what: 'different external IDs of a role',
    registries: [a, b].map(({ host }, index) => ({
      host,
      ...all,
      roleArn: role('x'),
      externalId: `id-${index}`,
    })),
  },
  { what: "the webhook's own registry and other namespaces", ownRegistry: own('team-a'), registries: [b] },
  { what: 'an entry twice', registries: [a, a] },
  {
    what: 'an entry after a wider one',
    registries: [
      { host: HOST, namespaces: ['team-*', 'shop'], roleArn: role('x') },
      { host: HOST, namespaces: ['shop', 'team-b-*'], roleArn: role('y') },
    ],
  },
  {
    what: "the webhook's own registry after a wider entry",
    ownRegistry: own('team-a'),
    registries: [{ host: HOST, ...all, roleArn: role('x') }],
    webhookRole: role('webhook'),
  },
];

test.each(VALID)('renders a policy that the webhook reads as it is written: $what', async (values) => {
  const { what: _, webhookRole: __, region: ___, ...policy } = values;
  const { code, stdout, stderr } = await render(policy, awsOf(values));
  expect(code, stderr).toBe(0);
  const document = documentIn(stdout);
  expect(JSON.parse(document)).toMatchObject(policy);
  expect(webhookRefuses(document, values)).toBe(false);
});

test.each(INVALID)('refuses a policy that the webhook refuses: $what', async (values) => {
  const { what: _, webhookRole: __, region: ___, ...policy } = values;
  expect(webhookRefuses(JSON.stringify(policy), values)).toBe(true);
  const { code, stderr } = await render(policy, awsOf(values));
  expect(code).not.toBe(0);
  expect(stderr).toMatch(/registries|ownRegistry/);
});

describe('a policy that entitles no namespace', () => {
  test.each<{ what: string } & Values>([
    { what: 'no value is set' },
    { what: 'both are empty', ownRegistry: { namespaces: [] }, registries: [] },
    { what: 'only the account is set', ownRegistry: { account: ACCOUNT } },
  ])('is refused by the chart with the option that sets it: $what', async ({ what: _, ...values }) => {
    const { code, stderr } = await render(values);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(
      /ownRegistry\.namespaces and registries are both empty.* --set 'ownRegistry\.namespaces=/,
    );
  });

  test('is valid for the webhook, and gives nothing', () => {
    expect(webhookRefuses('ownRegistry: {namespaces: []}\nregistries: []', { what: '' })).toBe(false);
  });
});

test('names every problem together', async () => {
  const { stderr } = await render({
    registries: [{ host: 'ghcr.io', ...all }, a, b, { ...a, externalId: 'id' }],
  });
  for (const part of [
    'registries[0].host: ghcr.io is not an ECR host',
    `registries[1] (${HOST}) for team-a and registries[2] (${OTHER}) for team-b`,
    `registries[3] (${HOST}).externalId: needs a roleArn`,
    `registries[3] (${HOST}): is never used, because registries[1] (${HOST}) comes first`,
  ])
    expect(stderr).toContain(part);
});

test.each([
  {
    what: 'IRSA',
    values: { serviceAccount: { annotations: { 'eks.amazonaws.com/role-arn': role('own') } } },
  },
  {
    what: 'a role that is assumed',
    values: { aws: { region: REGION, assumeRole: { roleArn: role('own') } } },
  },
])("knows the webhook's own role: $what", async ({ values }) => {
  const registries = [a, { ...b, roleArn: role('own') }];
  const { code, stderr } = await render({ registries, ...values } as Values);
  expect(code).not.toBe(0);
  expect(stderr).toContain("the same principal, the webhook's own identity");
});

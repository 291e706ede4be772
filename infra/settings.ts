// The settings of the CDK app: reads them from the CDK context and reports all problems together.
import { Token } from 'aws-cdk-lib';
import { RetentionDays } from 'aws-cdk-lib/aws-logs';
import { RegionInfo } from 'aws-cdk-lib/region-info';
import { z } from 'zod';
import { DEFAULT_STACK_NAME } from '../contract/keyless.ts';
import { CLUSTERS_PREFIX } from '../contract/names.ts';
import { CLUSTER_CONCURRENCY, CLUSTER_DEADLINE, INTERVAL, MEMORY } from './limits.ts';
import type { RefresherSettings } from './refresher-settings.ts';

/** A number, or its text: `-c key=value` on the command line gives text. */
const number = (limits: { min: number; max: number }) =>
  z.preprocess(toNumber, z.number('must be a number').int().min(limits.min).max(limits.max));
/** Number() makes 0 of an empty text, such as that of an unset variable in a script. */
const toNumber = (value: unknown) =>
  typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
const flag = z.preprocess(String, z.stringbool());
const REGION = '[a-z]{2,4}(-[a-z]+)+-\\d+';
// No commas, because they separate the items of a list.
const ROLE_ARN = 'arn:aws[a-z-]*:iam::\\d{12}:role/[\\w+=.@/-]+';
/** Text of a pattern, or a placeholder of the CDK for a value that is known at deployment. */
const matching = (pattern: RegExp, message: string) =>
  z.string().refine((value) => Token.isUnresolved(value) || pattern.test(value), message);
const splitText = (value: unknown) =>
  typeof value === 'string' ? value.split(',').map((text) => text.trim()) : value;

/**
 * A list, or a comma-separated text: `-c key=value` gives text.
 *
 * @param length of the text. Lambda's limit for all environment variables is 4 KB (Lambda quotas)
 */
const list = (item: string, message: string, length = 1_500) =>
  z
    .preprocess(
      splitText,
      z
        .array(z.string().regex(new RegExp(`^${item}$`), message))
        .refine((items) => new Set(items).size === items.length, 'must not have an item twice')
        .refine(
          (items) => items.join().length <= length,
          `must not be longer than ${length} characters in total, because Lambda limits the size of environment variables`,
        ),
    )
    .default([]);

/** Ids of EC2, or placeholders of the CDK; in one text, comma-separated. @param max Lambda's limit (VpcConfig) */
const ids = (type: string, max: number) =>
  z
    .preprocess(
      splitText,
      z
        .array(
          matching(new RegExp(`^${type}-[0-9a-f]{8,17}$`), `must be an id such as ${type}-0123456789abcdef0`),
        )
        .refine((items) => new Set(items).size === items.length, 'must not have an id twice')
        .max(max, `must be at most ${max}, because Lambda allows no more`),
    )
    .default([]);

/** Parses text as JSON: `-c key=value` gives text. Leaves other values to the schema. */
const fromJson = (value: unknown) => {
  if (typeof value !== 'string') return value;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return value;
  }
};

/** Reads `name=value,other=value`: `-c key=value` gives text. Leaves other values, JSON included, to the schema. */
const fromTagText = (value: unknown, context: z.RefinementCtx) => {
  if (typeof value !== 'string' || value.startsWith('{')) return fromJson(value);
  const tags = value.split(',').map((tag) => tag.trim().split(/=(.*)/s, 2));
  if (!areUnique(tags.map(([name]) => name)))
    context.addIssue({ code: 'custom', message: 'must not have a name twice' });
  return Object.fromEntries(tags);
};
const areUnique = (values: readonly unknown[]) => new Set(values).size === values.length;

/** A name of a Kubernetes object (RFC 1123). */
const dnsName = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/,
    'must be a Kubernetes name: lower-case letters, digits, hyphens and dots',
  );

const Webhook = z.strictObject({
  name: z
    .string()
    .regex(/^[A-Za-z0-9-]*[A-Za-z0-9][A-Za-z0-9-]*$/, 'must consist of letters, digits and hyphens'),
  issuer: z
    .url({ protocol: /^https$/, error: 'must be an https URL, such as https://oidc.example.com/cluster' })
    .refine(
      (url) => !/[?#]|\/$/.test(url),
      "must be exactly the iss of the cluster's tokens, without a query and without a slash at the end",
    )
    // IAM API reference, CreateOpenIDConnectProvider.
    .refine(
      (url) => /^https:\/\/[a-z0-9.-]+(\/|$)/.test(url),
      'must have a lower-case host and no port, because IAM accepts no other',
    ),
  repositories: z
    .array(
      z
        .string()
        .regex(
          /^[a-z0-9*][a-z0-9._/*-]*$/,
          'must be the name of an ECR repository, without the registry host; * matches any characters',
        ),
    )
    .min(1),
  namespace: dnsName.optional(),
  serviceAccount: dnsName.optional(),
  thumbprints: z
    .array(
      z
        .string()
        .regex(
          /^[0-9A-Fa-f]{40}$/,
          'must be the SHA-1 fingerprint of a certificate: 40 hexadecimal digits without colons',
        ),
    )
    .min(1)
    .max(5)
    .optional(),
});

type Webhook = z.infer<typeof Webhook>;
const hasUnique = (keyOf: (webhook: Webhook) => string) => (webhooks: readonly Webhook[]) =>
  new Set(webhooks.map(keyOf)).size === webhooks.length;

const topicArn = matching(
  /^arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w-]{1,256}$/,
  'must be the ARN of a standard SNS topic such as arn:aws:sns:eu-central-1:123456789012:alarms',
);
const oneOf = (values: readonly number[], message: string) =>
  z.preprocess(
    toNumber,
    z.number(message).refine((value) => values.includes(value), message),
  );

/** Days for which CloudWatch Logs can keep a log (PutRetentionPolicy). */
export const RETENTION_DAYS = Object.values(RetentionDays)
  .filter((value) => typeof value === 'number')
  .filter((days) => days !== RetentionDays.INFINITE);

/** The settings of the construct `Refresher`, which are also settings of the CDK app. infra/refresher-settings.ts describes them. */
const RefresherShape = z.strictObject({
  rateMinutes: number(INTERVAL).default(INTERVAL.default),
  scheduleEnabled: flag.default(true),
  alarmTopicArn: topicArn.optional(),
  alarmEmail: z.email().optional(),
  clusterDeadlineSeconds: number(CLUSTER_DEADLINE).default(CLUSTER_DEADLINE.default),
  clusterConcurrency: number(CLUSTER_CONCURRENCY).default(CLUSTER_CONCURRENCY.default),
  scaleOut: flag.default(false),
  toleratedFailingClusters: number({ min: 0, max: 10_000 }).default(0),
  dashboard: flag.default(true),
  pagerTopicArn: topicArn.optional(),
  clusterMetrics: flag.default(false),
  memorySize: number(MEMORY).default(MEMORY.default),
  tracing: flag.default(false),
  logRetentionDays: oneOf(
    RETENTION_DAYS,
    `must be a number of days that CloudWatch Logs offers: ${RETENTION_DAYS.join(', ')}`,
  ).default(RetentionDays.ONE_MONTH),
  kmsKeyArn: matching(
    /^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key\/[\w-]+$/,
    'must be the ARN of a key (not of an alias) such as arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef',
  ).optional(),
  secretPrefix: z
    .string()
    .regex(
      /^[\w+=.@-][\w/+=.@-]{0,198}\/$/,
      'must end with a slash and consist of at most 200 letters, digits and the characters /_+=.@-',
    )
    .refine(
      (prefix) => !/^ecr-anywhere-/.test(prefix) || /^ecr-anywhere-[A-Za-z0-9-]+\/clusters\/$/.test(prefix),
      'must not overlap the default prefix of another stack, ecr-anywhere-STACK/clusters/: one of both would serve the clusters of the other',
    )
    .refine(
      (prefix) =>
        prefix === CLUSTERS_PREFIX ||
        (!prefix.startsWith(CLUSTERS_PREFIX) && !CLUSTERS_PREFIX.startsWith(prefix)),
      `must not overlap ${CLUSTERS_PREFIX}, the prefix of the default stack: one of both would serve the clusters of the other`,
    )
    .optional(),
  subnetIds: ids('subnet', 16),
  securityGroupIds: ids('sg', 5),
  httpsProxy: z
    .url({ protocol: /^https?$/, error: 'must be the URL of a proxy such as http://proxy.example.com:3128' })
    .refine(
      (url) => !/^[^/]+\/\/[^/]*@/.test(url),
      'must not contain a user or password, because the template and the configuration of the function show it',
    )
    .optional(),
  noProxy: list(
    '[A-Za-z0-9.*:-]+',
    'must be a host such as sts.eu-central-1.amazonaws.com, or a suffix such as .amazonaws.com',
    500,
  ),
  eksRegions: list(REGION, 'must be an AWS region such as eu-central-1'),
  assumableRoles: list(ROLE_ARN, 'must be a role ARN such as arn:aws:iam::123456789012:role/refresher'),
  eksDiscovery: list(
    `${REGION}(=${ROLE_ARN})?`,
    'must be an AWS region such as eu-central-1, or eu-central-1=arn:aws:iam::123456789012:role/refresher',
  ),
  allowLocalServers: flag.default(false),
} satisfies Readonly<Record<keyof RefresherSettings, z.ZodType>>);

/** The settings of the CDK app. */
const Settings = z.strictObject({
  /** Name of the CloudFormation stack. A second deployment in the same account and region needs another name. */
  stackName: z
    .string()
    .regex(
      /^[A-Za-z][A-Za-z0-9-]{0,127}$/,
      'must start with a letter and consist of letters, digits and hyphens',
    )
    .default(DEFAULT_STACK_NAME),
  ...RefresherShape.shape,
  /** Whether clusters may be keyless: the refresher may request tokens for them from STS (docs/keyless.md). */
  keyless: flag.default(false),
  /**
   * Clusters for whose webhook the stack creates an AWS role: a list of {"name", "issuer", "repositories"}. If the release
   * has another name or namespace than in README.md, add {"namespace", "serviceAccount"}; if no public authority signed the
   * issuer's certificate, add {"thumbprints"} (docs/aws-identity.md).
   */
  webhooks: z
    .preprocess(
      fromJson,
      z
        .array(Webhook)
        // CloudFormation removes hyphens from the names of outputs.
        .refine(
          hasUnique(({ name }) => name.replaceAll('-', '')),
          'name: two clusters have the same name, apart from hyphens; give each another, because outputs and roles are named after it',
        )
        .refine(
          hasUnique(({ issuer }) => issuer),
          'issuer: two clusters have the same issuer, and IAM has one provider for each issuer; keep one of them',
        ),
    )
    .default([]),
  /** Tags of all resources of the stack: {"name": "value"}, or text such as name=value,other=value. */
  tags: z
    .preprocess(
      fromTagText,
      z.record(
        // CloudFormation, Tag.
        z
          .string()
          .regex(
            /^(?!aws:)[\p{L}\p{Z}\p{N}_.:/=+@-]{1,128}$/iu,
            'must be the name of a tag: at most 128 letters, digits, spaces and _.:/=+-@, not starting with aws: in any case',
          ),
        z
          .string()
          .regex(
            /^[\p{L}\p{Z}\p{N}_.:/=+@-]{0,256}$/u,
            'must be the value of a tag: at most 256 letters, digits, spaces and _.:/=+-@',
          ),
      ),
    )
    // IAM reference, "Tags for IAM resources": the names of a role's tags are not case-sensitive.
    .refine(
      (tags) => areUnique(Object.keys(tags).map((name) => name.toLowerCase())),
      'must not have names that differ only by case, because IAM treats them as the same tag',
    )
    .refine((tags) => Object.keys(tags).length <= 50, 'must be at most 50 tags, because AWS allows no more')
    .default({}),
  /** ARN of a policy that limits what all roles of the stack may do. */
  permissionsBoundary: matching(
    /^arn:aws[a-z-]*:iam::(\d{12}|aws):policy\/[\w+=.@/-]+$/,
    'must be the ARN of an IAM policy such as arn:aws:iam::123456789012:policy/boundary',
  ).optional(),
});

/** What a setting excludes or requires of others. Each returns a problem, or undefined. */
const COMBINATIONS: readonly ((settings: RefresherSettings) => string | undefined)[] = [
  ({ alarmTopicArn, alarmEmail }) =>
    alarmTopicArn !== undefined && alarmEmail !== undefined
      ? 'alarmEmail: is for the topic that the stack creates; with alarmTopicArn, subscribe the address to that topic'
      : undefined,
  ({ subnetIds, securityGroupIds }) =>
    subnetIds.length > 0 !== securityGroupIds.length > 0
      ? 'subnetIds, securityGroupIds: a function in a VPC needs both'
      : undefined,
  ({ httpsProxy, noProxy }) =>
    httpsProxy === undefined && noProxy.length > 0 ? 'noProxy: has no effect without httpsProxy' : undefined,
  // The stack's own region is unknown here: a template without an environment fits any.
  (settings) => {
    const regions = ARNS_IN_REGION.flatMap((name) => {
      const arn = settings[name];
      return arn === undefined || Token.isUnresolved(arn) ? [] : [[name, arn.split(':')[3]] as const];
    });
    return new Set(regions.map(([, region]) => region)).size > 1
      ? `${regions.map(([name]) => name).join(', ')}: must be in one region, that of the stack, and are in ${regions.map(([, region]) => region).join(', ')}`
      : undefined;
  },
  (settings) => {
    const partitions = new Set(ARNS_IN_REGION.flatMap((name) => partitionOfArn(settings[name])));
    for (const role of settings.assumableRoles)
      for (const partition of partitionOfArn(role)) partitions.add(partition);
    for (const target of [...settings.eksRegions, ...settings.eksDiscovery]) {
      const [region = '', role] = target.split('=');
      for (const partition of [RegionInfo.get(region).partition ?? [], partitionOfArn(role)].flat())
        partitions.add(partition);
    }
    return partitions.size > 1
      ? `ARNs and regions: must be of one AWS partition, that of the stack, and are of ${[...partitions].sort().join(', ')}; credentials of one partition are not valid in another`
      : undefined;
  },
];

/** The settings whose ARN names the region of the stack. */
const ARNS_IN_REGION = ['kmsKeyArn', 'alarmTopicArn', 'pagerTopicArn'] as const;

/** The partition that an ARN names; empty if it is absent or known at deployment only. */
function partitionOfArn(arn: string | undefined): string[] {
  return arn === undefined || Token.isUnresolved(arn) ? [] : arn.split(':').slice(1, 2);
}

export type Settings = Readonly<z.infer<typeof Settings>>;

export const SETTING_NAMES: readonly string[] = Object.keys(Settings.shape);

/** Context keys of the CDK itself: nearly all, comments of cdk.json included, contain one of these characters. */
const CDK_KEY = /[:/@]/;
const OTHER_CDK_KEYS: ReadonlySet<string> = new Set([
  'acknowledged-issue-numbers',
  'cdk-migrate',
  'cli-telemetry',
]);

/** Without case and punctuation: `alarm-email`, `ALARM_EMAIL` and `alarmEmail` are alike. */
const plain = (key: string) => key.toLowerCase().replaceAll(/[^a-z0-9]/g, '');
const NAMES: ReadonlyMap<string, string> = new Map(SETTING_NAMES.map((name) => [plain(name), name]));

/**
 * Reads the settings.
 *
 * @param context the whole CDK context: cdk.json and `-c key=value`
 * @throws Error that names every invalid and every unknown setting, so that a mistyped `alarmEmail` is not ignored
 */
export function readSettings(context: Readonly<Record<string, unknown>>): Settings {
  const settings = Object.fromEntries(Object.entries(context).filter(([key]) => !isOfCdk(key)));
  return check(
    Settings,
    settings,
    'The settings in the CDK context are not valid',
    `Correct them with -c key=value or under context in cdk.json (docs/settings.md). Known settings: ${SETTING_NAMES.join(', ')}.`,
  );
}

/**
 * Reads the settings of the construct `Refresher`: values of the same names, types and limits.
 *
 * @throws Error that names every invalid setting
 */
export function readRefresherSettings(settings: Partial<RefresherSettings>): RefresherSettings {
  return check(
    RefresherShape,
    settings,
    'The properties of the construct Refresher are not valid',
    'docs/settings.md describes them.',
  );
}

function check<T extends RefresherSettings>(
  schema: z.ZodType<T>,
  values: unknown,
  title: string,
  hint: string,
): T {
  const parsed = schema.safeParse(values);
  const problems = parsed.success
    ? COMBINATIONS.flatMap((problemOf) => problemOf(parsed.data) ?? [])
    : parsed.error.issues.flatMap((issue) => {
        if (issue.code === 'unrecognized_keys' && issue.path.length === 0)
          return issue.keys.map(unknownSetting);
        return issue.path.length > 0 ? `${issue.path.join('.')}: ${issue.message}` : issue.message;
      });
  if (parsed.success && problems.length === 0) return parsed.data;
  throw new Error(`${title}:\n${problems.map((problem) => `  - ${problem}`).join('\n')}\n${hint}`);
}

/** Whether a context key is the CDK's and not a setting, not even a mistyped one. */
function isOfCdk(key: string): boolean {
  return OTHER_CDK_KEYS.has(key) || (CDK_KEY.test(key) && !NAMES.has(plain(key)));
}

function unknownSetting(key: string): string {
  const name = NAMES.get(plain(key)) ?? nearestSetting(plain(key));
  return `${key}: there is no such setting${name === undefined ? '' : `; did you mean ${name}?`}`;
}

/** The setting whose name differs least, in at most a third of its characters. */
function nearestSetting(key: string): string | undefined {
  const candidates = [...NAMES].map(([other, name]) => ({ name, edits: editsBetween(key, other) }));
  const [nearest] = candidates
    .filter(({ name, edits }) => edits <= name.length / 3)
    .sort((a, b) => a.edits - b.edits);
  return nearest?.name;
}

/** The number of characters to insert, remove or replace (Levenshtein). */
function editsBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [i, character] of [...a].entries()) {
    const next = [i + 1];
    for (const [j, other] of [...b].entries())
      next.push(
        Math.min((row[j] ?? 0) + (character === other ? 0 : 1), (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1),
      );
    row = next;
  }
  return row.at(-1) ?? 0;
}

// The deployer's settings: CDK context, validated, every problem reported together.
import { z } from 'zod';
import { DEFAULT_STACK_NAME } from '../contract/keyless.ts';
import { CLUSTER_CONCURRENCY, CLUSTER_DEADLINE, INTERVAL } from './limits.ts';

/** `-c key=value` on the command line arrives as text, in cdk.json as what it is. */
const number = (limits: { min: number; max: number }) =>
  z.coerce.number().int().min(limits.min).max(limits.max);
const flag = z.preprocess(String, z.stringbool());
const REGION = '[a-z]{2,4}(-[a-z]+)+-\\d+';
// Without commas, which separate the list's items.
const ROLE_ARN = 'arn:aws[a-z-]*:iam::\\d{12}:role/[\\w+=.@/-]+';
/** Lambda's limit for all environment variables is 4 KB (Lambda quotas). */
const LIST_LENGTH = 1_500;
/** Comma-separated on the command line, a list in cdk.json too. */
const list = (item: string, message: string) =>
  z
    .preprocess(
      (value) => (typeof value === 'string' ? value.split(',').map((text) => text.trim()) : value),
      z
        .array(z.string().regex(new RegExp(`^${item}$`), message))
        .refine(
          (items) => items.join().length <= LIST_LENGTH,
          `must not be longer than ${LIST_LENGTH} characters`,
        ),
    )
    .default([]);

/** On the command line, where a context value is text. */
const fromJson = (value: unknown) => {
  if (typeof value !== 'string') return value;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return value;
  }
};

/** Names of Kubernetes (RFC 1123). */
const dnsName = z.string().regex(/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/, 'must be a name of Kubernetes');

const Webhook = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9-]*[A-Za-z0-9][A-Za-z0-9-]*$/, 'must be letters, digits and hyphens'),
  issuer: z
    .url({ protocol: /^https$/, error: 'must be an https URL' })
    .refine(
      (url) => !/[?#]|\/$/.test(url),
      'must be as the cluster writes it in its tokens: no query, no slash at the end',
    )
    // IAM API reference, CreateOpenIDConnectProvider.
    .refine(
      (url) => /^https:\/\/[a-z0-9.-]+(\/|$)/.test(url),
      'must be a host, in small letters, and no port',
    ),
  repositories: z
    .array(z.string().regex(/^[a-z0-9*][a-z0-9._/*-]*$/, 'must be names of repositories'))
    .min(1),
  namespace: dnsName.optional(),
  serviceAccount: dnsName.optional(),
  thumbprints: z
    .array(z.string().regex(/^[0-9A-Fa-f]{40}$/, 'must be SHA-1 sums of certificates, 40 hexadecimal digits'))
    .min(1)
    .max(5)
    .optional(),
});

type Webhook = z.infer<typeof Webhook>;
const differ = (keyOf: (webhook: Webhook) => string) => (webhooks: readonly Webhook[]) =>
  new Set(webhooks.map(keyOf)).size === webhooks.length;

const Settings = z.object({
  /** Name of the CloudFormation stack; a second stage in the same account and region takes another. */
  stackName: z
    .string()
    .regex(/^[A-Za-z][A-Za-z0-9-]{0,127}$/, 'must be a letter, then letters, digits and hyphens')
    .default(DEFAULT_STACK_NAME),
  /** Minutes between two runs. */
  rateMinutes: number(INTERVAL).default(INTERVAL.default),
  /** Whether the schedule runs. Off, the function answers whoever invokes it, and an alarm rings where nobody does. */
  scheduleEnabled: flag.default(true),
  /** Who gets the alarms by e-mail; AWS asks them to confirm. Without it, subscribe to the topic yourself. */
  alarmEmail: z.email().optional(),
  /** Seconds one cluster may take. */
  clusterDeadlineSeconds: number(CLUSTER_DEADLINE).default(CLUSTER_DEADLINE.default),
  /** How many clusters run at the same time. */
  clusterConcurrency: number(CLUSTER_CONCURRENCY).default(CLUSTER_CONCURRENCY.default),
  /** Regions whose EKS clusters may be registered with "aws eks get-token" in place of a token, comma-separated. */
  eksRegions: list(REGION, 'must be regions such as eu-central-1'),
  /** The roles that such a kubeconfig may name, comma-separated: ARNs, in this account or others. */
  assumableRoles: list(ROLE_ARN, 'must be ARNs such as arn:aws:iam::123456789012:role/refresher'),
  /**
   * Where EKS clusters are refreshed that carry the tag ecr-anywhere.centml.ai/managed=true: regions, and for other
   * accounts `region=ARN of a role there`, comma-separated.
   */
  eksDiscovery: list(
    `${REGION}(=${ROLE_ARN})?`,
    'must be regions such as eu-central-1, or eu-central-1=arn:aws:iam::123456789012:role/refresher',
  ),
  /** Whether clusters may be keyless: the refresher may have STS sign tokens for them. docs/keyless.md. */
  keyless: flag.default(false),
  /**
   * Clusters whose webhooks get an identity: a list of {"name", "issuer", "repositories"}, where the chart is not
   * installed as README.md says {"namespace", "serviceAccount"}, and for an issuer with a certificate of its own making
   * {"thumbprints"}. docs/keyless.md.
   */
  webhooks: z
    .preprocess(
      fromJson,
      z
        .array(Webhook)
        // CloudFormation's names of outputs have no hyphens.
        .refine(
          differ(({ name }) => name.replaceAll('-', '')),
          'name: each cluster needs another, also without the hyphens',
        )
        .refine(
          differ(({ issuer }) => issuer),
          'issuer: an account has one provider for each',
        ),
    )
    .default([]),
  /** Whether clusters may be on loopback and link-local addresses: for tests on one machine only. */
  allowLocalServers: flag.default(false),
});

export type Settings = Readonly<z.infer<typeof Settings>>;

/** The CDK's own context keys all carry one of these; a key without is meant for us. */
const NOT_OURS = /[:/@-]/;

/**
 * Reads the settings.
 *
 * @param context everything that the CDK knows: cdk.json and `-c key=value`
 * @throws Error that names every setting that is wrong or unknown (a mistyped `alarmEmail` must not pass silently)
 */
export function readSettings(context: Readonly<Record<string, unknown>>): Settings {
  const ours = Object.fromEntries(Object.entries(context).filter(([key]) => !NOT_OURS.test(key)));
  const parsed = Settings.strict().safeParse(ours);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) =>
    issue.path.length > 0 ? `${issue.path.join('.')}: ${issue.message}` : issue.message,
  );
  throw new Error(
    `The CDK context does not fit:\n${problems.map((problem) => `  - ${problem}`).join('\n')}\n` +
      `Known settings: ${Object.keys(Settings.shape).join(', ')}. Set them with -c key=value or in cdk.json.`,
  );
}

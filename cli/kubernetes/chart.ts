// What the chart has put into a cluster, found by the webhook's name and not by the release's.

import { z } from 'zod';
import { SECRET_LABEL, WEBHOOK_NAME } from '../../contract/names.ts';
import type { Release } from '../output/options.ts';
import { ApiError, type Kubernetes } from './client.ts';

/** The webhook of CentML/ecr-anywhere, in the MutatingWebhookConfiguration that its chart makes. */
const ORIGINAL_WEBHOOK_NAME = 'ecr-anywhere.centml.ai';
/** On the refresher's ServiceAccount, by the chart: how long its tokens may live, in seconds. */
export const TOKEN_MAX_SECONDS = 'ecr-anywhere.centml.ai/token-max-seconds';

/** On the MutatingWebhookConfiguration, by the chart. */
const TLS_MODE = 'ecr-anywhere.centml.ai/tls-mode';

const CONFIGURATIONS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
const POLICIES = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies';
const BINDINGS = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings';

const Text = z.record(z.string(), z.string()).optional();
const LabelSelector = z.object({
  matchLabels: Text,
  matchExpressions: z
    .array(z.object({ key: z.string(), operator: z.string(), values: z.array(z.string()).optional() }))
    .optional(),
});
const MatchConditions = z.array(z.object({ name: z.string() })).optional();

const Webhook = z.object({
  name: z.string(),
  clientConfig: z.object({
    caBundle: z.string().optional(),
    url: z.string().optional(),
    service: z
      .object({
        name: z.string(),
        namespace: z.string(),
      })
      .optional(),
  }),
  failurePolicy: z.string().optional(),
  rules: z
    .array(
      z.object({ operations: z.array(z.string()).optional(), resources: z.array(z.string()).optional() }),
    )
    .optional(),
  namespaceSelector: LabelSelector.optional(),
  objectSelector: LabelSelector.optional(),
  matchConditions: MatchConditions,
});
export type Webhook = Readonly<z.infer<typeof Webhook>>;

const Metadata = z.object({ name: z.string(), labels: Text, annotations: Text });

const Configuration = z.object({
  metadata: Metadata,
  webhooks: z.array(Webhook).optional(),
});

/** A release of this project's chart. */
export interface Installation extends Release {
  /** Of the MutatingWebhookConfiguration, the Deployment, the Service. */
  readonly name: string;
  readonly webhook: Webhook;
  /** Its place in the configuration. */
  readonly index: number;
  /** The chart's value tls.mode. */
  readonly tlsMode: string;
  /** As the chart's labels say. */
  readonly version: string | undefined;
  /** Name of the refresher's ServiceAccount. */
  readonly refresher: string;
  /** Name of the Secret that the refresher's tokens are bound to. */
  readonly tokenSecret: string;
}

export interface Found {
  /** Absent where the chart is not installed, or its MutatingWebhookConfiguration is gone. */
  readonly installation?: Installation;
  /** Of this project's chart, by whatever there is of it. */
  readonly release?: Release;
  /** Names of the MutatingWebhookConfigurations of CentML/ecr-anywhere. */
  readonly originals: readonly string[];
}

/** Looks for the chart. @throws CliError where the operator may not */
export async function findInstallation(kubernetes: Kubernetes): Promise<Found> {
  const items = await kubernetes.list(CONFIGURATIONS);
  const configurations = items.map((item) => Configuration.parse(item));
  const withWebhook = (wanted: string) =>
    configurations.flatMap(({ metadata, webhooks = [] }) =>
      webhooks.flatMap((webhook, index) => (webhook.name === wanted ? [{ metadata, webhook, index }] : [])),
    );
  const [ours] = withWebhook(WEBHOOK_NAME);
  const originals = withWebhook(ORIGINAL_WEBHOOK_NAME).map(({ metadata }) => metadata.name);
  if (!ours) {
    const release = await remainingRelease(kubernetes);
    return { originals, ...(release && { release }) };
  }
  const { metadata, webhook, index } = ours;
  const { name, labels = {}, annotations = {} } = metadata;
  const { release = labels['app.kubernetes.io/instance'] ?? name, namespace } = releaseOf(metadata);
  const installation = {
    ...{ name, webhook, index, release },
    namespace: webhook.clientConfig.service?.namespace ?? namespace ?? '',
    tlsMode: annotations[TLS_MODE] ?? 'self',
    version: labels['app.kubernetes.io/version'],
    refresher: `${name}-refresher`,
    tokenSecret: `${name}-refresher-token`,
  };
  return { installation, release: installation, originals };
}

/** A release whose MutatingWebhookConfiguration is gone, by the policies that it has left. */
async function remainingRelease(kubernetes: Kubernetes): Promise<Release | undefined> {
  const query = { labelSelector: 'app.kubernetes.io/name=ecr-anywhere' };
  const [policy] = await kubernetes
    .list(POLICIES, { query, metadataOnly: 'PartialObjectMetadataList' })
    .catch((error: unknown) => {
      // Kubernetes before 1.30 has none.
      if (error instanceof ApiError && error.status === 404) return [];
      throw error;
    });
  if (!policy) return undefined;
  const { release, namespace } = releaseOf(z.object({ metadata: Metadata }).parse(policy).metadata);
  return release === undefined || namespace === undefined ? undefined : { release, namespace };
}

/** As helm notes it on whatever it makes. */
function releaseOf({ annotations = {} }: z.infer<typeof Metadata>): Partial<Release> {
  const { 'meta.helm.sh/release-name': release, 'meta.helm.sh/release-namespace': namespace } = annotations;
  return { ...(release !== undefined && { release }), ...(namespace !== undefined && { namespace }) };
}

/**
 * What narrows the webhook's configuration and is not the chart's, as JSON Pointers, the last first: helm upgrade leaves
 * alone what somebody else has added to maps and to lists of named things.
 */
export function unexpectedNarrowing({ webhook, index }: Installation): string[] {
  const at = `/webhooks/${index}`;
  const { matchConditions = [], namespaceSelector = {}, objectSelector = {} } = webhook;
  return [
    ...unknownConditions(matchConditions, 'is-managed-or-by-refresher').map((path) => `${at}${path}`),
    ...Object.keys(namespaceSelector.matchLabels ?? {}).map(
      (key) => `${at}/namespaceSelector/matchLabels/${escaped(key)}`,
    ),
    ...Object.keys(objectSelector.matchLabels ?? {})
      .filter((key) => key !== SECRET_LABEL.key)
      .map((key) => `${at}/objectSelector/matchLabels/${escaped(key)}`),
    ...(objectSelector.matchExpressions?.length ? [`${at}/objectSelector/matchExpressions`] : []),
  ];
}

/** Pointers to the conditions that have another name, the last first. */
function unknownConditions(conditions: readonly { readonly name: string }[], known: string): string[] {
  return conditions
    .flatMap(({ name }, place) => (name === known ? [] : [`/matchConditions/${place}`]))
    .toReversed();
}

/** A part of a JSON Pointer (RFC 6901, section 3). */
function escaped(key: string): string {
  return key.replaceAll('~', '~0').replaceAll('/', '~1');
}

/** The username of the release's refresher. */
export function refresherUsername({ namespace, refresher }: Installation): string {
  return `system:serviceaccount:${namespace}:${refresher}`;
}

/** The policies of the fence around the refresher (docs/security.md). */
export function writePolicyNames({ refresher, tokenSecret }: Installation): string[] {
  return [`${refresher}-update`, `${refresher}-create-delete`, tokenSecret];
}

const Policy = z.object({
  metadata: z.object({ name: z.string() }),
  spec: z.object({ failurePolicy: z.string().optional(), matchConditions: MatchConditions }),
});

const Binding = z.object({
  metadata: z.object({ name: z.string() }),
  spec: z.object({
    policyName: z.string(),
    validationActions: z.array(z.string()).optional(),
    matchResources: z.unknown().optional(),
  }),
});

/** What of the fence is not in force. */
export interface Gap {
  /** A phrase. */
  readonly says: string;
  /** What has been added to an object, where helm upgrade would leave that alone. */
  readonly added?: { readonly kind: string; readonly name: string; readonly paths: readonly string[] };
}

/** What of the fence is not in force; empty where all is. @throws CliError */
export async function writePolicyGaps(kubernetes: Kubernetes, installation: Installation): Promise<Gap[]> {
  const [policies, bindings] = await Promise.all([kubernetes.list(POLICIES), kubernetes.list(BINDINGS)]);
  const present = policies.map((policy) => Policy.parse(policy));
  const bound = bindings.map((binding) => Binding.parse(binding));
  return writePolicyNames(installation).flatMap((name) => {
    const policy = present.find(({ metadata }) => metadata.name === name);
    if (!policy) return [{ says: `ValidatingAdmissionPolicy ${name} is not there` }];
    const { failurePolicy = 'Fail', matchConditions = [] } = policy.spec;
    const paths = unknownConditions(matchConditions, 'is-refresher').map((path) => `/spec${path}`);
    return [
      ...(failurePolicy === 'Fail'
        ? []
        : [{ says: `ValidatingAdmissionPolicy ${name} has failurePolicy ${failurePolicy}` }]),
      ...(paths.length === 0
        ? []
        : [
            {
              says: `ValidatingAdmissionPolicy ${name} is narrowed (matchConditions)`,
              added: { kind: 'validatingadmissionpolicy', name, paths },
            },
          ]),
      ...gapOfBindings(
        name,
        bound.filter(({ spec }) => spec.policyName === name),
      ),
    ];
  });
}

/** One that denies, everywhere, is enough. */
function gapOfBindings(policy: string, bindings: readonly z.infer<typeof Binding>[]): Gap[] {
  const [first] = bindings;
  if (!first) return [{ says: `ValidatingAdmissionPolicyBinding ${policy} is not there` }];
  const denying = bindings.filter(({ spec }) => spec.validationActions?.includes('Deny'));
  if (denying.some(({ spec }) => spec.matchResources === undefined)) return [];
  const [narrowed] = denying;
  if (!narrowed) return [{ says: `ValidatingAdmissionPolicyBinding ${first.metadata.name} does not deny` }];
  const { name } = narrowed.metadata;
  return [
    {
      says: `ValidatingAdmissionPolicyBinding ${name} is narrowed (matchResources)`,
      added: { kind: 'validatingadmissionpolicybinding', name, paths: ['/spec/matchResources'] },
    },
  ];
}

/** The same, a phrase each. @throws CliError */
export async function writePolicyProblems(
  kubernetes: Kubernetes,
  installation: Installation,
): Promise<string[]> {
  return (await writePolicyGaps(kubernetes, installation)).map(({ says }) => says);
}

/** What the cluster is known by, whatever its name: the UID of Namespace kube-system. @throws CliError */
export async function clusterUidOf(kubernetes: Kubernetes): Promise<string> {
  const { body } = await kubernetes.get('/api/v1/namespaces/kube-system');
  return z.object({ metadata: z.object({ uid: z.string() }) }).parse(body).metadata.uid;
}

// Finds the objects of the chart in a cluster, by the webhook's name and not by the release's.

import { z } from 'zod';
import { SECRET_LABEL, WEBHOOK_NAME } from '../../contract/names.ts';
import type { Release } from '../output/options.ts';
import { ApiError, type Kubernetes } from './client.ts';

/** The webhook of CentML/ecr-anywhere, in its chart's MutatingWebhookConfiguration. */
const ORIGINAL_WEBHOOK_NAME = 'ecr-anywhere.centml.ai';
/** Annotation that the chart sets on the refresher's ServiceAccount: the longest lifetime of its tokens, in seconds. */
export const TOKEN_MAX_SECONDS = 'ecr-anywhere.centml.ai/token-max-seconds';

/** Annotation that the chart sets on the MutatingWebhookConfiguration. */
const TLS_MODE = 'ecr-anywhere.centml.ai/tls-mode';
/** Annotation beside it: what limits the callers that the webhook answers. */
const CALLERS = 'ecr-anywhere.centml.ai/callers';

/** The path of the API group of webhook configurations and policies. */
export const REGISTRATION = '/apis/admissionregistration.k8s.io/v1';
const CONFIGURATIONS = `${REGISTRATION}/mutatingwebhookconfigurations`;
const POLICIES = `${REGISTRATION}/validatingadmissionpolicies`;
const BINDINGS = `${REGISTRATION}/validatingadmissionpolicybindings`;

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
  /** Name of the MutatingWebhookConfiguration, the Deployment and the Service. */
  readonly name: string;
  readonly webhook: Webhook;
  /** Index of the webhook in the configuration. */
  readonly index: number;
  /** The chart's value tls.mode. */
  readonly tlsMode: string;
  /** What limits the webhook's callers, such as `caller-proof`; `any`: nothing. Undefined for an earlier chart. */
  readonly callers: string | undefined;
  /** The chart's version, from its label. */
  readonly version: string | undefined;
  /** Name of the refresher's ServiceAccount. */
  readonly refresher: string;
  /** Name of the Secret that the refresher's tokens are bound to. */
  readonly tokenSecret: string;
}

export interface Found {
  /** Absent if the chart is not installed, or its MutatingWebhookConfiguration does not exist. */
  readonly installation?: Installation;
  /** The release of this project's chart, found by any of its objects. */
  readonly release?: Release;
  /** Names of the MutatingWebhookConfigurations of CentML/ecr-anywhere. */
  readonly originals: readonly string[];
}

/**
 * The release name to propose for the chart. The API server calls webhooks by the order of their configurations' names, and
 * the webhook denies a refresh to which CentML/ecr-anywhere has added credentials before. The name is another one, too: Helm
 * would treat a release of the same name as an upgrade of CentML's chart.
 */
export function proposedRelease({ originals }: Found): string {
  return originals.length > 0 ? 'aws-ecr-anywhere' : 'ecr-anywhere';
}

/** Finds the chart. @throws CliError if the operator may not list its objects */
export async function findInstallation(kubernetes: Kubernetes): Promise<Found> {
  const items = await kubernetes.list(CONFIGURATIONS);
  const configurations = items.map((item) => Configuration.parse(item));
  const withWebhook = (webhookName: string) =>
    configurations.flatMap(({ metadata, webhooks = [] }) =>
      webhooks.flatMap((webhook, index) =>
        webhook.name === webhookName ? [{ metadata, webhook, index }] : [],
      ),
    );
  const [own] = withWebhook(WEBHOOK_NAME);
  const originals = withWebhook(ORIGINAL_WEBHOOK_NAME).map(({ metadata }) => metadata.name);
  if (!own) {
    const release = await remainingRelease(kubernetes);
    return { originals, ...(release && { release }) };
  }
  const { metadata, webhook, index } = own;
  const { name, labels = {}, annotations = {} } = metadata;
  const { release = labels['app.kubernetes.io/instance'] ?? name, namespace } = releaseOf(metadata);
  const installation = {
    name,
    webhook,
    index,
    release,
    namespace: webhook.clientConfig.service?.namespace ?? namespace ?? '',
    tlsMode: annotations[TLS_MODE] ?? 'self',
    callers: annotations[CALLERS],
    version: labels['app.kubernetes.io/version'],
    refresher: `${name}-refresher`,
    tokenSecret: `${name}-refresher-token`,
  };
  return { installation, release: installation, originals };
}

/** Finds a release whose MutatingWebhookConfiguration does not exist, by its policies. */
async function remainingRelease(kubernetes: Kubernetes): Promise<Release | undefined> {
  const query = { labelSelector: 'app.kubernetes.io/part-of=ecr-anywhere' };
  const [policy] = await kubernetes
    .list(POLICIES, { query, metadataOnly: 'PartialObjectMetadataList' })
    .catch((error: unknown) => {
      // Kubernetes before 1.30 has no ValidatingAdmissionPolicies.
      if (error instanceof ApiError && error.status === 404) return [];
      throw error;
    });
  if (!policy) return undefined;
  const { release, namespace } = releaseOf(z.object({ metadata: Metadata }).parse(policy).metadata);
  return release === undefined || namespace === undefined ? undefined : { release, namespace };
}

/** Reads the release from the annotations that Helm sets on every object it creates. */
function releaseOf({ annotations = {} }: z.infer<typeof Metadata>): Partial<Release> {
  const { 'meta.helm.sh/release-name': release, 'meta.helm.sh/release-namespace': namespace } = annotations;
  return { ...(release !== undefined && { release }), ...(namespace !== undefined && { namespace }) };
}

/**
 * Parts of the webhook's configuration that limit which requests reach the webhook, and that the chart did not set. As
 * JSON Pointers, the last first, so that each can be removed in turn. helm upgrade keeps fields that other managers added.
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

/** JSON Pointers to the conditions that have another name, the last first. */
function unknownConditions(conditions: readonly { readonly name: string }[], known: string): string[] {
  return conditions
    .flatMap(({ name }, index) => (name === known ? [] : [`/matchConditions/${index}`]))
    .toReversed();
}

/** Escapes a part of a JSON Pointer (RFC 6901, section 3). */
function escaped(key: string): string {
  return key.replaceAll('~', '~0').replaceAll('/', '~1');
}

/** The username of the release's refresher. */
export function refresherUsername({ namespace, refresher }: Installation): string {
  return `system:serviceaccount:${namespace}:${refresher}`;
}

/** The names of the policies of the write policy, and of their bindings (docs/security.md). */
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

/** A part of the write policy that the API server does not enforce. */
export interface Gap {
  /** A clause without a full stop. */
  readonly problem: string;
  /** Fields that another manager added to an object. helm upgrade would keep them. */
  readonly added?: { readonly kind: string; readonly name: string; readonly paths: readonly string[] };
}

/** Finds the parts of the write policy that the API server does not enforce. Empty if it enforces all. @throws CliError */
export async function writePolicyGaps(kubernetes: Kubernetes, installation: Installation): Promise<Gap[]> {
  const [policies, bindings] = await Promise.all([kubernetes.list(POLICIES), kubernetes.list(BINDINGS)]);
  const present = policies.map((policy) => Policy.parse(policy));
  const bound = bindings.map((binding) => Binding.parse(binding));
  return writePolicyNames(installation).flatMap((name) => {
    const policy = present.find(({ metadata }) => metadata.name === name);
    if (!policy) return [{ problem: `ValidatingAdmissionPolicy ${name} does not exist` }];
    const { failurePolicy = 'Fail', matchConditions = [] } = policy.spec;
    const paths = unknownConditions(matchConditions, 'is-refresher').map((path) => `/spec${path}`);
    const gaps: Gap[] = [];
    if (failurePolicy !== 'Fail')
      gaps.push({ problem: `ValidatingAdmissionPolicy ${name} has failurePolicy ${failurePolicy}` });
    if (paths.length > 0)
      gaps.push({
        problem: `ValidatingAdmissionPolicy ${name} has match conditions that the chart did not set`,
        added: { kind: 'validatingadmissionpolicy', name, paths },
      });
    const ofPolicy = bound.filter(({ spec }) => spec.policyName === name);
    return [...gaps, ...bindingGaps(name, ofPolicy)];
  });
}

/** One binding that denies everywhere is enough. */
function bindingGaps(policy: string, bindings: readonly z.infer<typeof Binding>[]): Gap[] {
  const [first] = bindings;
  if (!first) return [{ problem: `ValidatingAdmissionPolicyBinding ${policy} does not exist` }];
  const denying = bindings.filter(({ spec }) => spec.validationActions?.includes('Deny'));
  if (denying.some(({ spec }) => spec.matchResources === undefined)) return [];
  const [narrowed] = denying;
  if (!narrowed)
    return [
      { problem: `ValidatingAdmissionPolicyBinding ${first.metadata.name} has no validation action Deny` },
    ];
  const { name } = narrowed.metadata;
  return [
    {
      problem: `ValidatingAdmissionPolicyBinding ${name} has match resources that the chart did not set`,
      added: { kind: 'validatingadmissionpolicybinding', name, paths: ['/spec/matchResources'] },
    },
  ];
}

/** Identifies the cluster, under any name, by the UID of Namespace kube-system. @throws CliError */
export async function clusterUidOf(kubernetes: Kubernetes): Promise<string> {
  const { body } = await kubernetes.get('/api/v1/namespaces/kube-system');
  return z.object({ metadata: z.object({ uid: z.string() }) }).parse(body).metadata.uid;
}

// What the chart has put into a cluster, found by the webhook's name and not by the release's.
import { z } from 'zod';
import { WEBHOOK_NAME } from '../contract/names.ts';
import type { Kubernetes } from './kubernetes.ts';

/** The webhook of CentML/ecr-anywhere, in the MutatingWebhookConfiguration that its chart makes. */
const ORIGINAL_WEBHOOK_NAME = 'ecr-anywhere.centml.ai';
/** On the refresher's ServiceAccount, by the chart: how long its tokens may live, in seconds. */
export const TOKEN_MAX_SECONDS = 'ecr-anywhere.centml.ai/token-max-seconds';

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

const Webhook = z.object({
  name: z.string(),
  clientConfig: z.object({
    caBundle: z.string().optional(),
    url: z.string().optional(),
    service: z
      .object({
        name: z.string(),
        namespace: z.string(),
        path: z.string().optional(),
        port: z.number().optional(),
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
  timeoutSeconds: z.number().optional(),
});
export type Webhook = Readonly<z.infer<typeof Webhook>>;

const Configuration = z.object({
  metadata: z.object({ name: z.string(), labels: Text, annotations: Text }),
  webhooks: z.array(Webhook).optional(),
});

/** A release of this project's chart. */
export interface Installation {
  /** Of the MutatingWebhookConfiguration, the Deployment, the Service. */
  readonly name: string;
  readonly release: string;
  readonly namespace: string;
  readonly webhook: Webhook;
  /** As the chart's labels say. */
  readonly version: string | undefined;
  /** Name of the refresher's ServiceAccount. */
  readonly refresher: string;
  /** Name of the Secret that the refresher's tokens are bound to. */
  readonly tokenSecret: string;
}

export interface Found {
  /** Absent where the chart is not installed. */
  readonly installation?: Installation;
  /** Names of the MutatingWebhookConfigurations of CentML/ecr-anywhere. */
  readonly originals: readonly string[];
}

/** Looks for the chart. @throws CliError where the operator may not */
export async function findInstallation(kubernetes: Kubernetes): Promise<Found> {
  const items = await kubernetes.list(CONFIGURATIONS);
  const configurations = items.map((item) => Configuration.parse(item));
  const withWebhook = (wanted: string) =>
    configurations.flatMap(({ metadata, webhooks = [] }) => {
      const webhook = webhooks.find(({ name }) => name === wanted);
      return webhook ? [{ metadata, webhook }] : [];
    });
  const [ours] = withWebhook(WEBHOOK_NAME);
  const originals = withWebhook(ORIGINAL_WEBHOOK_NAME).map(({ metadata }) => metadata.name);
  if (!ours) return { originals };
  const { name, labels = {} } = ours.metadata;
  const installation = {
    name,
    release: labels['app.kubernetes.io/instance'] ?? name,
    namespace: ours.webhook.clientConfig.service?.namespace ?? '',
    webhook: ours.webhook,
    version: labels['app.kubernetes.io/version'],
    refresher: `${name}-refresher`,
    tokenSecret: `${name}-refresher-token`,
  };
  return { installation, originals };
}

/** The username of the release's refresher. */
export function refresherUsername({ namespace, refresher }: Installation): string {
  return `system:serviceaccount:${namespace}:${refresher}`;
}

/** The policies of the fence around the refresher (docs/security.md). */
export function policiesOf({ refresher, tokenSecret }: Installation): string[] {
  return [`${refresher}-update`, `${refresher}-create-delete`, tokenSecret];
}

const Binding = z.object({
  metadata: z.object({ name: z.string() }),
  spec: z.object({
    policyName: z.string(),
    validationActions: z.array(z.string()).optional(),
    matchResources: z.unknown().optional(),
  }),
});

/** What of the fence is not in force, a phrase each; empty where all is. @throws CliError */
export async function brokenFence(kubernetes: Kubernetes, installation: Installation): Promise<string[]> {
  const [policies, bindings] = await Promise.all([kubernetes.list(POLICIES), kubernetes.list(BINDINGS)]);
  const names = new Set(
    policies.map(
      (policy) => z.object({ metadata: z.object({ name: z.string() }) }).parse(policy).metadata.name,
    ),
  );
  const bound = bindings.map((binding) => Binding.parse(binding));
  return policiesOf(installation).flatMap((name) => {
    if (!names.has(name)) return [`ValidatingAdmissionPolicy ${name} is not there`];
    const binding = bound.find(({ spec }) => spec.policyName === name);
    if (!binding) return [`ValidatingAdmissionPolicyBinding ${name} is not there`];
    const { validationActions = [], matchResources } = binding.spec;
    if (!validationActions.includes('Deny'))
      return [`ValidatingAdmissionPolicyBinding ${binding.metadata.name} does not deny`];
    if (matchResources !== undefined)
      return [`ValidatingAdmissionPolicyBinding ${binding.metadata.name} is narrowed (matchResources)`];
    return [];
  });
}

/** What the cluster is known by, whatever its name: the UID of Namespace kube-system. @throws CliError */
export async function clusterUidOf(kubernetes: Kubernetes): Promise<string> {
  const { body } = await kubernetes.get('/api/v1/namespaces/kube-system');
  return z.object({ metadata: z.object({ uid: z.string() }) }).parse(body).metadata.uid;
}

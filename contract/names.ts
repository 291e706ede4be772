// Names that the webhook, the refresher, the chart and the CDK app must share: labels, annotations, tags, ports, prefixes.
// The labels and the first three annotations are those of CentML/ecr-anywhere, so that its users need not relabel.

import { DEFAULT_STACK_NAME } from './keyless.ts';

/** The domain of all labels, annotations and tags. */
export const DOMAIN = 'ecr-anywhere.centml.ai';

/** On a Namespace: the webhook and the refresher handle its managed Secrets. */
export const NAMESPACE_LABEL = { key: `${DOMAIN}/namespace`, value: 'enabled' } as const;

/** On a Secret: the webhook writes its credentials, and the refresher keeps them fresh. */
export const SECRET_LABEL = { key: `${DOMAIN}/managed`, value: 'true' } as const;

/** AWS tags, of a registered cluster's secret or of an EKS cluster. */
export const TAG = {
  /** On an EKS cluster in a discovery target, `managedTagValue`: the refresher refreshes it without a registration. */
  managed: `${DOMAIN}/managed`,
  /** `true`: the refresher sends the cluster no requests until the tag is removed. */
  paused: `${DOMAIN}/paused`,
  /** `true` on a registered cluster's secret: `register` has not completed, so no run uses it. */
  registering: `${DOMAIN}/registering`,
  /** On a registered cluster's secret: the kubeconfig's context to use instead of the current one. */
  context: `${DOMAIN}/context`,
  /** UID of the cluster's kube-system Namespace, by which the command line detects duplicate registrations. */
  clusterUid: `${DOMAIN}/cluster-uid`,
} as const;

/** Annotations on a managed Secret. Times are RFC 3339. */
export const ANNOTATION = {
  /** A refresh request; by the requester's clock. */
  requestedAt: `${DOMAIN}/marked_for_update_at`,
  /** Part of a refresh request: if equal to its `requestedAt`, the webhook must not use a cached token. */
  force: `${DOMAIN}/force`,
  /** When the webhook last wrote credentials; by the webhook's clock. */
  updatedAt: `${DOMAIN}/updated_at`,
  /** The soonest expiry among the owned entries; by ECR's clock. */
  expiresAt: `${DOMAIN}/expires_at`,
  /** Registry hosts, comma-separated: selects from the registries that the namespace is entitled to. */
  only: `${DOMAIN}/only`,
  /** The registries of the owned entries, as host=expiry or host=expiry=role, comma-separated and sorted. */
  registries: `${DOMAIN}/registries`,
  /** The contract version, a dot, and a short hash of the owned entries, by which the webhook detects changed ones. */
  fingerprint: `${DOMAIN}/fingerprint`,
} as const;

/**
 * The proof that a review comes through the API server. A policy adds it on the way to the webhook, which removes it; it is
 * never stored.
 */
export const PROOF_ANNOTATION = `${DOMAIN}/caller-proof`;

/** The annotations of a refresh request. */
export const REQUEST_ANNOTATIONS: readonly string[] = [ANNOTATION.requestedAt, ANNOTATION.force];

/** The annotations that only the webhook writes. */
export const WEBHOOK_ANNOTATIONS: readonly string[] = [
  ANNOTATION.updatedAt,
  ANNOTATION.expiresAt,
  ANNOTATION.registries,
  ANNOTATION.fingerprint,
];

/** The only Secret type that the webhook accepts, and the key of its docker config. */
export const SECRET_TYPE = 'kubernetes.io/dockerconfigjson';
export const SECRET_KEY = '.dockerconfigjson';

/** Namespaces that the webhook and the refresher ignore, whatever their labels. */
export const EXCLUDED_NAMESPACES: readonly string[] = ['kube-system', 'kube-public'];

/** The Kubernetes group of the refresher's identities. */
export const REFRESHER_GROUP = 'ecr-anywhere:refreshers';

/** The refresher's name in managedFields. The write policy and the webhook require it where another mutator changes a Secret. */
export const REFRESHER_FIELD_MANAGER = 'ecr-anywhere-refresher';

/** The refresher's name in managedFields for the Secrets that it creates: not that of its refresh requests, which own nothing else. */
export const PROVISION_FIELD_MANAGER = 'ecr-anywhere-provision';

/** The refresher as the controller of its Events on managed Secrets, and the action that they report. */
export const EVENT_REPORTER = `${DOMAIN}/refresher`;
export const EVENT_ACTION = 'Refresh';

/** The webhook's name in its configuration, and the path and port of its endpoint. */
export const WEBHOOK_NAME = `sync.${DOMAIN}`;
export const WEBHOOK_PATH = '/sync';
export const WEBHOOK_PORT = 8443;

/** Prefix of the registered clusters' secrets in Secrets Manager, each with a kubeconfig as its value: of the default stack. */
export const CLUSTERS_PREFIX = 'ecr-anywhere/clusters/';

/** The prefix of a stack without the setting `secretPrefix`. Each stack has its own, so that none serves another's clusters. */
export function clustersPrefix(stackName: string): string {
  return stackName === DEFAULT_STACK_NAME ? CLUSTERS_PREFIX : `ecr-anywhere-${stackName}/clusters/`;
}

/** The environment variable of the function with its prefix; absent if it is that of the default stack. */
export const SECRET_PREFIX_VARIABLE = 'SECRET_PREFIX';

/** The value of the tag `managed` of the EKS clusters that a stack serves: `true` for the clusters of the default stack. */
export function managedTagValue(stackName: string, secretPrefix: string): string {
  return stackName === DEFAULT_STACK_NAME || secretPrefix === CLUSTERS_PREFIX ? 'true' : stackName;
}

/**
 * The staging label of the version of a registered secret that `register` has stored and not yet verified. Runs read the
 * version with the label AWSCURRENT.
 */
export const REGISTERING_STAGE = 'ecr-anywhere-registering';

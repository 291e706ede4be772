// The words that the webhook, the refresher, the chart and the CDK app must agree on.
// The labels and the first three annotations are CentML/ecr-anywhere's own, so that its users need not relabel.

const DOMAIN = 'ecr-anywhere.centml.ai';

/** On a Namespace: its managed Secrets are served. */
export const NAMESPACE_LABEL = { key: `${DOMAIN}/namespace`, value: 'enabled' } as const;

/** On a Secret: its credentials are ours to keep fresh. */
export const SECRET_LABEL = { key: `${DOMAIN}/managed`, value: 'true' } as const;

/** AWS tags: of a registered cluster's secret, or of an EKS cluster. */
export const TAG = {
  /** `true` on an EKS cluster: it is refreshed without being registered, where the CDK setting eksDiscovery looks. */
  managed: `${DOMAIN}/managed`,
  /** `true`: nothing is asked of the cluster until the tag is gone. */
  paused: `${DOMAIN}/paused`,
  /** On a registered cluster's secret: the kubeconfig's context to use, in place of the current one. */
  context: `${DOMAIN}/context`,
  /** UID of the cluster's kube-system Namespace, by which the command line tells that two names are one cluster. */
  clusterUid: `${DOMAIN}/cluster-uid`,
} as const;

/** Annotations on a managed Secret. Times are RFC 3339. */
export const ANNOTATION = {
  /** A refresh is requested; the requester's clock. */
  requestedAt: `${DOMAIN}/marked_for_update_at`,
  /** Part of a request: equal to its `requestedAt`, it asks for a token that is not from the cache. */
  force: `${DOMAIN}/force`,
  /** Credentials were written; the webhook's clock. */
  updatedAt: `${DOMAIN}/updated_at`,
  /** The soonest expiry among our entries; ECR's clock. */
  expiresAt: `${DOMAIN}/expires_at`,
  /** Registry hosts, comma-separated: of those that the namespace is entitled to, the Secret gets no others. */
  only: `${DOMAIN}/only`,
  /** The registries that are ours to serve, as host=expiry or host=expiry=role, comma-separated and sorted. */
  registries: `${DOMAIN}/registries`,
  /** The contract's number, a dot, and a short hash of our entries, so that foreign data cannot pass for ours. */
  fingerprint: `${DOMAIN}/fingerprint`,
} as const;

/** What a requester may set. */
export const REQUEST_ANNOTATIONS: readonly string[] = [ANNOTATION.requestedAt, ANNOTATION.force];

/** What only the webhook writes. */
export const WEBHOOK_ANNOTATIONS: readonly string[] = [
  ANNOTATION.updatedAt,
  ANNOTATION.expiresAt,
  ANNOTATION.registries,
  ANNOTATION.fingerprint,
];

/** The only Secret type that is served, and the key it keeps its document under. */
export const SECRET_TYPE = 'kubernetes.io/dockerconfigjson';
export const SECRET_KEY = '.dockerconfigjson';

/** Never touched, whatever their labels. */
export const EXCLUDED_NAMESPACES: readonly string[] = ['kube-system', 'kube-public'];

/** The Kubernetes group of the refresher's identities. */
export const REFRESHER_GROUP = 'ecr-anywhere:refreshers';

/** Where the API server sends its AdmissionReviews, and the name of the webhook in its configuration. */
export const WEBHOOK_NAME = `sync.${DOMAIN}`;
export const WEBHOOK_PATH = '/sync';
export const WEBHOOK_PORT = 8443;

/** Every secret in Secrets Manager whose name begins so is a registered cluster; its value is a kubeconfig. */
export const CLUSTERS_PREFIX = 'ecr-anywhere/clusters/';

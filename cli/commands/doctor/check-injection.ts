// The checks of the webhook itself: creates a managed Secret as a dry run, so that nothing is stored, and reads from the
// response whether the API server called the webhook, and what the webhook did.
import pMap from 'p-map';
import { z } from 'zod';
import { type DenialCause, TOKEN_FAILURES } from '../../../contract/denials.ts';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE, WEBHOOK_NAME } from '../../../contract/names.ts';
import { CONTRACT_VERSION, credentialsWriter } from '../../../contract/version.ts';
import { unexpectedNarrowing } from '../../kubernetes/chart.ts';
import { ApiError, type Kubernetes } from '../../kubernetes/client.ts';
import { formatList } from '../../output/format-list.ts';
import { type FailureCode, type Finding, failed, passed, type Remedy, skipped } from './checks.ts';
import { type Cluster, Metadata } from './observe.ts';

/** How many of the enabled namespaces doctor tries a Secret in. */
const MAX_NAMESPACES = 20;
const CONCURRENCY = 4;

/** The checks that the attempts decide. */
export const ATTEMPTED = ['webhook', 'injection', 'ecr'] as const;

/** A request that the API server or the webhook refused. */
export interface Refusal {
  readonly namespace: string;
  /** The sentence of the API server, which contains the webhook's. */
  readonly message: string;
  readonly causes: readonly DenialCause[];
}
export interface Accepted {
  readonly namespace: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Tries a Secret in the enabled namespaces, and judges the responses. */
export async function checkInjection(cluster: Cluster, enabled: readonly string[]): Promise<Finding[]> {
  // The same request time in all namespaces: the webhook gets one new token for each AWS identity. Tokens of its cache
  // would hide a failure of ECR.
  const requestedAt = new Date().toISOString();
  const responses = await pMap(
    enabled.slice(0, MAX_NAMESPACES),
    (namespace) => trySecret(cluster.kubernetes, namespace, requestedAt),
    { concurrency: CONCURRENCY },
  );
  const isUnreachable = responses.some((one) => 'causes' in one && callFailure(one.message) !== undefined);
  return judgeResponses(responses, cluster, isUnreachable ? await deploymentOf(cluster) : undefined);
}

async function trySecret(
  kubernetes: Kubernetes,
  namespace: string,
  requestedAt: string,
): Promise<Refusal | Accepted> {
  try {
    const { body } = await kubernetes.post(`/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets`, {
      query: { dryRun: 'All' },
      metadataOnly: 'PartialObjectMetadata',
      body: {
        apiVersion: 'v1',
        kind: 'Secret',
        type: SECRET_TYPE,
        metadata: {
          name: 'ecr-anywhere-doctor',
          labels: { [SECRET_LABEL.key]: SECRET_LABEL.value },
          annotations: { [ANNOTATION.requestedAt]: requestedAt, [ANNOTATION.force]: requestedAt },
        },
        // The API server requires it. The webhook would add it, but may not be called.
        data: { [SECRET_KEY]: Buffer.from('{"auths":{}}').toString('base64') },
      },
    });
    return { namespace, annotations: Metadata.parse(body).metadata.annotations ?? {} };
  } catch (error) {
    if (error instanceof ApiError) return { namespace, message: error.serverMessage, causes: error.causes };
    throw error;
  }
}

/** The webhook's Deployment; `unknown` if the operator may not see it. */
export type Deployment = 'unknown' | 'missing' | { readonly replicas: number; readonly ready: number };

const DeploymentObject = z.object({
  spec: z.object({ replicas: z.number().optional() }),
  status: z.object({ readyReplicas: z.number().optional() }).optional(),
});

async function deploymentOf({ kubernetes, installation, commands }: Cluster): Promise<Deployment> {
  const { namespace } = commands.release;
  const path = `/apis/apps/v1/namespaces/${encodeURIComponent(namespace)}/deployments/${encodeURIComponent(nameOf(installation))}`;
  try {
    const found = await kubernetes.find(path);
    if (found === undefined) return 'missing';
    const { spec, status } = DeploymentObject.parse(found);
    return { replicas: spec.replicas ?? 1, ready: status?.readyReplicas ?? 0 };
  } catch (error) {
    if (error instanceof ApiError) return 'unknown';
    throw error;
  }
}

type Judged = Pick<Cluster, 'installation' | 'commands'>;

/** Judges the responses to the attempts. Pure. @param deployment if the API server could not call the webhook */
export function judgeResponses(
  responses: readonly (Refusal | Accepted)[],
  cluster: Judged,
  deployment: Deployment = 'unknown',
): Finding[] {
  const skipAll = (message: string) => ATTEMPTED.map((check) => skipped(check, message));
  if (responses.length === 0) return skipAll('no namespace is enabled in which a Secret could be tried');
  const answers = responses.map((one): Refusal | Accepted =>
    isNotSent(one, cluster) ? { namespace: one.namespace, annotations: {} } : one,
  );
  const accepted = answers.filter((response) => 'annotations' in response);
  const refusals = answers.filter((response) => 'causes' in response);
  const byWebhook = refusals.filter(isAboutWebhook);
  const [other] = refusals;
  // Another admission plugin, a quota, or the operator's own permissions: that says nothing about the webhook.
  if (other && accepted.length === 0 && byWebhook.length === 0)
    return skipAll(`a Secret could not be tried in ${other.namespace}: ${other.message}`);

  const failures = byWebhook.map((refusal) => failureOf(refusal, cluster, deployment));
  const contracts = accepted.flatMap(({ annotations }) => contractOf(annotations) ?? []);
  const hasWritten = contracts.length > 0;
  const hasAnswered = hasWritten || failures.some(({ check }) => check !== 'webhook');
  const isCalled = hasWritten || failures.some(({ check }) => check === 'ecr');
  return [
    ...failures,
    ...notCalled(accepted, cluster),
    ...otherContract(contracts, cluster),
    ...(hasAnswered ? [passed('webhook', 'the API server trusts it, and gets answers')] : []),
    ...(isCalled
      ? [passed('injection', `the API server calls the webhook (contract ${CONTRACT_VERSION})`)]
      : []),
    ...(hasWritten ? [passed('ecr', 'the webhook would write new credentials (dry run)')] : []),
    ...skipAll('the API server did not call the webhook'),
  ];
}

/** The contract of the webhook that wrote the credentials; undefined if none did, or that of CentML/ecr-anywhere. */
function contractOf(annotations: Accepted['annotations']): number | undefined {
  const by = credentialsWriter(annotations);
  return by.writer === 'ours' ? by.contract : undefined;
}

/**
 * Why the API server could not call the webhook. It gives no code for that, so this is read from its message, which
 * contains the error of Go's HTTP client (k8s.io/apiserver, admission/plugin/webhook/errors; crypto/x509).
 *
 * @returns undefined if it did call the webhook, or the message is about another webhook
 */
export function callFailure(message: string): FailureCode | undefined {
  if (!message.includes(`failed calling webhook "${WEBHOOK_NAME}"`)) return undefined;
  // Of an empty caBundle, of one that is not PEM, and of that of another authority.
  if (/signed by unknown authority|unable to load root certificates/.test(message))
    return 'ca-bundle-mismatch';
  if (/x509|tls:/.test(message)) return 'certificate-invalid';
  if (/deadline exceeded|timeout|no route/i.test(message)) return 'webhook-timeout';
  return 'webhook-unreachable';
}

/** Whether the policy of the caller proof refused a Secret, because the API server had not sent it to the webhook. */
function isNotSent(response: Refusal | Accepted, { installation }: Judged): boolean {
  const policy = `ValidatingAdmissionPolicy '${nameOf(installation)}-caller-proof'`;
  return 'causes' in response && response.message.includes(policy);
}

/** The API server names the webhook in both of its messages: `failed calling webhook`, `denied the request`. */
function isAboutWebhook({ message, causes }: Refusal): boolean {
  return causes.length > 0 || message.includes(`webhook "${WEBHOOK_NAME}"`);
}

function failureOf(refusal: Refusal, cluster: Judged, deployment: Deployment): Finding {
  const message = `${refusal.namespace}: ${refusal.message}`;
  const { installation, commands } = cluster;
  const code = callFailure(refusal.message);
  if (code === undefined) return denialOf(message, refusal.causes, cluster);
  if (code === 'ca-bundle-mismatch' || code === 'certificate-invalid')
    return failed(code, message, certificateRemedy(cluster));
  if (deployment === 'unknown') return failed('webhook-unreachable', message, logs(cluster));
  const name = nameOf(installation);
  if (deployment === 'missing')
    return failed(
      'webhook-not-deployed',
      `${message}; the Deployment ${commands.release.namespace}/${name} does not exist`,
      { repair: commands.upgrade() },
    );
  if (deployment.replicas === 0)
    return failed('webhook-scaled-down', `${message}; its Deployment has 0 replicas`, {
      repair: commands.kubectlInRelease(['scale', `deployment/${name}`, '--replicas=2']),
    });
  const withReady = `${message}; ${deployment.ready} of its pods are ready`;
  if (code !== 'webhook-timeout' || deployment.ready === 0)
    return failed('webhook-unreachable', withReady, logs(cluster));
  return failed(code, withReady, {
    investigate: commands.kubectlInRelease(['get', 'endpointslices,networkpolicies', '--output=wide']),
    hint: 'The control plane does not reach the pods. A firewall or a NetworkPolicy may block the port. docs/chart-values.md describes webhook.port and hostNetwork.',
  });
}

/** How to investigate why the API server does not trust the webhook, in each tls.mode of the chart. */
function certificateRemedy(cluster: Judged): Remedy {
  const { installation, commands } = cluster;
  if (installation?.tlsMode === 'cert-manager')
    return {
      investigate: commands.kubectlInRelease(['describe', 'certificates.cert-manager.io']),
      hint: "cert-manager issues the certificate, and its cainjector writes the caBundle: see the cainjector's log, too (docs/certificates.md).",
    };
  if (installation?.tlsMode === 'provided') {
    const { name, namespace } = installation;
    const get = ['get', 'secret', `${name}-tls`, '--output=jsonpath={.data.tls\\.crt}'];
    return {
      investigate: `${commands.kubectlInRelease(get)} | base64 --decode | openssl x509 -noout -issuer -subject -ext subjectAltName -dates`,
      hint: `The certificate must be valid for ${name}.${namespace}.svc. With the chart's value tls.secretName, it is in that Secret. The caBundle must be the authority that signed it: ${commands.upgrade(['--set-file', 'tls.caBundle=ca.base64'])} replaces it by the file ca.base64: PEM, base64-encoded (docs/certificates.md).`,
    };
  }
  return logs(
    cluster,
    `The webhook makes its certificate and writes the caBundle itself, within seconds after it starts. It needs the chart's roles for that; ${commands.upgrade()} restores them (docs/certificates.md).`,
  );
}

/** A denial by the webhook, by the first cause that is about a token, else by the first. */
function denialOf(message: string, causes: readonly DenialCause[], cluster: Judged): Finding {
  const { commands } = cluster;
  const { release, namespace } = commands.release;
  for (const { reason, message: principal } of causes) {
    const code = TOKEN_FAILURES.find((one) => one === reason);
    if (code) return failed(code, message, tokenRemedy(code, principal, cluster));
  }
  if (causes[0]?.reason !== 'not-entitled') return failed('denied', message, logs(cluster));
  return failed('not-entitled', message, {
    investigate: commands.helm(['get', 'values', release, '--namespace', namespace]),
    hint: `The chart's value registries must have an entry for the namespace, or ownRegistry.namespaces must list it (docs/registries.md). Write the complete values into a file, then: ${commands.upgrade(['--values', 'registries.yaml'])}. The webhook reads it within two minutes.`,
  });
}

/** @param principal the message of the cause: the role's ARN, if it is known */
function tokenRemedy(code: FailureCode, principal: string, cluster: Judged): Remedy {
  const hint = 'See "AWS refuses the webhook" in docs/troubleshooting.md.';
  const { commands } = cluster;
  const [arn, role] = /^arn:[\w-]+:iam::\d+:role\/(?:\S*\/)?(\S+)$/.exec(principal) ?? [];
  if (arn === undefined || role === undefined) return logs(cluster, hint);
  const getRole = ['get-role', '--role-name', role, '--query', 'Role.AssumeRolePolicyDocument'];
  const actions = ['ecr:GetAuthorizationToken', 'ecr-public:GetAuthorizationToken'];
  const simulate = ['simulate-principal-policy', '--policy-source-arn', arn, '--action-names', ...actions];
  return { investigate: commands.aws(['iam', ...(code === 'aws-role-denied' ? getRole : simulate)]), hint };
}

function nameOf(installation: Cluster['installation']): string {
  return installation?.name ?? 'ecr-anywhere';
}

function logs({ installation, commands }: Judged, hint?: string): Remedy {
  const args = ['logs', `deployment/${nameOf(installation)}`, '--tail=50'];
  return { investigate: commands.kubectlInRelease(args), hint };
}

function notCalled(accepted: readonly Accepted[], { installation, commands }: Judged): Finding[] {
  const unwritten = accepted.filter(({ annotations }) => contractOf(annotations) === undefined);
  if (unwritten.length === 0) return [];
  const added = installation ? unexpectedNarrowing(installation) : [];
  const message = `The API server does not call the webhook for Secrets in ${formatList(unwritten.map(({ namespace }) => namespace))}`;
  if (!installation || added.length === 0)
    return [failed('webhook-not-called', `${message}.`, { repair: commands.upgrade() })];
  return [
    failed(
      'webhook-not-called',
      `${message}: the chart did not set ${added.toReversed().join(', ')} of the webhook configuration.`,
      { repair: commands.removeFields('mutatingwebhookconfiguration', installation.name, added) },
    ),
  ];
}

function otherContract(contracts: readonly number[], { installation, commands }: Judged): Finding[] {
  const other = contracts.find((contract) => contract !== CONTRACT_VERSION);
  if (other === undefined) return [];
  const code = other < CONTRACT_VERSION ? 'webhook-too-old' : 'webhook-too-new';
  const image = '--output=jsonpath={.spec.template.spec.containers[*].image}';
  return [
    failed(code, `The webhook speaks contract ${other}, this command line ${CONTRACT_VERSION}.`, {
      investigate: commands.kubectlInRelease(['get', `deployment/${nameOf(installation)}`, image]),
      hint: `Use the webhook's image, the refresher and the command line of one version. To upgrade the webhook from a checkout of this version: ${commands.upgrade()}.`,
    }),
  ];
}

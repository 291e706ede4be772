// The checks of the webhook itself: creates a managed Secret as a dry run, so that nothing is stored, and reads from the
// response whether the API server called the webhook, and what the webhook did.
import pMap from 'p-map';
import { z } from 'zod';
import {
  type DenialCause,
  registryOf,
  TOKEN_FAILURES,
  type TokenFailure,
} from '../../../contract/denials.ts';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE, WEBHOOK_NAME } from '../../../contract/names.ts';
import { CONTRACT_VERSION, credentialsWriter } from '../../../contract/version.ts';
import { unexpectedNarrowing } from '../../kubernetes/chart.ts';
import { ApiError, type Kubernetes } from '../../kubernetes/client.ts';
import { formatList } from '../../output/format-list.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { investigateCertificate } from './certificates.ts';
import { type Finding, failed, investigate, passed, type Remedy, repair, skipped } from './checks.ts';
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
        // The webhook of CentML/ecr-anywhere replaces data, and fails where there is none.
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
  const accepted = responses.filter((response) => 'annotations' in response);
  const refusals = responses.filter((response) => 'causes' in response);
  const byWebhook = refusals.filter(isAboutWebhook);
  const [other] = refusals;
  // Another admission plugin, a quota, or the operator's own permissions: that says nothing about the webhook.
  if (other && accepted.length === 0 && byWebhook.length === 0)
    return skipAll(`a Secret could not be tried in ${other.namespace}: ${other.message}`);

  const failures = byWebhook.map((refusal) => failureOf(refusal, cluster, deployment));
  const writers = writersOf(accepted, cluster);
  const hasAnswered = failures.some(({ check }) => check !== 'webhook') || writers.hasWritten;
  return [
    ...failures,
    ...writers.failures,
    ...(hasAnswered ? [passed('webhook', 'the API server trusts it, and gets answers')] : []),
    ...(writers.hasWritten || failures.some(({ check }) => check === 'ecr')
      ? [passed('injection', `the API server calls the webhook (contract ${CONTRACT_VERSION})`)]
      : []),
    ...(writers.hasWritten ? [passed('ecr', 'the webhook would write new credentials (dry run)')] : []),
    ...skipAll('the API server did not call the webhook'),
  ];
}

/**
 * Why the API server could not call the webhook. It gives no code for that, so this is read from its message, which
 * contains the error of Go's HTTP client (k8s.io/apiserver, admission/plugin/webhook/errors; crypto/x509).
 *
 * @returns undefined if it did call the webhook, or the message is about another webhook
 */
export function callFailure(
  message: string,
): 'untrusted' | 'certificate' | 'timeout' | 'unreachable' | undefined {
  if (!message.includes(`failed calling webhook "${WEBHOOK_NAME}"`)) return undefined;
  if (/signed by unknown authority|unable to load root certificates/.test(message)) return 'untrusted';
  if (/x509|tls:/.test(message)) return 'certificate';
  if (/deadline exceeded|timeout|no route/i.test(message)) return 'timeout';
  return 'unreachable';
}

/** The API server names the webhook in both of its messages: `failed calling webhook`, `denied the request`. */
function isAboutWebhook({ message, causes }: Refusal): boolean {
  return causes.length > 0 || message.includes(`webhook "${WEBHOOK_NAME}"`);
}

function failureOf(refusal: Refusal, cluster: Judged, deployment: Deployment): Finding {
  const message = `${refusal.namespace}: ${refusal.message}`;
  const { installation, commands } = cluster;
  const call = callFailure(refusal.message);
  if (call === undefined) return denialOf(refusal, cluster);
  const certificate = (object: 'caBundle' | 'certificate') =>
    installation ? investigateCertificate(object, installation, commands) : logs(cluster);
  if (call === 'untrusted') return failed('ca-bundle-mismatch', message, certificate('caBundle'));
  if (call === 'certificate') return failed('certificate-invalid', message, certificate('certificate'));
  if (deployment === 'unknown') return failed('webhook-unreachable', message, logs(cluster));
  const name = nameOf(installation);
  if (deployment === 'missing')
    return failed(
      'webhook-not-deployed',
      `${message}; the Deployment ${commands.release.namespace}/${name} does not exist`,
      repair(commands.upgrade()),
    );
  if (deployment.replicas === 0)
    return failed(
      'webhook-scaled-down',
      `${message}; its Deployment has 0 replicas`,
      repair(commands.kubectlInRelease(['scale', `deployment/${name}`, '--replicas=2'])),
    );
  const withReady = `${message}; ${deployment.ready} of its pods are ready`;
  if (call !== 'timeout' || deployment.ready === 0)
    return failed('webhook-unreachable', withReady, logs(cluster));
  return failed(
    'webhook-timeout',
    withReady,
    investigate(
      commands.kubectlInRelease(['get', 'endpointslices,networkpolicies', '--output=wide']),
      'The control plane does not reach the pods. A firewall or a NetworkPolicy may block the port. docs/chart-values.md describes webhook.port and hostNetwork.',
    ),
  );
}

/** A denial by the webhook, by the first cause that is about a token, else by the first. */
function denialOf({ namespace, message: sentence, causes }: Refusal, cluster: Judged): Finding {
  const { commands } = cluster;
  const { release } = commands;
  const message = `${namespace}: ${sentence}`;
  for (const cause of causes) {
    const reason = TOKEN_FAILURES.find((one) => one === cause.reason);
    if (reason) return failed(reason, message, tokenRemedy(reason, cause, cluster));
  }
  if (causes[0]?.reason !== 'not-entitled')
    return failed(
      'denied',
      message,
      logs(
        cluster,
        causes.length > 0
          ? undefined
          : `The webhook gives no reason code: it is older than this command line. To upgrade it: ${commands.upgrade()}.`,
      ),
    );
  return failed(
    'not-entitled',
    message,
    investigate(
      commands.helm(['get', 'values', release.release, '--namespace', release.namespace]),
      `The chart's value registries must have an entry for ${namespace} (docs/registries.md). Write the complete list into a file, then: ${commands.upgrade(['--values', 'registries.yaml'])}. The webhook reads it within two minutes.`,
    ),
  );
}

/** The hosts of ECR Public, which has its own IAM action (webhook/aws/registries.ts). */
const PUBLIC_HOSTS: ReadonlySet<string | undefined> = new Set(['public.ecr.aws', 'ecr-public.aws.com']);

/** What to know about a missing token. */
const HINTS: Readonly<Record<TokenFailure, string>> = {
  'aws-no-identity': 'docs/aws-identity.md describes the ways to give the webhook an AWS identity.',
  'aws-role-denied':
    "The role's trust policy must admit the webhook's identity (docs/aws-identity.md, docs/registries.md).",
  'ecr-denied': "docs/aws-identity.md has the policy that the webhook's identity needs.",
  'ecr-throttled': 'The webhook retries. Other callers of the account may use up the quota of ECR.',
  'ecr-unavailable':
    "The pods may not reach AWS: a firewall, PrivateLink, or the chart's value proxy.httpsProxy. health.aws.amazon.com shows outages.",
  'ecr-error': 'docs/troubleshooting.md lists known causes.',
};

function tokenRemedy(reason: TokenFailure, cause: DenialCause, cluster: Judged): Remedy {
  // The message is the role's ARN, if it is known.
  const [arn, name = ''] = /^arn:[\w-]+:iam::\d+:role\/(?:\S*\/)?(\S+)$/.exec(cause.message) ?? [];
  const service = PUBLIC_HOSTS.has(registryOf(cause)) ? 'ecr-public' : 'ecr';
  const ofRole = {
    'aws-role-denied': ['get-role', '--role-name', name, '--query', 'Role.AssumeRolePolicyDocument'],
    'ecr-denied': [
      ...['simulate-principal-policy', '--policy-source-arn', arn ?? ''],
      ...['--action-names', `${service}:GetAuthorizationToken`],
    ],
  };
  if (arn !== undefined && (reason === 'aws-role-denied' || reason === 'ecr-denied'))
    return investigate(cluster.commands.aws(['iam', ...ofRole[reason]]), HINTS[reason]);
  return logs(cluster, HINTS[reason]);
}

function nameOf(installation: Cluster['installation']): string {
  return installation?.name ?? 'ecr-anywhere';
}

function logs({ installation, commands }: Judged, hint?: string) {
  return investigate(
    commands.kubectlInRelease(['logs', `deployment/${nameOf(installation)}`, '--tail=50']),
    hint,
  );
}

/** Which webhook wrote the credentials, and which contract it speaks, by the annotations of accepted Secrets. */
function writersOf(
  accepted: readonly Accepted[],
  { installation, commands }: Judged,
): { readonly failures: Finding[]; readonly hasWritten: boolean } {
  const writers = accepted.map(({ namespace, annotations }) => ({
    namespace,
    by: credentialsWriter(annotations),
  }));
  const unwritten = writers.filter(({ by }) => by.writer === 'none').map(({ namespace }) => namespace);
  const original = writers.find(({ by }) => by.writer === 'original');
  const contracts = writers.flatMap(({ by }) => (by.writer === 'ours' ? [by.contract] : []));
  const failures = [
    ...(unwritten.length > 0 ? [notCalled(unwritten, installation, commands)] : []),
    ...(original
      ? [
          failed(
            'original-answers',
            `The webhook of CentML/ecr-anywhere answers in ${original.namespace}.`,
            investigate(
              commands.kubectl(['get', 'mutatingwebhookconfigurations']),
              'Find its release among these, and uninstall it.',
            ),
          ),
        ]
      : []),
    ...contractFailures(contracts, commands, nameOf(installation)),
  ];
  return { failures, hasWritten: contracts.length > 0 };
}

function notCalled(
  namespaces: readonly string[],
  installation: Cluster['installation'],
  commands: ShellCommands,
): Finding {
  const added = installation ? unexpectedNarrowing(installation) : [];
  const message = `The API server does not call the webhook for Secrets in ${formatList(namespaces)}`;
  return installation && added.length > 0
    ? failed(
        'webhook-not-called',
        `${message}: the chart did not set ${added.toReversed().join(', ')} of the webhook configuration.`,
        repair(commands.removeFields('mutatingwebhookconfiguration', installation.name, added)),
      )
    : failed('webhook-not-called', `${message}.`, repair(commands.upgrade()));
}

function contractFailures(contracts: readonly number[], commands: ShellCommands, name: string): Finding[] {
  const other = contracts.toSorted((a, b) => a - b).find((contract) => contract !== CONTRACT_VERSION);
  if (other === undefined) return [];
  const isOlder = other < CONTRACT_VERSION;
  return [
    failed(
      isOlder ? 'webhook-too-old' : 'webhook-too-new',
      `The webhook speaks contract ${other}, this command line ${CONTRACT_VERSION}.`,
      investigate(
        commands.kubectlInRelease([
          ...['get', `deployment/${name}`, '--output=jsonpath={.spec.template.spec.containers[*].image}'],
        ]),
        isOlder
          ? `Upgrade it from a checkout of this version, with its image (the value image.tag, if it is set): ${commands.upgrade()}.`
          : 'Use the command line of that version, and deploy the refresher from the same checkout.',
      ),
    ),
  ];
}

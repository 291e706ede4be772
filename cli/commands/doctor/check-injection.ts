// The links that a Secret tells of which is tried: created as a dry run, so that nothing is stored, and what its refusal
// means.
import pMap from 'p-map';
import { z } from 'zod';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE, WEBHOOK_NAME } from '../../../contract/names.ts';
import { CONTRACT_VERSION, credentialsWriter } from '../../../contract/version.ts';
import { unexpectedNarrowing } from '../../kubernetes/chart.ts';
import { ApiError, type Kubernetes } from '../../kubernetes/client.ts';
import { formatList } from '../../output/format-list.ts';
import { newCertificate, trustAgain } from './certificates.ts';
import { type Cluster, Metadata } from './check-context.ts';
import { broken, type Finding, unknown, well } from './checks.ts';

/** A Secret is tried in so many of the enabled namespaces. */
const NAMESPACES_TRIED = 20;
const TRIED_AT_ONCE = 4;

/** What an attempt tells of. */
export const ATTEMPTED = [
  'webhook',
  'certificate',
  'injection',
  'contract',
  'entitlement',
  'aws-identity',
  'ecr',
] as const;
type Attempted = (typeof ATTEMPTED)[number];

const WELL: Readonly<Record<Exclude<Attempted, 'contract'>, string>> = {
  webhook: 'the API server was answered',
  certificate: 'the API server trusts it',
  injection: 'the API server asks the webhook',
  entitlement: 'every namespace that was tried has some',
  'aws-identity': 'AWS knows the webhook',
  ecr: 'new credentials would be written (dry run)',
};

/** Where something was refused, in the API server's or the webhook's words. */
interface Refusal {
  readonly namespace: string;
  readonly said: string;
}
interface Answered {
  readonly namespace: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/**
 * Creates a labelled Secret in enabled namespaces, as a dry run: the whole chain answers, ECR too, and nothing is stored.
 */
export async function attempts(cluster: Cluster, enabled: readonly string[]): Promise<Finding[]> {
  const all = (says: string) => ATTEMPTED.map((link) => unknown(link, says));
  if (enabled.length === 0) return all('no namespace is enabled in which a Secret could be tried');
  // One request, and so one new token of each principal: what lies in the webhook's cache would hide that ECR is down.
  const mark = new Date().toISOString();
  const answers = await pMap(
    enabled.slice(0, NAMESPACES_TRIED),
    (namespace) => attempt(cluster.kubernetes, namespace, mark),
    { concurrency: TRIED_AT_ONCE },
  );
  const answered = answers.filter((answer) => 'annotations' in answer);
  const refusals = answers.filter((answer) => 'said' in answer);
  const ours = refusals.filter(({ said }) => said.includes(`webhook "${WEBHOOK_NAME}"`));
  const [elses] = refusals;
  // Another admission controller, a quota, or what the operator may do: nothing is learned of the webhook.
  if (elses && answered.length === 0 && ours.length === 0)
    return all(`a Secret could not be tried in ${elses.namespace}: ${elses.said}`);

  const broke = await Promise.all(ours.map((refusal) => refused(refusal, cluster)));
  const written = injected(answered, cluster);
  const isWritten = written.some(({ link }) => link === 'contract');
  // A denial of the webhook's own is an answer of the webhook.
  const isAnswered =
    isWritten || broke.some(({ link }) => ['entitlement', 'aws-identity', 'ecr'].includes(link));
  const holds: readonly (keyof typeof WELL)[] = [
    ...(isAnswered ? (['webhook', 'certificate', 'injection'] as const) : []),
    ...(isWritten || broke.some(({ link }) => link === 'ecr')
      ? (['entitlement', 'aws-identity'] as const)
      : []),
    ...(isWritten ? (['ecr'] as const) : []),
  ];
  return [
    ...broke,
    ...written,
    ...holds.map((link) => well(link, WELL[link])),
    ...all('the chain does not hold so far'),
  ];
}

async function attempt(kubernetes: Kubernetes, namespace: string, mark: string): Promise<Refusal | Answered> {
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
          annotations: { [ANNOTATION.requestedAt]: mark, [ANNOTATION.force]: mark },
        },
        // CentML's webhook replaces data, and fails where there is none.
        data: { [SECRET_KEY]: Buffer.from('{"auths":{}}').toString('base64') },
      },
    });
    return { namespace, annotations: Metadata.parse(body).metadata.annotations ?? {} };
  } catch (error) {
    if (error instanceof ApiError) return { namespace, said: error.said };
    throw error;
  }
}

/** Which link it is that an attempt failed at, by the words of the API server or the webhook. */
async function refused({ namespace, said }: Refusal, cluster: Cluster): Promise<Finding> {
  const { installation, commands } = cluster;
  const says = `${namespace}: ${said}`;
  const name = installation?.name ?? 'ecr-anywhere';
  const log = commands.kubectlInRelease(['logs', `deployment/${name}`, '--tail=50']);
  if (/failed calling webhook/.test(said)) {
    if (installation && /signed by unknown authority|unable to load root certificates/.test(said))
      return broken('ca-bundle', says, ...trustAgain(installation, commands));
    if (installation && /x509|tls:/.test(said))
      return broken('certificate', says, ...newCertificate(installation, commands));
    return unanswered(says, name, cluster);
  }
  if (/is entitled to no registry|names none of the registries/.test(said))
    return broken(
      'entitlement',
      says,
      commands.upgrade(['--values', 'registries.yaml']),
      `registries.yaml: the chart's value registries, all of them, with one for ${namespace} (docs/registries.md). In use within two minutes`,
    );
  const [, role] = /the role arn:\S+:role\/(?:\S*\/)?(\S+) cannot be assumed/.exec(said) ?? [];
  if (role !== undefined)
    return broken(
      'aws-identity',
      says,
      commands.aws(['iam', 'get-role', '--role-name', role, '--query', 'Role.AssumeRolePolicyDocument']),
      'its trust policy has to let the webhook in (docs/aws-identity.md, docs/registries.md): aws iam update-assume-role-policy',
    );
  if (
    /has no AWS identity|ExpiredToken|InvalidIdentityToken|UnrecognizedClient|InvalidClientTokenId|SignatureDoesNotMatch/.test(
      said,
    )
  )
    return broken(
      'aws-identity',
      says,
      commands.upgrade(['--set', 'aws.webIdentity.roleArn=ROLE']),
      'or another way of docs/aws-identity.md, which also says what goes wrong',
    );
  if (/AccessDenied|not authorized/.test(said)) {
    const [, principal = 'ROLE'] = /assumed-role\/([^/\s]+)\//.exec(said) ?? [];
    const Statement = [{ Effect: 'Allow', Action: 'ecr:GetAuthorizationToken', Resource: '*' }];
    return broken(
      'ecr',
      says,
      commands.aws([
        ...['iam', 'put-role-policy', '--role-name', principal, '--policy-name', 'ecr-anywhere-token'],
        ...['--policy-document', JSON.stringify({ Version: '2012-10-17', Statement })],
      ]),
      'docs/aws-identity.md has all that the role needs',
    );
  }
  if (/ECR/.test(said))
    return broken(
      'ecr',
      says,
      log,
      'do the pods reach ECR (a firewall, PrivateLink, the chart’s proxy.httpsProxy)? Is ECR well: health.aws.amazon.com?',
    );
  return broken('webhook', says, log);
}

const Deployment = z.object({
  spec: z.object({ replicas: z.number().optional() }),
  status: z.object({ readyReplicas: z.number().optional() }).optional(),
});

/** Why the webhook gives no answer, as far as its Deployment tells. */
async function unanswered(says: string, name: string, { kubernetes, commands }: Cluster): Promise<Finding> {
  const { namespace } = commands.release;
  const path = `/apis/apps/v1/namespaces/${encodeURIComponent(namespace)}/deployments/${encodeURIComponent(name)}`;
  const log = `${commands.kubectlInRelease(['logs', `deployment/${name}`])} says why it is not ready`;
  let found: unknown;
  try {
    found = await kubernetes.find(path);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return broken('webhook', says, commands.restart(name), log);
  }
  if (found === undefined)
    return broken('webhook', `${says}; there is no Deployment ${namespace}/${name}`, commands.upgrade());
  const { spec, status } = Deployment.parse(found);
  if (spec.replicas === 0)
    return broken(
      'webhook',
      `${says}; its Deployment has 0 replicas`,
      commands.kubectlInRelease(['scale', `deployment/${name}`, '--replicas=2']),
    );
  const ready = status?.readyReplicas ?? 0;
  if (ready > 0 && /deadline exceeded|timeout|no route/i.test(says))
    return broken(
      'webhook',
      `${says}; ${ready} of its pods are ready`,
      commands.upgrade(['--set', 'webhook.port=10250']),
      'the control plane does not reach the pods: a port that a firewall lets through, or hostNetwork=true (docs/chart-values.md)',
    );
  return broken('webhook', `${says}; ${ready} of its pods are ready`, commands.restart(name), log);
}

/** What the annotations say of who has written them: `contract` where anybody has. */
function injected(answers: readonly Answered[], { installation, commands }: Cluster): Finding[] {
  const writers = answers.map(({ namespace, annotations }) => ({
    namespace,
    by: credentialsWriter(annotations),
  }));
  const none = writers.filter(({ by }) => by.writer === 'none').map(({ namespace }) => namespace);
  const added = installation ? unexpectedNarrowing(installation) : [];
  const injection =
    none.length === 0
      ? []
      : [
          broken(
            'injection',
            `the API server does not ask the webhook about Secrets in ${formatList(none)}${added.length > 0 ? `: ${added.toReversed().join(', ')} of its configuration is not the chart's` : ''}`,
            installation && added.length > 0
              ? commands.removeFields('mutatingwebhookconfiguration', installation.name, added)
              : commands.upgrade(),
          ),
        ];
  const original = writers.find(({ by }) => by.writer === 'original');
  if (original)
    return [
      ...injection,
      broken(
        'contract',
        `the webhook of CentML/ecr-anywhere answers in ${original.namespace}`,
        commands.kubectl(['get', 'mutatingwebhookconfigurations']),
        'find its release among them, and uninstall it',
      ),
    ];
  const spoken = writers.flatMap(({ by }) => (by.writer === 'ours' ? [by.contract] : []));
  if (spoken.length === 0) return injection;
  const [oldest, newest] = [Math.min(...spoken), Math.max(...spoken)];
  const says = `it speaks contract ${oldest < CONTRACT_VERSION ? oldest : newest}, this command line ${CONTRACT_VERSION}`;
  if (oldest < CONTRACT_VERSION)
    return [
      ...injection,
      broken(
        'contract',
        `${says}: it is older`,
        commands.upgrade(),
        'from a checkout of this version, with its image (image.tag, where you have set it)',
      ),
    ];
  if (newest > CONTRACT_VERSION)
    return [
      ...injection,
      broken(
        'contract',
        `${says}: it is newer`,
        commands.deploy(),
        'from a checkout of the webhook’s version; use its ecr-anywhere, too',
      ),
    ];
  return [...injection, well('contract', `contract ${CONTRACT_VERSION}`)];
}

// The links inside a cluster, looked at as the operator. Changes nothing: what is created is a dry run, and of Secrets
// only metadata is asked for.
import { X509Certificate } from 'node:crypto';
import pMap from 'p-map';
import { z } from 'zod';
import {
  ANNOTATION,
  EXCLUDED_NAMESPACES,
  NAMESPACE_LABEL,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
  WEBHOOK_NAME,
} from '../../contract/names.ts';
import { CONTRACT_VERSION, writerOf } from '../../contract/version.ts';
import {
  type Found,
  findInstallation,
  type Gap,
  gapsInFence,
  type Installation,
  strangers,
  type Webhook,
} from '../chart.ts';
import { CliError, EXIT } from '../errors.ts';
import { ApiError, type Kubernetes } from '../kubernetes.ts';
import type { Repairs } from '../repairs.ts';
import { broken, type Finding, type LinkName, unknown, well } from './links.ts';

/** ValidatingAdmissionPolicy is stable from here on (Kubernetes 1.30 release notes). */
const MIN_MINOR = 30;
/** A Secret is tried in so many of the enabled namespaces. */
const NAMESPACES_TRIED = 20;
const TRIED_AT_ONCE = 4;
/** Of what is wrong in many places, so many are told. */
const TOLD = 5;
/** What somebody writes who does not want a namespace served. */
const MEANT_OFF = /^(disabled|false|no|off|)$/i;

const Metadata = z.object({
  metadata: z.object({
    name: z.string(),
    namespace: z.string().optional(),
    labels: z.record(z.string(), z.string()).optional(),
    annotations: z.record(z.string(), z.string()).optional(),
  }),
});
type Metadata = z.infer<typeof Metadata>['metadata'];

/** What is known of a cluster while its links are looked at. */
interface Cluster {
  readonly kubernetes: Kubernetes;
  readonly installation: Installation | undefined;
  readonly repairs: Repairs;
}

export interface Inside {
  readonly findings: readonly Finding[];
  readonly found: Found;
  readonly repairs: Repairs;
}

/**
 * Looks at all of them. What the operator may not see is unknown.
 *
 * @param repairsOf the commands for what is found
 */
export async function inCluster(
  kubernetes: Kubernetes,
  repairsOf: (found: Found) => Repairs,
): Promise<Inside> {
  let found: Found = { originals: [] };
  const chart = await looked(['chart'], async () => {
    found = await findInstallation(kubernetes);
    return [chartFinding(found, repairsOf(found))];
  });
  const { installation } = found;
  const repairs = repairsOf(found);
  const cluster = { kubernetes, installation, repairs };
  const parts = await Promise.all([
    looked(['kubernetes'], () => kubernetesVersion(kubernetes)),
    installation
      ? looked(['policies'], async () => [policies(await gapsInFence(kubernetes, installation), repairs)])
      : [],
    installation ? [configuration(installation, repairs), caBundle(installation, repairs)] : [],
    looked(['namespaces', 'secrets', ...ATTEMPTED], () => labelsAndAttempts(cluster)),
  ]);
  return { findings: [...chart, ...parts.flat()], found, repairs };
}

/** Findings; what fails says that of these links, and ends nothing else. */
async function looked(links: readonly LinkName[], look: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await look();
  } catch (error) {
    if (error instanceof CliError && error.exitCode === EXIT.interrupted) throw error;
    return links.map((link) => unknown(link, (error as Error).message));
  }
}

async function kubernetesVersion(kubernetes: Kubernetes): Promise<Finding[]> {
  const { body } = await kubernetes.get('/version');
  const { gitVersion, major, minor } = z
    .object({ gitVersion: z.string(), major: z.string(), minor: z.string() })
    .parse(body);
  const isOld = Number(major) === 1 && Number.parseInt(minor, 10) < MIN_MINOR;
  return [
    isOld
      ? broken(
          'kubernetes',
          `it is ${gitVersion}`,
          `kubeadm upgrade apply v1.${MIN_MINOR}.0`,
          `or however this cluster is upgraded, to 1.${MIN_MINOR} or later`,
        )
      : well('kubernetes', gitVersion),
  ];
}

function chartFinding({ installation, release, originals }: Found, repairs: Repairs): Finding {
  const names = originals.join(', ');
  if (!installation && release)
    return broken(
      'chart',
      `the MutatingWebhookConfiguration of the release ${release.release} in ${release.namespace} is gone`,
      repairs.upgrade(),
    );
  if (!installation && originals.length > 0)
    return broken(
      'chart',
      `CentML/ecr-anywhere is installed here (MutatingWebhookConfiguration ${names}), and not this chart`,
      // Both would call their objects ecr-anywhere.
      repairs.install(originals.includes('ecr-anywhere') ? 'ecr-anywhere-keeper' : 'ecr-anywhere'),
      'README.md has the values. Install it first, so that nothing goes unserved; then uninstall the other',
    );
  if (!installation)
    return broken(
      'chart',
      'there is no MutatingWebhookConfiguration of it',
      repairs.install('ecr-anywhere'),
      'README.md has the values',
    );
  if (originals.length > 0)
    return broken(
      'chart',
      `CentML/ecr-anywhere is installed beside it (MutatingWebhookConfiguration ${names}), and writes the same Secrets: refreshes may be refused`,
      repairs.kubectl(['delete', 'mutatingwebhookconfiguration', ...originals]),
      'or uninstall its release',
    );
  const { version = 'unknown' } = installation;
  return well('chart', `release ${installation.release} in ${installation.namespace}, version ${version}`);
}

function policies(gaps: readonly Gap[], repairs: Repairs): Finding {
  const added = gaps.find((gap) => gap.added)?.added;
  if (gaps.length === 0) return well('policies', 'in force');
  return broken(
    'policies',
    gaps.map(({ says }) => says).join('; '),
    added ? removal(repairs, added.kind, added.name, added.paths) : repairs.upgrade(),
  );
}

/** Takes away from an object what somebody has added to it. @param paths JSON Pointers, the last first */
function removal(repairs: Repairs, kind: string, name: string, paths: readonly string[]): string {
  const patch = JSON.stringify(paths.map((path) => ({ op: 'remove', path })));
  return repairs.kubectl(['patch', kind, name, '--type=json', '--patch', patch]);
}

/** What the chart's template says of it, and the API server goes by. */
function configuration({ webhook }: Installation, repairs: Repairs): Finding {
  const wrong = wrongIn(webhook);
  return wrong.length > 0
    ? broken('configuration', wrong.join('; '), repairs.upgrade())
    : well('configuration', 'selects managed Secrets of enabled namespaces, and fails closed');
}

function wrongIn({
  clientConfig,
  failurePolicy,
  rules = [],
  namespaceSelector,
  objectSelector,
}: Webhook): string[] {
  const operations = new Set(
    rules
      .filter(({ resources = [] }) => resources.includes('secrets'))
      .flatMap((rule) => rule.operations ?? []),
  );
  const missing = ['CREATE', 'UPDATE'].filter(
    (operation) => !operations.has(operation) && !operations.has('*'),
  );
  const selects = (selector: typeof objectSelector, { key, value }: { key: string; value: string }) =>
    selector?.matchLabels?.[key] === value ||
    selector?.matchExpressions?.some(
      (one) =>
        one.key === key && one.operator === 'In' && one.values?.length === 1 && one.values[0] === value,
    );
  return [
    ...(missing.length > 0 ? [`it is not asked on ${missing.join(' and ')} of Secrets`] : []),
    ...(failurePolicy === 'Fail' ? [] : [`its failurePolicy is ${failurePolicy}, not Fail`]),
    ...(selects(objectSelector, SECRET_LABEL) ? [] : ['its objectSelector does not select managed Secrets']),
    ...(selects(namespaceSelector, NAMESPACE_LABEL)
      ? []
      : ['its namespaceSelector does not select enabled namespaces']),
    ...(clientConfig.service ? [] : ['it calls no Service']),
  ];
}

function caBundle(installation: Installation, repairs: Repairs): Finding {
  const { caBundle: encoded } = installation.webhook.clientConfig;
  const wrong = (says: string) => broken('ca-bundle', says, ...trustAgain(installation, repairs));
  if (!encoded) return wrong('it is empty');
  const pem = Buffer.from(encoded, 'base64').toString();
  try {
    const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
    const ends = blocks.map((block) => new X509Certificate(block).validToDate.getTime());
    if (ends.length === 0) throw new Error('no certificate');
    const end = new Date(Math.max(...ends)).toISOString();
    return Math.max(...ends) > Date.now()
      ? well('ca-bundle', `valid until ${end}`)
      : wrong(`it expired at ${end}`);
  } catch {
    return wrong('it holds no certificate');
  }
}

/** What has the API server trust the webhook again, in each tls.mode. @returns a command and a hint */
function trustAgain(
  { name, namespace, tlsMode }: Installation,
  repairs: Repairs,
): [repair: string, hint: string] {
  if (tlsMode === 'provided')
    return [
      repairs.upgrade(['--set-file', 'tls.caBundle=ca.base64']),
      `ca.base64: the authority that signed the certificate for ${name}.${namespace}.svc, PEM, base64-encoded (docs/certificates.md)`,
    ];
  if (tlsMode === 'cert-manager')
    return [
      repairs.kubectl([
        ...['--namespace', 'cert-manager', 'rollout', 'restart', 'deployment', 'cert-manager-cainjector'],
      ]),
      'cert-manager writes it; its log says why it has not',
    ];
  return [
    repairs.upgrade(),
    `the webhook writes it within seconds, while it runs and has the roles for it: ${repairs.kubectlOfRelease(['logs', `deployment/${name}`])} says "certificates not looked after"`,
  ];
}

/** What gives the webhook another certificate, in each tls.mode. @returns a command and a hint */
function newCertificate(
  { name, namespace, tlsMode }: Installation,
  repairs: Repairs,
): [repair: string, hint: string] {
  const server = `${name}.${namespace}.svc`;
  if (tlsMode === 'provided')
    return [
      `${repairs.kubectlOfRelease(['create', 'secret', 'tls', `${name}-tls`, '--cert=tls.crt', '--key=tls.key', '--dry-run=client', '--output=yaml'])} | ${repairs.kubectl(['apply', '--filename=-'])}`,
      `with a certificate for ${server}; where the chart's value tls.secretName is set, into that Secret. It is served within two minutes`,
    ];
  if (tlsMode === 'cert-manager')
    return [
      repairs.kubectlOfRelease(['delete', 'secret', `${name}-tls`]),
      `cert-manager then signs another one for ${server}`,
    ];
  return [restart(name, repairs), `the webhook makes its own, for ${server}: docs/certificates.md`];
}

function restart(name: string, repairs: Repairs): string {
  return repairs.kubectlOfRelease(['rollout', 'restart', 'deployment', name]);
}

/** Labels and types, of namespaces and Secrets that are, or look as if they were meant to be, ours; then the attempts. */
async function labelsAndAttempts(cluster: Cluster): Promise<Finding[]> {
  const { kubernetes, installation, repairs } = cluster;
  const metadataOnly = 'PartialObjectMetadataList';
  const of = async (path: string, query: Record<string, string>) =>
    (await kubernetes.list(path, { query, metadataOnly })).map((item) => Metadata.parse(item).metadata);
  const labelled = await of('/api/v1/namespaces', { labelSelector: NAMESPACE_LABEL.key });
  const excluded = [...EXCLUDED_NAMESPACES, ...(installation ? [installation.namespace] : [])];
  const enabled = labelled
    .filter((namespace) => labelOf(namespace) === NAMESPACE_LABEL.value && !excluded.includes(namespace.name))
    .map(({ name }) => name);
  const withSecrets = new Set<string>();
  const labels = await looked(['namespaces', 'secrets'], async () => {
    const [secrets, ofOtherTypes] = await Promise.all([
      of('/api/v1/secrets', { labelSelector: SECRET_LABEL.key }),
      of('/api/v1/secrets', {
        labelSelector: `${SECRET_LABEL.key}=${SECRET_LABEL.value}`,
        fieldSelector: `type!=${SECRET_TYPE}`,
      }),
    ]);
    for (const { namespace = '' } of secrets) withSecrets.add(namespace);
    return [
      namespaceLabels({ labelled, enabled, excluded, secrets }, repairs),
      secretLabels(secrets, ofOtherTypes, repairs),
    ];
  });
  // Those first that would be missed first.
  const tried = enabled.toSorted((a, b) => Number(withSecrets.has(b)) - Number(withSecrets.has(a)));
  return [...labels, ...(await looked(ATTEMPTED, () => attempts(cluster, tried)))];
}

function labelOf({ labels }: Metadata): string | undefined {
  return labels?.[NAMESPACE_LABEL.key];
}

function namespaceLabels(
  {
    labelled,
    enabled,
    excluded,
    secrets,
  }: {
    readonly labelled: readonly Metadata[];
    readonly enabled: readonly string[];
    readonly excluded: readonly string[];
    readonly secrets: readonly Metadata[];
  },
  repairs: Repairs,
): Finding {
  const label = (name: string) =>
    repairs.kubectl([
      ...['label', 'namespace', name, `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`, '--overwrite'],
    ]);
  const lost = secrets.find(({ namespace = '' }) => excluded.includes(namespace));
  if (lost)
    return broken(
      'namespaces',
      `the Secret ${pathOf(lost)} is managed, and that namespace is never served`,
      repairs.kubectl([
        '--namespace',
        lost.namespace ?? '',
        'label',
        'secret',
        lost.name,
        `${SECRET_LABEL.key}-`,
      ]),
      'create it in another namespace',
    );
  const unserved = [...new Set(secrets.flatMap(({ namespace }) => namespace ?? []))].filter(
    (name) => !enabled.includes(name),
  );
  const misnamed = labelled.filter(
    (namespace) =>
      labelOf(namespace) !== NAMESPACE_LABEL.value &&
      (unserved.includes(namespace.name) || !MEANT_OFF.test(labelOf(namespace) ?? '')),
  );
  const without = unserved.filter((name) => !misnamed.some((one) => one.name === name));
  const first = misnamed[0]?.name ?? without[0];
  if (first !== undefined)
    return broken(
      'namespaces',
      [
        ...(misnamed.length > 0
          ? [
              `the label's value is not "${NAMESPACE_LABEL.value}": ${told(misnamed.map((one) => `${one.name} has "${labelOf(one)}"`))}`,
            ]
          : []),
        ...(without.length > 0 ? [`managed Secrets lie in ${told(without)}, without the label`] : []),
      ].join('; '),
      label(first),
    );
  return enabled.length === 0
    ? broken('namespaces', 'none is enabled', label('NAME'))
    : well('namespaces', `enabled: ${told(enabled)}`);
}

function secretLabels(
  secrets: readonly Metadata[],
  ofOtherTypes: readonly Metadata[],
  repairs: Repairs,
): Finding {
  const label = ({ namespace = '', name }: Pick<Metadata, 'namespace' | 'name'>, ...what: string[]) =>
    repairs.kubectl(['--namespace', namespace, 'label', 'secret', name, ...what]);
  const managed = `${SECRET_LABEL.key}=${SECRET_LABEL.value}`;
  const [first] = ofOtherTypes;
  if (first)
    return broken(
      'secrets',
      `not of type ${SECRET_TYPE}: ${told(ofOtherTypes.map(pathOf))}`,
      label(first, `${SECRET_LABEL.key}-`),
      'a type cannot be changed: for credentials, delete it and create it again with the type',
    );
  const mislabelled = secrets.filter(({ labels }) => labels?.[SECRET_LABEL.key] !== SECRET_LABEL.value);
  const [wrong] = mislabelled.filter(({ labels }) => !MEANT_OFF.test(labels?.[SECRET_LABEL.key] ?? ''));
  if (wrong)
    return broken(
      'secrets',
      `the label's value is not "${SECRET_LABEL.value}": ${told(mislabelled.map(pathOf))}`,
      label(wrong, managed, '--overwrite'),
    );
  const count = secrets.length - mislabelled.length;
  return count === 0
    ? broken(
        'secrets',
        'none is managed',
        label({ namespace: 'NAMESPACE', name: 'NAME' }, managed),
        'README.md shows a whole one',
      )
    : well('secrets', `${count} managed`);
}

function pathOf({ namespace, name }: Metadata): string {
  return `${namespace}/${name}`;
}

/** What an attempt tells of. */
const ATTEMPTED = [
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
async function attempts(cluster: Cluster, enabled: readonly string[]): Promise<Finding[]> {
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
  const { installation, repairs } = cluster;
  const says = `${namespace}: ${said}`;
  const name = installation?.name ?? 'ecr-anywhere';
  const log = repairs.kubectlOfRelease(['logs', `deployment/${name}`, '--tail=50']);
  if (/failed calling webhook/.test(said)) {
    if (installation && /signed by unknown authority|unable to load root certificates/.test(said))
      return broken('ca-bundle', says, ...trustAgain(installation, repairs));
    if (installation && /x509|tls:/.test(said))
      return broken('certificate', says, ...newCertificate(installation, repairs));
    return unanswered(says, name, cluster);
  }
  if (/is entitled to no registry|names none of the registries/.test(said))
    return broken(
      'entitlement',
      says,
      repairs.upgrade(['--values', 'registries.yaml']),
      `registries.yaml: the chart's value registries, all of them, with one for ${namespace} (docs/registries.md). In use within two minutes`,
    );
  const [, role] = /the role arn:\S+:role\/(?:\S*\/)?(\S+) cannot be assumed/.exec(said) ?? [];
  if (role !== undefined)
    return broken(
      'aws-identity',
      says,
      repairs.aws(['iam', 'get-role', '--role-name', role, '--query', 'Role.AssumeRolePolicyDocument']),
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
      repairs.upgrade(['--set', 'aws.webIdentity.roleArn=ROLE']),
      'or another way of docs/aws-identity.md, which also says what goes wrong',
    );
  if (/AccessDenied|not authorized/.test(said)) {
    const [, principal = 'ROLE'] = /assumed-role\/([^/\s]+)\//.exec(said) ?? [];
    const Statement = [{ Effect: 'Allow', Action: 'ecr:GetAuthorizationToken', Resource: '*' }];
    return broken(
      'ecr',
      says,
      repairs.aws([
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
async function unanswered(says: string, name: string, { kubernetes, repairs }: Cluster): Promise<Finding> {
  const { namespace } = repairs.release;
  const path = `/apis/apps/v1/namespaces/${encodeURIComponent(namespace)}/deployments/${encodeURIComponent(name)}`;
  const log = `${repairs.kubectlOfRelease(['logs', `deployment/${name}`])} says why it is not ready`;
  let found: unknown;
  try {
    found = await kubernetes.find(path);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return broken('webhook', says, restart(name, repairs), log);
  }
  if (found === undefined)
    return broken('webhook', `${says}; there is no Deployment ${namespace}/${name}`, repairs.upgrade());
  const { spec, status } = Deployment.parse(found);
  if (spec.replicas === 0)
    return broken(
      'webhook',
      `${says}; its Deployment has 0 replicas`,
      repairs.kubectlOfRelease(['scale', `deployment/${name}`, '--replicas=2']),
    );
  const ready = status?.readyReplicas ?? 0;
  if (ready > 0 && /deadline exceeded|timeout|no route/i.test(says))
    return broken(
      'webhook',
      `${says}; ${ready} of its pods are ready`,
      repairs.upgrade(['--set', 'webhook.port=10250']),
      'the control plane does not reach the pods: a port that a firewall lets through, or hostNetwork=true (docs/chart-values.md)',
    );
  return broken('webhook', `${says}; ${ready} of its pods are ready`, restart(name, repairs), log);
}

/** What the annotations say of who has written them: `contract` where anybody has. */
function injected(answers: readonly Answered[], { installation, repairs }: Cluster): Finding[] {
  const writers = answers.map(({ namespace, annotations }) => ({ namespace, by: writerOf(annotations) }));
  const none = writers.filter(({ by }) => by.writer === 'none').map(({ namespace }) => namespace);
  const added = installation ? strangers(installation) : [];
  const injection =
    none.length === 0
      ? []
      : [
          broken(
            'injection',
            `the API server does not ask the webhook about Secrets in ${told(none)}${added.length > 0 ? `: ${added.toReversed().join(', ')} of its configuration is not the chart's` : ''}`,
            installation && added.length > 0
              ? removal(repairs, 'mutatingwebhookconfiguration', installation.name, added)
              : repairs.upgrade(),
          ),
        ];
  const original = writers.find(({ by }) => by.writer === 'original');
  if (original)
    return [
      ...injection,
      broken(
        'contract',
        `the webhook of CentML/ecr-anywhere answers in ${original.namespace}`,
        repairs.kubectl(['get', 'mutatingwebhookconfigurations']),
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
        repairs.upgrade(),
        'from a checkout of this version, with its image (image.tag, where you have set it)',
      ),
    ];
  if (newest > CONTRACT_VERSION)
    return [
      ...injection,
      broken(
        'contract',
        `${says}: it is newer`,
        repairs.deploy(),
        'from a checkout of the webhook’s version; use its ecr-anywhere, too',
      ),
    ];
  return [...injection, well('contract', `contract ${CONTRACT_VERSION}`)];
}

function told(names: readonly string[]): string {
  const more = names.length - TOLD;
  return [...names.slice(0, TOLD), ...(more > 0 ? [`${more} more`] : [])].join(', ');
}

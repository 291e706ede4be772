// The links inside a cluster, looked at as the operator. Changes nothing: what is created is a dry run, and of Secrets
// only metadata is asked for.
import { X509Certificate } from 'node:crypto';
import pMap from 'p-map';
import { z } from 'zod';
import {
  EXCLUDED_NAMESPACES,
  NAMESPACE_LABEL,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
} from '../contract/names.ts';
import { CONTRACT_VERSION, writerOf } from '../contract/version.ts';
import { brokenFence, findInstallation, type Installation, type Webhook } from './chart.ts';
import { CliError, EXIT } from './errors.ts';
import { ApiError, type Kubernetes } from './kubernetes.ts';
import { broken, type Finding, type LinkName, unknown, well } from './links.ts';

/** ValidatingAdmissionPolicy is stable from here on (Kubernetes 1.30 release notes). */
const MIN_MINOR = 30;
/** A Secret is tried in so many of the enabled namespaces. */
const NAMESPACES_TRIED = 20;
const TRIED_AT_ONCE = 4;
/** Of what is wrong in many places, so many are told. */
const TOLD = 5;

const Metadata = z.object({
  metadata: z.object({
    name: z.string(),
    namespace: z.string().optional(),
    labels: z.record(z.string(), z.string()).optional(),
    annotations: z.record(z.string(), z.string()).optional(),
  }),
});
type Metadata = z.infer<typeof Metadata>['metadata'];

/** Where an attempt to create a Secret was refused, and in whose words. */
interface Refusal {
  readonly namespace: string;
  readonly said: string;
}

/** Looks at all of them. What the operator may not see is unknown. */
export async function inCluster(kubernetes: Kubernetes): Promise<Finding[]> {
  const version = await looked(['kubernetes'], () => kubernetesVersion(kubernetes));
  let installation: Installation | undefined;
  const chart = await looked(['chart'], async () => {
    const found = await findInstallation(kubernetes);
    installation = found.installation;
    return [chartFinding(found)];
  });
  const present = installation;
  const parts = await Promise.all([
    present
      ? looked(['policies'], async () => [policies(await brokenFence(kubernetes, present), present)])
      : [unknown('policies', 'the chart is not installed')],
    present
      ? [configuration(present), caBundle(present)]
      : (['configuration', 'ca-bundle'] as const).map((link) => unknown(link, 'the chart is not installed')),
    looked(['namespaces', 'secrets'], () => labels(kubernetes)),
    looked(ATTEMPTED, () => attempts(kubernetes, present)),
  ]);
  return [...version, ...chart, ...parts.flat()];
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
      ? broken('kubernetes', gitVersion, `upgrade the cluster to 1.${MIN_MINOR} or later`)
      : well('kubernetes', gitVersion),
  ];
}

function chartFinding({ installation, originals }: Awaited<ReturnType<typeof findInstallation>>): Finding {
  const install =
    'helm install ecr-anywhere webhook/chart --namespace ecr-anywhere --create-namespace --wait --atomic … (README.md)';
  const names = originals.join(', ');
  if (!installation && originals.length > 0)
    return broken(
      'chart',
      `CentML/ecr-anywhere is installed here (MutatingWebhookConfiguration ${names}), and not this chart`,
      `install this chart first, so that nothing goes unserved, then uninstall the other: ${install}`,
    );
  if (!installation) return broken('chart', 'there is no MutatingWebhookConfiguration of it', install);
  if (originals.length > 0)
    return broken(
      'chart',
      `CentML/ecr-anywhere is installed beside it (MutatingWebhookConfiguration ${names}), and writes the same Secrets`,
      `kubectl delete mutatingwebhookconfiguration ${names}, or uninstall its release`,
    );
  const { release, namespace, version = 'unknown' } = installation;
  return well('chart', `release ${release} in ${namespace}, version ${version}`);
}

function policies(wrong: readonly string[], installation: Installation): Finding {
  return wrong.length > 0
    ? broken('policies', wrong.join('; '), upgrade(installation))
    : well('policies', 'in force');
}

/** What the chart's template says of it, and the API server goes by. */
function configuration(installation: Installation): Finding {
  const wrong = wrongIn(installation.webhook);
  return wrong.length > 0
    ? broken('configuration', wrong.join('; '), upgrade(installation))
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

function caBundle(installation: Installation): Finding {
  const { caBundle: encoded } = installation.webhook.clientConfig;
  if (!encoded)
    return broken(
      'ca-bundle',
      'it is empty: the webhook, which writes it, has not run yet',
      restart(installation),
    );
  const pem = Buffer.from(encoded, 'base64').toString();
  try {
    const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
    const ends = blocks.map((block) => new X509Certificate(block).validToDate.getTime());
    if (ends.length === 0) throw new Error('no certificate');
    const end = new Date(Math.max(...ends)).toISOString();
    return Math.max(...ends) > Date.now()
      ? well('ca-bundle', `valid until ${end}`)
      : broken('ca-bundle', `it expired at ${end}`, restart(installation));
  } catch {
    return broken('ca-bundle', 'it holds no certificate', restart(installation));
  }
}

/** Labels and types, of namespaces and Secrets that are, or look as if they were meant to be, ours. */
async function labels(kubernetes: Kubernetes): Promise<Finding[]> {
  const metadataOnly = 'PartialObjectMetadataList';
  const of = async (path: string, query: Record<string, string>) =>
    (await kubernetes.list(path, { query, metadataOnly })).map((item) => Metadata.parse(item).metadata);
  const [namespaces, secrets, ofOtherTypes] = await Promise.all([
    of('/api/v1/namespaces', { labelSelector: NAMESPACE_LABEL.key }),
    of('/api/v1/secrets', { labelSelector: SECRET_LABEL.key }),
    of('/api/v1/secrets', {
      labelSelector: `${SECRET_LABEL.key}=${SECRET_LABEL.value}`,
      fieldSelector: `type!=${SECRET_TYPE}`,
    }),
  ]);
  const enabled = namespaces.filter(isEnabled);
  const names = new Set(enabled.map(({ name }) => name));
  const wrongValue = namespaces.filter(
    (namespace) => namespace.labels?.[NAMESPACE_LABEL.key] !== NAMESPACE_LABEL.value,
  );
  const stray = secrets.filter(({ namespace = '' }) => !names.has(namespace));
  const strayNames = [
    ...new Set([...wrongValue.map(({ name }) => name), ...stray.map(({ namespace }) => namespace ?? '')]),
  ];
  const mislabelled = secrets.filter((secret) => secret.labels?.[SECRET_LABEL.key] !== SECRET_LABEL.value);
  return [
    namespaceLabels(enabled, strayNames, wrongValue),
    secretLabels(secrets.length, mislabelled, ofOtherTypes),
  ];
}

function isEnabled({ name, labels: all }: Metadata): boolean {
  return all?.[NAMESPACE_LABEL.key] === NAMESPACE_LABEL.value && !EXCLUDED_NAMESPACES.includes(name);
}

function namespaceLabels(
  enabled: readonly Metadata[],
  stray: readonly string[],
  wrongValue: readonly Metadata[],
): Finding {
  const label = (name: string) =>
    `kubectl label namespace ${name} ${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value} --overwrite`;
  const first = stray[0];
  if (first !== undefined) {
    if (EXCLUDED_NAMESPACES.includes(first))
      return broken(
        'namespaces',
        `${first} is never served`,
        'move its managed Secrets to another namespace',
      );
    const values = wrongValue.map(
      ({ name, labels: all }) => `${name} has the value "${all?.[NAMESPACE_LABEL.key]}"`,
    );
    const without = stray.filter((name) => !wrongValue.some((one) => one.name === name));
    const says = [
      ...values,
      ...(without.length > 0 ? [`managed Secrets lie in ${told(without)}, without the label`] : []),
    ];
    return broken('namespaces', says.join('; '), label(first));
  }
  return enabled.length === 0
    ? broken('namespaces', 'none is enabled', label('NAME'))
    : well('namespaces', `enabled: ${told(enabled.map(({ name }) => name))}`);
}

function secretLabels(
  count: number,
  mislabelled: readonly Metadata[],
  ofOtherTypes: readonly Metadata[],
): Finding {
  const path = ({ namespace, name }: Metadata) => `${namespace}/${name}`;
  const [first] = ofOtherTypes;
  if (first)
    return broken(
      'secrets',
      `not of type ${SECRET_TYPE}: ${told(ofOtherTypes.map(path))}`,
      `a type cannot be changed: kubectl --namespace ${first.namespace} delete secret ${first.name}, then create it with the type`,
    );
  const [wrong] = mislabelled;
  if (wrong)
    return broken(
      'secrets',
      `the label's value is not "${SECRET_LABEL.value}": ${told(mislabelled.map(path))}`,
      `kubectl --namespace ${wrong.namespace} label secret ${wrong.name} ${SECRET_LABEL.key}=${SECRET_LABEL.value} --overwrite`,
    );
  return count === 0
    ? broken(
        'secrets',
        'none is labelled',
        `kubectl --namespace NAMESPACE label secret NAME ${SECRET_LABEL.key}=${SECRET_LABEL.value}; README.md shows a whole one`,
      )
    : well('secrets', `${count} managed`);
}

/** What an attempt tells of. */
const ATTEMPTED: readonly LinkName[] = [
  'webhook',
  'certificate',
  'injection',
  'contract',
  'entitlement',
  'aws-identity',
  'ecr',
];

/** Creates a labelled Secret in enabled namespaces, as a dry run: the whole chain answers, and nothing is stored. */
async function attempts(kubernetes: Kubernetes, installation: Installation | undefined): Promise<Finding[]> {
  const query = { labelSelector: `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}` };
  const items = await kubernetes.list('/api/v1/namespaces', {
    query,
    metadataOnly: 'PartialObjectMetadataList',
  });
  const namespaces = items
    .map((item) => Metadata.parse(item).metadata)
    .filter(isEnabled)
    .map(({ name }) => name)
    .slice(0, NAMESPACES_TRIED);
  if (namespaces.length === 0)
    return ATTEMPTED.map((link) => unknown(link, 'no namespace is enabled in which a Secret could be tried'));
  const answers = await pMap(namespaces, (namespace) => attempt(kubernetes, namespace), {
    concurrency: TRIED_AT_ONCE,
  });
  const refusals = answers.filter((answer) => 'said' in answer);
  const annotated = answers.filter((answer) => 'annotations' in answer);
  const failures = refusals.map((refusal) => refused(refusal, installation));
  const seen = new Map(failures.map((failure) => [failure.link, failure]));
  if (annotated.length > 0) {
    for (const finding of injected(annotated, installation))
      if (finding.verdict === 'broken' || !seen.has(finding.link)) seen.set(finding.link, finding);
    // Credentials are there in some namespace: so far the chain holds.
    const holds = annotated.some(({ annotations }) => writerOf(annotations).writer !== 'none');
    for (const link of holds
      ? (['webhook', 'certificate', 'entitlement', 'aws-identity', 'ecr'] as const)
      : [])
      if (!seen.has(link)) seen.set(link, well(link, WELL[link]));
  }
  // A denial of the webhook's own is an answer of the webhook.
  const answered = failures.some(({ link }) => ['entitlement', 'aws-identity', 'ecr'].includes(link));
  for (const link of answered ? (['webhook', 'certificate', 'injection'] as const) : [])
    if (!seen.has(link)) seen.set(link, well(link, WELL[link]));
  return ATTEMPTED.map((link) => seen.get(link) ?? unknown(link, 'the chain does not hold so far'));
}

const WELL = {
  webhook: 'the API server was answered',
  certificate: 'the API server trusts it',
  injection: 'the API server asks the webhook',
  entitlement: 'every namespace that was tried has some',
  'aws-identity': 'AWS knows the webhook',
  ecr: 'credentials would be written (dry run)',
} as const;

type Attempt =
  | Refusal
  | { readonly namespace: string; readonly annotations: Readonly<Record<string, string>> };

async function attempt(kubernetes: Kubernetes, namespace: string): Promise<Attempt> {
  try {
    const { body } = await kubernetes.post(`/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets`, {
      query: { dryRun: 'All' },
      metadataOnly: 'PartialObjectMetadata',
      body: {
        apiVersion: 'v1',
        kind: 'Secret',
        type: SECRET_TYPE,
        metadata: { name: 'ecr-anywhere-doctor', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
        // CentML's webhook replaces data, and fails where there is none.
        data: { [SECRET_KEY]: Buffer.from('{"auths":{}}').toString('base64') },
      },
    });
    return { namespace, annotations: Metadata.parse(body).metadata.annotations ?? {} };
  } catch (error) {
    // Who may not create Secrets learns nothing of the webhook.
    if (!(error instanceof ApiError) || (error.status === 403 && !/admission webhook/.test(error.said)))
      throw error;
    return { namespace, said: error.said };
  }
}

/** Which link it is that an attempt failed at, by the words of the API server or the webhook. */
function refused({ namespace, said }: Refusal, installation: Installation | undefined): Finding {
  const says = `${namespace}: ${said}`;
  const pods = `kubectl --namespace ${installation?.namespace ?? 'ecr-anywhere'} get pods; the webhook's log says why`;
  if (/failed calling webhook/.test(said)) {
    if (/x509: certificate signed by unknown authority|no caBundle/.test(said))
      return broken('ca-bundle', says, restart(installation));
    if (/x509|tls:/.test(said)) return broken('certificate', says, restart(installation));
    return broken('webhook', says, pods);
  }
  if (/is entitled to no registry|names none of the registries/.test(said))
    return broken(
      'entitlement',
      says,
      'add the namespace to the chart’s value registries (docs/registries.md): helm upgrade',
    );
  if (
    /has no AWS identity|cannot be assumed|ExpiredToken|InvalidIdentityToken|UnrecognizedClient|InvalidClientTokenId/.test(
      said,
    )
  )
    return broken(
      'aws-identity',
      says,
      'docs/aws-identity.md, "What goes wrong"; helm upgrade --set aws.webIdentity.roleArn=…',
    );
  if (/ECR/.test(said))
    return broken(
      'ecr',
      says,
      /AccessDenied|not authorized/.test(said)
        ? 'let the webhook’s role do ecr:GetAuthorizationToken (docs/aws-identity.md, "Permissions")'
        : 'can the pods reach ECR (proxy.httpsProxy of the chart, a firewall, PrivateLink)?',
    );
  return broken('webhook', says, pods);
}

/** What the annotations say of who has written them. */
function injected(
  answers: readonly { readonly namespace: string; readonly annotations: Readonly<Record<string, string>> }[],
  installation: Installation | undefined,
): Finding[] {
  const writers = answers.map(({ namespace, annotations }) => ({ namespace, by: writerOf(annotations) }));
  const none = writers.filter(({ by }) => by.writer === 'none').map(({ namespace }) => namespace);
  const injection =
    none.length > 0
      ? broken(
          'injection',
          `the API server does not ask the webhook about Secrets in ${told(none)}`,
          installation ? upgrade(installation) : 'install the chart',
        )
      : well('injection', WELL.injection);
  const other = writers.find(({ by }) => by.writer === 'original');
  if (other)
    return [
      injection,
      broken(
        'contract',
        `the webhook of CentML/ecr-anywhere answers in ${other.namespace}`,
        'uninstall its release once this chart is installed',
      ),
    ];
  const spoken = writers.flatMap(({ by }) => (by.writer === 'ours' ? [by.contract] : []));
  if (spoken.length === 0) return [injection];
  const [oldest, newest] = [Math.min(...spoken), Math.max(...spoken)];
  const says = `it speaks contract ${oldest < CONTRACT_VERSION ? oldest : newest}, this command line ${CONTRACT_VERSION}`;
  if (oldest < CONTRACT_VERSION)
    return [injection, broken('contract', says, installation ? upgrade(installation) : 'helm upgrade')];
  if (newest > CONTRACT_VERSION)
    return [
      injection,
      broken('contract', says, 'use a newer ecr-anywhere, and deploy its refresher: npx cdk deploy'),
    ];
  return [injection, well('contract', `contract ${CONTRACT_VERSION}`)];
}

function told(names: readonly string[]): string {
  const more = names.length - TOLD;
  return [...names.slice(0, TOLD), ...(more > 0 ? [`${more} more`] : [])].join(', ');
}

function upgrade({ release, namespace }: Installation): string {
  return `helm upgrade ${release} webhook/chart --namespace ${namespace} --reuse-values`;
}

function restart(installation: Installation | undefined): string {
  const { name, namespace } = installation ?? { name: 'ecr-anywhere', namespace: 'ecr-anywhere' };
  return `kubectl --namespace ${namespace} rollout restart deployment/${name}; docs/certificates.md for the modes that are not self`;
}

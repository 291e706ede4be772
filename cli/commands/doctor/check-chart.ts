// The links that are looked at in what the chart has installed: its release, the fence, the webhook's configuration; and
// whether the cluster is new enough for it.
import { X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { NAMESPACE_LABEL, SECRET_LABEL } from '../../../contract/names.ts';
import type { Found, Gap, Installation, Webhook } from '../../kubernetes/chart.ts';
import type { Kubernetes } from '../../kubernetes/client.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { trustAgain } from './certificates.ts';
import { broken, type Finding, well } from './checks.ts';

/** ValidatingAdmissionPolicy is stable from here on (Kubernetes 1.30 release notes). */
const MIN_MINOR = 30;

/** @throws CliError */
export async function kubernetesVersion(kubernetes: Kubernetes): Promise<Finding[]> {
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

export function chartFinding({ installation, release, originals }: Found, commands: ShellCommands): Finding {
  const names = originals.join(', ');
  if (!installation && release)
    return broken(
      'chart',
      `the MutatingWebhookConfiguration of the release ${release.release} in ${release.namespace} is gone`,
      commands.upgrade(),
    );
  if (!installation && originals.length > 0)
    return broken(
      'chart',
      `CentML/ecr-anywhere is installed here (MutatingWebhookConfiguration ${names}), and not this chart`,
      // Both would call their objects ecr-anywhere.
      commands.install(originals.includes('ecr-anywhere') ? 'ecr-anywhere-keeper' : 'ecr-anywhere'),
      'README.md has the values. Install it first, so that nothing goes unserved; then uninstall the other',
    );
  if (!installation)
    return broken(
      'chart',
      'there is no MutatingWebhookConfiguration of it',
      commands.install('ecr-anywhere'),
      'README.md has the values',
    );
  if (originals.length > 0)
    return broken(
      'chart',
      `CentML/ecr-anywhere is installed beside it (MutatingWebhookConfiguration ${names}), and writes the same Secrets: refreshes may be refused`,
      commands.kubectl(['delete', 'mutatingwebhookconfiguration', ...originals]),
      'or uninstall its release',
    );
  const { version = 'unknown' } = installation;
  return well('chart', `release ${installation.release} in ${installation.namespace}, version ${version}`);
}

/** @param gaps in the fence */
export function policies(gaps: readonly Gap[], commands: ShellCommands): Finding {
  const added = gaps.find((gap) => gap.added)?.added;
  if (gaps.length === 0) return well('policies', 'in force');
  return broken(
    'policies',
    gaps.map(({ says }) => says).join('; '),
    added ? commands.removeFields(added.kind, added.name, added.paths) : commands.upgrade(),
  );
}

/** What the chart's template says of it, and the API server goes by. */
export function configuration({ webhook }: Installation, commands: ShellCommands): Finding {
  const wrong = wrongIn(webhook);
  return wrong.length > 0
    ? broken('configuration', wrong.join('; '), commands.upgrade())
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

export function caBundle(installation: Installation, commands: ShellCommands): Finding {
  const { caBundle: encoded } = installation.webhook.clientConfig;
  const wrong = (says: string) => broken('ca-bundle', says, ...trustAgain(installation, commands));
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

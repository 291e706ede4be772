// The checks of what the chart installs: the release, the write policy, and the webhook configuration.
import { X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { NAMESPACE_LABEL, SECRET_LABEL } from '../../../contract/names.ts';
import type { Found, Gap, Installation, Webhook } from '../../kubernetes/chart.ts';
import type { Kubernetes } from '../../kubernetes/client.ts';
import { formatList } from '../../output/format-list.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { investigateCertificate } from './certificates.ts';
import { type Finding, failed, investigate, passed, repair } from './checks.ts';

/** ValidatingAdmissionPolicy is stable from Kubernetes 1.30 on (release notes). */
const MIN_MINOR = 30;

/** @throws CliError */
export async function kubernetesVersion(
  kubernetes: Kubernetes,
  commands: ShellCommands,
): Promise<Finding | undefined> {
  const { body } = await kubernetes.get('/version');
  const { gitVersion, major, minor } = z
    .object({ gitVersion: z.string(), major: z.string(), minor: z.string() })
    .parse(body);
  const isOld = Number(major) === 1 && Number.parseInt(minor, 10) < MIN_MINOR;
  if (!isOld) return undefined;
  return failed(
    'kubernetes-too-old',
    `The cluster runs Kubernetes ${gitVersion}. The chart needs 1.${MIN_MINOR} or later.`,
    investigate(commands.kubectl(['version']), 'Upgrade the control plane as its provider documents.'),
  );
}

const VALUES = 'docs/chart-values.md lists the values that the chart needs';

export function chartFinding({ installation, release, originals }: Found, commands: ShellCommands): Finding {
  const names = formatList(originals);
  const original = `CentML/ecr-anywhere (MutatingWebhookConfiguration ${names})`;
  const showOriginals = commands.kubectl([
    ...['get', 'mutatingwebhookconfigurations', ...originals],
    '--output=custom-columns=NAME:.metadata.name,RELEASE:.metadata.annotations.meta\\.helm\\.sh/release-name,NAMESPACE:.metadata.annotations.meta\\.helm\\.sh/release-namespace',
  ]);
  if (!installation && release)
    return failed(
      'configuration-missing',
      `The MutatingWebhookConfiguration of the release ${release.release} in ${release.namespace} does not exist.`,
      repair(commands.upgrade()),
    );
  if (!installation && originals.length > 0)
    return failed(
      'original-in-place',
      `${original} is installed, and this chart is not.`,
      investigate(
        showOriginals,
        // Both charts would call their objects ecr-anywhere.
        `Install this chart first: ${commands.install(originals.includes('ecr-anywhere') ? 'ecr-anywhere-keeper' : 'ecr-anywhere')}. ${VALUES}. Then uninstall the release of CentML/ecr-anywhere.`,
      ),
    );
  if (!installation)
    return failed(
      'chart-not-installed',
      "The chart's MutatingWebhookConfiguration does not exist.",
      investigate(
        commands.helm(['list', '--all-namespaces']),
        `To install the chart: ${commands.install('ecr-anywhere')}. ${VALUES}.`,
      ),
    );
  if (originals.length > 0)
    return failed(
      'original-beside',
      `${original} is installed beside this chart.`,
      investigate(showOriginals, 'Uninstall its release, or delete its MutatingWebhookConfiguration.'),
    );
  const { version = 'unknown' } = installation;
  return passed('chart', `release ${installation.release} in ${installation.namespace}, version ${version}`);
}

/** @param gaps where the API server does not enforce the write policy */
export function writePolicy(gaps: readonly Gap[], commands: ShellCommands): Finding {
  const added = gaps.find((gap) => gap.added)?.added;
  if (gaps.length === 0) return passed('write-policy', 'enforced');
  return failed(
    'write-policy-not-enforced',
    gaps.map(({ problem }) => problem).join('; '),
    repair(added ? commands.removeFields(added.kind, added.name, added.paths) : commands.upgrade()),
  );
}

/** Compares the webhook configuration with the chart's template. */
export function configuration({ webhook }: Installation, commands: ShellCommands): Finding {
  const changes = changesOf(webhook);
  return changes.length > 0
    ? failed('configuration-changed', changes.join('; '), repair(commands.upgrade()))
    : passed('configuration', 'selects managed Secrets of enabled namespaces, and fails closed');
}

function changesOf({
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
    ...(missing.length > 0 ? [`its rules leave out ${missing.join(' and ')} of Secrets`] : []),
    ...(failurePolicy === 'Fail' ? [] : [`its failurePolicy is ${failurePolicy}, not Fail`]),
    ...(selects(objectSelector, SECRET_LABEL) ? [] : ['its objectSelector does not select managed Secrets']),
    ...(selects(namespaceSelector, NAMESPACE_LABEL)
      ? []
      : ['its namespaceSelector does not select enabled namespaces']),
    ...(clientConfig.service ? [] : ['its clientConfig names no Service']),
  ];
}

/** Judges the caBundle by itself. @returns undefined if it holds a valid certificate */
export function caBundle(
  installation: Installation,
  commands: ShellCommands,
  now = Date.now(),
): Finding | undefined {
  const problem = problemOfBundle(installation.webhook.clientConfig.caBundle, now);
  if (problem === undefined) return undefined;
  return failed(
    'ca-bundle-invalid',
    `The caBundle of the webhook configuration ${problem}.`,
    investigateCertificate('caBundle', installation, commands),
  );
}

function problemOfBundle(encoded: string | undefined, now: number): string | undefined {
  if (!encoded) return 'is empty';
  const pem = Buffer.from(encoded, 'base64').toString();
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g);
  if (!blocks) return 'holds no certificate';
  try {
    const end = Math.max(...blocks.map((block) => new X509Certificate(block).validToDate.getTime()));
    return end > now ? undefined : `expired at ${new Date(end).toISOString()}`;
  } catch {
    return 'holds no certificate';
  }
}

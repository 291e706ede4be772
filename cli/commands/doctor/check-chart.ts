// The checks of what the chart installs: the release, the write policy, and the webhook configuration.
import { NAMESPACE_LABEL, SECRET_LABEL } from '../../../contract/names.ts';
import {
  type Found,
  type Gap,
  type Installation,
  proposedRelease,
  type Webhook,
} from '../../kubernetes/chart.ts';
import { formatList } from '../../output/format-list.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { type Finding, failed, passed } from './checks.ts';

export function chartFinding(found: Found, commands: ShellCommands): Finding {
  const { installation, release, originals } = found;
  const original = `CentML/ecr-anywhere is installed (MutatingWebhookConfiguration ${formatList(originals)})`;
  if (!installation && release)
    return failed(
      'configuration-missing',
      `The MutatingWebhookConfiguration of the release ${release.release} in ${release.namespace} does not exist.`,
      { repair: commands.upgrade() },
    );
  if (!installation) {
    const seen = originals.length > 0 ? ` ${original}.` : '';
    return failed('chart-not-installed', `The chart's MutatingWebhookConfiguration does not exist.${seen}`, {
      investigate: commands.helm(['list', '--all-namespaces']),
      hint: `To install the chart: ${commands.install(proposedRelease(found))}. docs/chart-values.md lists the values that the chart needs.`,
    });
  }
  if (originals.length > 0)
    return failed('original-beside', `${original} beside this chart.`, {
      investigate: commands.kubectl(['describe', 'mutatingwebhookconfigurations', ...originals]),
      hint: originals.some((other) => other < installation.name)
        ? 'It is called before this webhook, which therefore denies every refresh. Uninstall its release, or install this one under a name that comes before it: docs/migration.md.'
        : 'When both have run for a while, remove it: docs/migration.md.',
    });
  const { version = 'unknown' } = installation;
  return passed('chart', `release ${installation.release} in ${installation.namespace}, version ${version}`);
}

/** @param gaps where the API server does not enforce the write policy */
export function writePolicy(gaps: readonly Gap[], commands: ShellCommands): Finding {
  const added = gaps.find((gap) => gap.added)?.added;
  if (gaps.length === 0) return passed('write-policy', 'enforced');
  return failed('write-policy-not-enforced', gaps.map(({ problem }) => problem).join('; '), {
    repair: added ? commands.removeFields(added.kind, added.name, added.paths) : commands.upgrade(),
  });
}

/** Compares the webhook configuration with the chart's template. */
export function configuration({ webhook }: Installation, commands: ShellCommands): Finding {
  const changes = changesOf(webhook);
  return changes.length > 0
    ? failed('configuration-changed', changes.join('; '), { repair: commands.upgrade() })
    : passed('configuration', 'selects managed Secrets of enabled namespaces, and fails closed');
}

function changesOf(webhook: Webhook): string[] {
  const { clientConfig, failurePolicy, rules = [], namespaceSelector, objectSelector } = webhook;
  const ofSecrets = rules.filter(({ resources = [] }) => resources.includes('secrets'));
  const operations = ofSecrets.flatMap((rule) => rule.operations ?? []);
  const missing = ['CREATE', 'UPDATE'].filter(
    (one) => !operations.includes(one) && !operations.includes('*'),
  );
  const selects = (selector: typeof objectSelector, { key, value }: { key: string; value: string }) =>
    selector?.matchLabels?.[key] === value ||
    selector?.matchExpressions?.some(
      (one) => one.key === key && one.operator === 'In' && String(one.values) === value,
    );
  const changes = [
    missing.length > 0 && `its rules leave out ${missing.join(' and ')} of Secrets`,
    failurePolicy !== 'Fail' && `its failurePolicy is ${failurePolicy}, not Fail`,
    !selects(objectSelector, SECRET_LABEL) && 'its objectSelector does not select managed Secrets',
    !selects(namespaceSelector, NAMESPACE_LABEL) &&
      'its namespaceSelector does not select enabled namespaces',
    !clientConfig.service && 'its clientConfig names no Service',
  ];
  return changes.filter((change) => change !== false);
}

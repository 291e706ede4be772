// The check of other mutating webhooks and policies: sends a refresh request as the refresher, as a dry run, and reads from
// the response whether the write policy refuses what another mutator made of it.
import { z } from 'zod';
import { ANNOTATION, REFRESHER_FIELD_MANAGER } from '../../../contract/names.ts';
import { type Installation, REGISTRATION, refresherUsername } from '../../kubernetes/chart.ts';
import { ApiError, type Kubernetes } from '../../kubernetes/client.ts';
import { formatList } from '../../output/format-list.ts';
import { type Finding, failed, passed, skipped } from './checks.ts';
import type { InstalledCluster, Metadata } from './observe.ts';

const Rules = z
  .array(z.object({ apiGroups: z.array(z.string()).nullish(), resources: z.array(z.string()).nullish() }))
  .nullish();
const WebhookConfiguration = z.object({
  metadata: z.object({ name: z.string() }),
  webhooks: z.array(z.object({ rules: Rules })).nullish(),
});
const Policy = z.object({
  metadata: z.object({ name: z.string() }),
  spec: z.object({ matchConstraints: z.object({ resourceRules: Rules }).nullish() }),
});

/** @param secret a managed Secret of an enabled namespace. @throws CliError */
export async function checkMutators(
  { kubernetes, installation, commands }: InstalledCluster,
  { namespace = '', name }: Metadata,
): Promise<Finding[]> {
  const username = refresherUsername(installation);
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets/${encodeURIComponent(name)}`;
  try {
    await kubernetes.patch(path, {
      query: { dryRun: 'All', fieldManager: REFRESHER_FIELD_MANAGER },
      body: { metadata: { annotations: { [ANNOTATION.requestedAt]: new Date().toISOString() } } },
      metadataOnly: 'PartialObjectMetadata',
      impersonate: username,
    });
    return [passed('mutators', `a refresh of ${namespace}/${name} would be stored (dry run)`)];
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (!isRefusedChange(error, installation)) return [skipped('mutators', error.serverMessage)];
    const { kinds, names } = await otherMutators(kubernetes, installation);
    return [
      failed(
        'changed-by-other-mutator',
        `Another mutator changes Secrets in the refresher's requests: ${error.serverMessage} Mutators of Secrets: ${formatList(names) || 'none that you may list'}.`,
        {
          investigate: commands.kubectl(['get', kinds.join(','), '--output=yaml']),
          hint: `Exclude ${username} from the mutator. See "Another mutator changes the Secret" in docs/troubleshooting.md.`,
        },
      ),
    ];
  }
}

/** The webhook has a code for it; the API server's policies have none, so that the name of the policy is read. */
function isRefusedChange({ causes, serverMessage }: ApiError, { refresher }: Installation): boolean {
  return (
    causes.some(({ reason }) => reason === 'refresher-out-of-bounds') ||
    serverMessage.includes(`ValidatingAdmissionPolicy '${refresher}-update'`)
  );
}

/** The webhook configurations and policies that may change Secrets, as kind/name, without the chart's; and the kinds to list. */
async function otherMutators(
  kubernetes: Kubernetes,
  { name }: Installation,
): Promise<{ kinds: string[]; names: string[] }> {
  const list = (plural: string) =>
    kubernetes.list(`${REGISTRATION}/${plural}`).catch((error: unknown) => {
      if (error instanceof ApiError) return undefined;
      throw error;
    });
  const [configurations, policies] = await Promise.all([
    list('mutatingwebhookconfigurations'),
    // Kubernetes before 1.36 has none.
    list('mutatingadmissionpolicies'),
  ]);
  const webhooks = (configurations ?? []).map((item) => WebhookConfiguration.parse(item));
  const ofPolicies = (policies ?? []).map((item) => Policy.parse(item));
  const names = [
    ...webhooks
      .filter(({ webhooks: all }) => all?.some(({ rules }) => matchesSecrets(rules)))
      .map(({ metadata }) => `mutatingwebhookconfiguration/${metadata.name}`),
    ...ofPolicies
      .filter(({ spec }) => matchesSecrets(spec.matchConstraints?.resourceRules))
      .map(({ metadata }) => `mutatingadmissionpolicy/${metadata.name}`),
  ].filter((other) => ![name, `${name}-caller-proof`].some((own) => other.endsWith(`/${own}`)));
  return {
    kinds: ['mutatingwebhookconfigurations', ...(policies ? ['mutatingadmissionpolicies'] : [])],
    names,
  };
}

function matchesSecrets(rules: z.infer<typeof Rules>): boolean {
  return (rules ?? []).some(
    ({ apiGroups, resources }) =>
      (apiGroups ?? []).some((group) => group === '' || group === '*') &&
      (resources ?? []).some((resource) => ['secrets', '*', '*/*'].includes(resource)),
  );
}

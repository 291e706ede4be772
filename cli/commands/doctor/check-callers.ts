// The check of who gets an answer from the webhook. doctor cannot send a request from a pod, so it reads what the chart has
// set up, and whether those objects exist. `helm test` tries it from a pod.
import { type Installation, REGISTRATION } from '../../kubernetes/chart.ts';
import { type Finding, failed, passed, skipped } from './checks.ts';
import type { InstalledCluster } from './observe.ts';

/** What keeps other pods from the webhook's answers: the objects that it consists of, and a sentence about it. */
const WAYS: Readonly<
  Record<string, { readonly says: string; readonly needs: (release: Installation) => readonly string[] }>
> = {
  'caller-proof': {
    says: 'only the API server gets an answer: it sends the caller proof',
    needs: ({ name }) => [
      `${REGISTRATION}/mutatingadmissionpolicies/${name}-caller-proof`,
      `${REGISTRATION}/mutatingadmissionpolicybindings/${name}-caller-proof`,
    ],
  },
  'client-certificate': {
    says: 'only the API server gets an answer: it sends a client certificate',
    needs: () => [],
  },
  'network-policy': {
    says: 'a network policy keeps other pods from the webhook',
    needs: ({ name, namespace }) => [
      `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies/${name}`,
    ],
  },
  'cilium-network-policy': {
    says: 'a network policy keeps other pods from the webhook',
    needs: ({ name, namespace }) => [
      `/apis/cilium.io/v2/namespaces/${namespace}/ciliumnetworkpolicies/${name}`,
    ],
  },
};

/** @throws CliError if the operator may not read the objects */
export async function checkCallers({
  kubernetes,
  installation,
  commands,
}: InstalledCluster): Promise<Finding[]> {
  const { callers } = installation;
  if (callers === undefined) return [skipped('callers', 'the installed chart does not say it')];
  const way = WAYS[callers];
  if (!way)
    return [passed('callers', 'any pod gets an answer, as the values of the chart allow (docs/callers.md)')];
  const paths = way.needs(installation);
  const found = await Promise.all(paths.map((path) => kubernetes.find(path)));
  const missing = paths.filter((_, index) => found[index] === undefined).map(kindAndName);
  return missing.length === 0
    ? [passed('callers', `${way.says} (helm test tries it from a pod)`)]
    : [
        failed('callers-not-limited', `${missing.join(' and ')} does not exist.`, {
          repair: commands.upgrade(),
        }),
      ];
}

/** The last two parts of a path. */
function kindAndName(path: string): string {
  return path.split('/').slice(-2).join('/');
}

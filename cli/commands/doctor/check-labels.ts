// The check of the labels of namespaces and Secrets, and of the types of Secrets. Reads only the metadata of Secrets.
import { EXCLUDED_NAMESPACES, NAMESPACE_LABEL, SECRET_LABEL, SECRET_TYPE } from '../../../contract/names.ts';
import { formatList } from '../../output/format-list.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { type Finding, failed, passed } from './checks.ts';
import { type Cluster, Metadata } from './observe.ts';

/** Label values by which an operator switches a namespace or a Secret off. */
const SWITCHED_OFF = /^(disabled|false|no|off|)$/i;

export interface Namespaces {
  /** Names of the enabled namespaces. */
  readonly enabled: readonly string[];
  /** Names of the namespaces whose label has another value by mistake. */
  readonly mislabelled: readonly string[];
  /** Names of the namespaces that the webhook never serves. */
  readonly excluded: readonly string[];
}

/** @throws CliError */
export async function namespacesOf(cluster: Cluster): Promise<Namespaces> {
  const { right, wrong } = await listLabelled(cluster, 'namespaces', NAMESPACE_LABEL);
  const { installation } = cluster;
  const excluded = [...EXCLUDED_NAMESPACES, ...(installation ? [installation.namespace] : [])];
  return {
    enabled: right.map(({ name }) => name).filter((name) => !excluded.includes(name)),
    mislabelled: wrong.map(({ name }) => name),
    excluded,
  };
}

export interface Secrets {
  readonly managed: readonly Metadata[];
  /** Those whose label has another value by mistake. */
  readonly mislabelled: readonly Metadata[];
  /** Managed Secrets of a type that the webhook does not serve. */
  readonly ofOtherTypes: readonly Metadata[];
}

/** @throws CliError */
export async function secretsOf(cluster: Cluster): Promise<Secrets> {
  const [{ right, wrong }, others] = await Promise.all([
    listLabelled(cluster, 'secrets', SECRET_LABEL),
    listLabelled(cluster, 'secrets', SECRET_LABEL, { fieldSelector: `type!=${SECRET_TYPE}` }),
  ]);
  return { managed: right, mislabelled: wrong, ofOtherTypes: others.right };
}

/** Lists the objects whose label has the required value, and those that have another by mistake. */
async function listLabelled(
  { kubernetes }: Cluster,
  resource: 'namespaces' | 'secrets',
  { key, value }: typeof NAMESPACE_LABEL | typeof SECRET_LABEL,
  more: Readonly<Record<string, string>> = {},
): Promise<{ readonly right: Metadata[]; readonly wrong: Metadata[] }> {
  const items = await kubernetes.list(`/api/v1/${resource}`, {
    query: { labelSelector: key, ...more },
    metadataOnly: 'PartialObjectMetadataList',
  });
  const objects = items.map((item) => Metadata.parse(item).metadata);
  const labelOf = ({ labels: all }: Metadata) => all?.[key] ?? '';
  return {
    right: objects.filter((object) => labelOf(object) === value),
    wrong: objects.filter((object) => labelOf(object) !== value && !SWITCHED_OFF.test(labelOf(object))),
  };
}

const ENABLED = `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`;
const MANAGED = `${SECRET_LABEL.key}=${SECRET_LABEL.value}`;

/** What the API server says of a new Secret without data, if it does not call the webhook, which would add the key. */
const NOT_ADDED =
  'The API server refuses a managed Secret without data there: "data[.dockerconfigjson]: Required value".';

/**
 * Judges the labels: first those of namespaces, then those of Secrets and their types.
 *
 * @param wanted a namespace that must be enabled
 */
export function labels(
  namespaces: Namespaces,
  secrets: Secrets,
  commands: ShellCommands,
  wanted?: string,
): Finding {
  const enabled = formatList(namespaces.enabled);
  const { managed } = secrets;
  const label = (namespace: string) =>
    commands.kubectl(['label', 'namespace', namespace, ENABLED, '--overwrite']);
  const labelSecret = ({ namespace = '', name }: Metadata, ...args: string[]) =>
    commands.kubectl(['--namespace', namespace, 'label', 'secret', name, ...args]);

  if (wanted !== undefined && namespaces.excluded.includes(wanted))
    return failed('namespace-excluded', `The webhook never serves the namespace ${wanted}. ${NOT_ADDED}`, {
      investigate: commands.kubectl(['get', 'namespaces', '--selector', ENABLED]),
      hint: 'Create the Secret in another namespace.',
    });
  if (wanted !== undefined && !namespaces.enabled.includes(wanted))
    return failed(
      'namespace-label-missing',
      `The namespace ${wanted} lacks the label ${ENABLED}. ${NOT_ADDED}`,
      {
        investigate: commands.kubectl(['get', 'namespace', wanted, '--show-labels']),
        hint: `If the namespace may have ECR credentials: ${label(wanted)}.`,
      },
    );
  const excluded = managed.find(({ namespace = '' }) => namespaces.excluded.includes(namespace));
  if (excluded)
    return failed(
      'namespace-excluded',
      `The managed Secret ${pathOf(excluded)} is in a namespace that is excluded.`,
      {
        repair: labelSecret(excluded, `${SECRET_LABEL.key}-`),
        hint: 'Create the Secret in another namespace.',
      },
    );
  if (namespaces.mislabelled[0] !== undefined)
    return failed(
      'namespace-label-wrong',
      `The label ${NAMESPACE_LABEL.key} must be "${NAMESPACE_LABEL.value}". These namespaces have another value: ${formatList(namespaces.mislabelled)}.`,
      { repair: label(namespaces.mislabelled[0]) },
    );
  const used = new Set(managed.flatMap(({ namespace }) => namespace ?? []));
  const [without, ...more] = used.difference(new Set(namespaces.enabled));
  if (without !== undefined)
    return failed(
      'namespace-label-missing',
      `Managed Secrets are in namespaces without the label ${ENABLED}: ${formatList([without, ...more])}.`,
      {
        investigate: commands.kubectl([
          ...['--namespace', without, 'get', 'secrets', '--selector', SECRET_LABEL.key],
        ]),
        hint: `If the namespace may have ECR credentials: ${label(without)}. Otherwise remove the label of the Secrets.`,
      },
    );
  const [other] = secrets.ofOtherTypes;
  if (other)
    return failed(
      'secret-type-wrong',
      `Managed Secrets are not of type ${SECRET_TYPE}: ${formatList(secrets.ofOtherTypes.map(pathOf))}.`,
      {
        investigate: commands.kubectl([
          ...['--namespace', other.namespace ?? '', 'describe', 'secret', other.name],
        ]),
        hint: `The type of a Secret cannot be changed. Delete the Secret and create it with that type, or remove the label: ${labelSecret(other, `${SECRET_LABEL.key}-`)}.`,
      },
    );
  const [mislabelled] = secrets.mislabelled;
  if (mislabelled)
    return failed(
      'secret-label-wrong',
      `The label ${SECRET_LABEL.key} must be "${SECRET_LABEL.value}". These Secrets have another value: ${formatList(secrets.mislabelled.map(pathOf))}.`,
      { repair: labelSecret(mislabelled, MANAGED, '--overwrite') },
    );
  if (managed.length > 0)
    return passed('labels', `${managed.length} managed; enabled namespaces: ${enabled}`);
  return failed(
    'no-managed-secret',
    `No Secret has the label ${MANAGED}. Enabled namespaces: ${enabled || 'none'}. In other namespaces, the API server refuses one without data: "data[.dockerconfigjson]: Required value".`,
    {
      investigate: commands.kubectl([
        ...['get', 'secrets', '--all-namespaces', '--show-labels'],
        ...['--field-selector', `type=${SECRET_TYPE}`],
      ]),
      hint: `To enable a namespace: ${label('NAMESPACE')}. To make a Secret managed: ${labelSecret({ namespace: 'NAMESPACE', name: 'NAME' }, MANAGED)}. README.md shows a complete Secret.`,
    },
  );
}

function pathOf({ namespace, name }: Metadata): string {
  return `${namespace}/${name}`;
}

// The links that are looked at in labels and types: of namespaces and Secrets that are, or look as if they were meant to
// be, ours. Of Secrets only metadata is asked for.
import { EXCLUDED_NAMESPACES, NAMESPACE_LABEL, SECRET_LABEL, SECRET_TYPE } from '../../../contract/names.ts';
import { formatList } from '../../output/format-list.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { type Cluster, Metadata } from './check-context.ts';
import { broken, type Finding, well } from './checks.ts';

/** What somebody writes who does not want a namespace served. */
const MEANT_OFF = /^(disabled|false|no|off|)$/i;

export interface Namespaces {
  /** Whatever the label's value is. */
  readonly labelled: readonly Metadata[];
  /** Names of those that are served. */
  readonly enabled: readonly string[];
  /** Names of those that never are. */
  readonly excluded: readonly string[];
}

/** @throws CliError */
export async function namespacesOf(cluster: Cluster): Promise<Namespaces> {
  const { installation } = cluster;
  const labelled = await listed(cluster, '/api/v1/namespaces', { labelSelector: NAMESPACE_LABEL.key });
  const excluded = [...EXCLUDED_NAMESPACES, ...(installation ? [installation.namespace] : [])];
  const enabled = labelled
    .filter((namespace) => labelOf(namespace) === NAMESPACE_LABEL.value && !excluded.includes(namespace.name))
    .map(({ name }) => name);
  return { labelled, enabled, excluded };
}

export interface Secrets {
  /** Whatever the label's value is. */
  readonly labelled: readonly Metadata[];
  /** Managed ones of a type that is not served. */
  readonly ofOtherTypes: readonly Metadata[];
}

/** @throws CliError */
export async function secretsOf(cluster: Cluster): Promise<Secrets> {
  const [labelled, ofOtherTypes] = await Promise.all([
    listed(cluster, '/api/v1/secrets', { labelSelector: SECRET_LABEL.key }),
    listed(cluster, '/api/v1/secrets', {
      labelSelector: `${SECRET_LABEL.key}=${SECRET_LABEL.value}`,
      fieldSelector: `type!=${SECRET_TYPE}`,
    }),
  ]);
  return { labelled, ofOtherTypes };
}

async function listed(
  { kubernetes }: Cluster,
  path: string,
  query: Readonly<Record<string, string>>,
): Promise<Metadata[]> {
  const items = await kubernetes.list(path, { query, metadataOnly: 'PartialObjectMetadataList' });
  return items.map((item) => Metadata.parse(item).metadata);
}

function labelOf({ labels }: Metadata): string | undefined {
  return labels?.[NAMESPACE_LABEL.key];
}

export function namespaceLabels(
  { labelled, enabled, excluded }: Namespaces,
  { labelled: secrets }: Secrets,
  commands: ShellCommands,
): Finding {
  const label = (name: string) =>
    commands.kubectl([
      ...['label', 'namespace', name, `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`, '--overwrite'],
    ]);
  const lost = secrets.find(({ namespace = '' }) => excluded.includes(namespace));
  if (lost)
    return broken(
      'namespaces',
      `the Secret ${pathOf(lost)} is managed, and that namespace is never served`,
      commands.kubectl([
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
              `the label's value is not "${NAMESPACE_LABEL.value}": ${formatList(misnamed.map((one) => `${one.name} has "${labelOf(one)}"`))}`,
            ]
          : []),
        ...(without.length > 0 ? [`managed Secrets lie in ${formatList(without)}, without the label`] : []),
      ].join('; '),
      label(first),
    );
  return enabled.length === 0
    ? broken('namespaces', 'none is enabled', label('NAME'))
    : well('namespaces', `enabled: ${formatList(enabled)}`);
}

export function secretLabels({ labelled: secrets, ofOtherTypes }: Secrets, commands: ShellCommands): Finding {
  const label = ({ namespace = '', name }: Pick<Metadata, 'namespace' | 'name'>, ...what: string[]) =>
    commands.kubectl(['--namespace', namespace, 'label', 'secret', name, ...what]);
  const managed = `${SECRET_LABEL.key}=${SECRET_LABEL.value}`;
  const [first] = ofOtherTypes;
  if (first)
    return broken(
      'secrets',
      `not of type ${SECRET_TYPE}: ${formatList(ofOtherTypes.map(pathOf))}`,
      label(first, `${SECRET_LABEL.key}-`),
      'a type cannot be changed: for credentials, delete it and create it again with the type',
    );
  const mislabelled = secrets.filter(({ labels }) => labels?.[SECRET_LABEL.key] !== SECRET_LABEL.value);
  const [wrong] = mislabelled.filter(({ labels }) => !MEANT_OFF.test(labels?.[SECRET_LABEL.key] ?? ''));
  if (wrong)
    return broken(
      'secrets',
      `the label's value is not "${SECRET_LABEL.value}": ${formatList(mislabelled.map(pathOf))}`,
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

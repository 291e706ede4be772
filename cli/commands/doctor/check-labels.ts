// The check of the labels of namespaces and Secrets, and of the types of Secrets. Reads only the metadata of Secrets.
import { EXCLUDED_NAMESPACES, NAMESPACE_LABEL, SECRET_LABEL, SECRET_TYPE } from '../../../contract/names.ts';
import { formatList } from '../../output/format-list.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { type Finding, failed, investigate, passed, repair } from './checks.ts';
import { type Cluster, Metadata } from './observe.ts';

/** Label values by which an operator switches a namespace or a Secret off. */
const SWITCHED_OFF = /^(disabled|false|no|off|)$/i;

export interface Namespaces {
  /** All that have the label, with any value. */
  readonly labelled: readonly Metadata[];
  /** Names of the enabled namespaces. */
  readonly enabled: readonly string[];
  /** Names of the namespaces that the webhook never serves. */
  readonly excluded: readonly string[];
}

/** @throws CliError */
export async function namespacesOf(cluster: Cluster): Promise<Namespaces> {
  const { installation } = cluster;
  const labelled = await listMetadata(cluster, '/api/v1/namespaces', { labelSelector: NAMESPACE_LABEL.key });
  const excluded = [...EXCLUDED_NAMESPACES, ...(installation ? [installation.namespace] : [])];
  const enabled = labelled
    .filter(
      (namespace) =>
        namespaceLabelOf(namespace) === NAMESPACE_LABEL.value && !excluded.includes(namespace.name),
    )
    .map(({ name }) => name);
  return { labelled, enabled, excluded };
}

export interface Secrets {
  /** All that have the label, with any value. */
  readonly labelled: readonly Metadata[];
  /** Managed Secrets of a type that the webhook does not serve. */
  readonly ofOtherTypes: readonly Metadata[];
}

/** @throws CliError */
export async function secretsOf(cluster: Cluster): Promise<Secrets> {
  const [labelled, ofOtherTypes] = await Promise.all([
    listMetadata(cluster, '/api/v1/secrets', { labelSelector: SECRET_LABEL.key }),
    listMetadata(cluster, '/api/v1/secrets', {
      labelSelector: `${SECRET_LABEL.key}=${SECRET_LABEL.value}`,
      fieldSelector: `type!=${SECRET_TYPE}`,
    }),
  ]);
  return { labelled, ofOtherTypes };
}

async function listMetadata(
  { kubernetes }: Cluster,
  path: string,
  query: Readonly<Record<string, string>>,
): Promise<Metadata[]> {
  const items = await kubernetes.list(path, { query, metadataOnly: 'PartialObjectMetadataList' });
  return items.map((item) => Metadata.parse(item).metadata);
}

/** Judges the labels: first those of namespaces, then those of Secrets and their types. */
export function labels(namespaces: Namespaces, secrets: Secrets, commands: ShellCommands): Finding {
  return (
    namespaceFailure(namespaces, secrets, commands) ??
    secretFailure(secrets, commands) ??
    passed(
      'labels',
      `${managed(secrets).length} managed; enabled namespaces: ${formatList(namespaces.enabled)}`,
    )
  );
}

const ENABLED = `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`;
const MANAGED = `${SECRET_LABEL.key}=${SECRET_LABEL.value}`;

function namespaceFailure(
  { labelled, enabled, excluded }: Namespaces,
  { labelled: secrets }: Secrets,
  commands: ShellCommands,
): Finding | undefined {
  const label = (name: string) => commands.kubectl(['label', 'namespace', name, ENABLED, '--overwrite']);
  const excludedSecret = secrets.find(({ namespace = '' }) => excluded.includes(namespace));
  if (excludedSecret)
    return failed(
      'namespace-excluded',
      `The managed Secret ${pathOf(excludedSecret)} is in a namespace that is excluded.`,
      repair(
        labelSecret(commands, excludedSecret, `${SECRET_LABEL.key}-`),
        'Create the Secret in another namespace.',
      ),
    );
  const unserved = [...new Set(secrets.flatMap(({ namespace }) => namespace ?? []))].filter(
    (name) => !enabled.includes(name),
  );
  const mislabelled = labelled.filter(
    (namespace) =>
      namespaceLabelOf(namespace) !== NAMESPACE_LABEL.value &&
      (unserved.includes(namespace.name) || !SWITCHED_OFF.test(namespaceLabelOf(namespace) ?? '')),
  );
  const without = unserved.filter((name) => !mislabelled.some((one) => one.name === name));
  const message = [
    ...(mislabelled.length > 0
      ? [
          `The namespace label ${NAMESPACE_LABEL.key} must be "${NAMESPACE_LABEL.value}": ${formatList(mislabelled.map((one) => `${one.name} has "${namespaceLabelOf(one)}"`))}.`,
        ]
      : []),
    ...(without.length > 0
      ? [`Managed Secrets are in namespaces without the label ${ENABLED}: ${formatList(without)}.`]
      : []),
  ].join(' ');
  if (mislabelled[0]) return failed('namespace-label-wrong', message, repair(label(mislabelled[0].name)));
  if (without[0] !== undefined)
    return failed(
      'namespace-label-missing',
      message,
      investigate(
        commands.kubectl(['--namespace', without[0], 'get', 'secrets', '--selector', SECRET_LABEL.key]),
        `If the namespace may have ECR credentials: ${label(without[0])}. Otherwise remove the label of the Secrets.`,
      ),
    );
  if (enabled.length > 0) return undefined;
  return failed(
    'no-enabled-namespace',
    `No namespace has the label ${ENABLED}.`,
    investigate(
      commands.kubectl(['get', 'namespaces', '--label-columns', NAMESPACE_LABEL.key]),
      `To enable one: ${label('NAME')}.`,
    ),
  );
}

function secretFailure(secrets: Secrets, commands: ShellCommands): Finding | undefined {
  const [other] = secrets.ofOtherTypes;
  if (other)
    return failed(
      'secret-type-wrong',
      `Managed Secrets are not of type ${SECRET_TYPE}: ${formatList(secrets.ofOtherTypes.map(pathOf))}.`,
      investigate(
        commands.kubectl(['--namespace', other.namespace ?? '', 'describe', 'secret', other.name]),
        `The type of a Secret cannot be changed. Delete the Secret and create it with that type, or remove the label: ${labelSecret(commands, other, `${SECRET_LABEL.key}-`)}.`,
      ),
    );
  const mislabelled = secrets.labelled.filter(
    (secret) =>
      secretLabelOf(secret) !== SECRET_LABEL.value && !SWITCHED_OFF.test(secretLabelOf(secret) ?? ''),
  );
  if (mislabelled[0])
    return failed(
      'secret-label-wrong',
      `The Secret label ${SECRET_LABEL.key} must be "${SECRET_LABEL.value}": ${formatList(mislabelled.map(pathOf))}.`,
      repair(labelSecret(commands, mislabelled[0], MANAGED, '--overwrite')),
    );
  if (managed(secrets).length > 0) return undefined;
  return failed(
    'no-managed-secret',
    `No Secret has the label ${MANAGED}.`,
    investigate(
      commands.kubectl([
        ...['get', 'secrets', '--all-namespaces', '--show-labels', '--field-selector', `type=${SECRET_TYPE}`],
      ]),
      `To make a Secret managed: ${labelSecret(commands, { namespace: 'NAMESPACE', name: 'NAME' }, MANAGED)}. README.md shows a complete Secret.`,
    ),
  );
}

function managed({ labelled }: Secrets): Metadata[] {
  return labelled.filter((secret) => secretLabelOf(secret) === SECRET_LABEL.value);
}

function labelSecret(commands: ShellCommands, { namespace = '', name }: Metadata, ...args: string[]): string {
  return commands.kubectl(['--namespace', namespace, 'label', 'secret', name, ...args]);
}

function namespaceLabelOf({ labels: all }: Metadata): string | undefined {
  return all?.[NAMESPACE_LABEL.key];
}

function secretLabelOf({ labels: all }: Metadata): string | undefined {
  return all?.[SECRET_LABEL.key];
}

function pathOf({ namespace, name }: Metadata): string {
  return `${namespace}/${name}`;
}

// Writes what is said of the chart's values, from the only place where it is written by hand: values.schema.json.
import { readFile, writeFile } from 'node:fs/promises';
import { Document, isMap, type Scalar, type YAMLMap } from 'yaml';

interface Property {
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly string[];
  readonly examples?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Property>>;
}

/** The files, by their paths from the repository's root. */
export const FILES = { values: 'webhook/chart/values.yaml', docs: 'docs/chart-values.md' } as const;
const ROOT = new URL('..', import.meta.url);
const WIDTH = 118;

/** What the files shall contain. */
export async function chartValues(): Promise<Record<(typeof FILES)[keyof typeof FILES], string>> {
  const schema = JSON.parse(
    await readFile(new URL('webhook/chart/values.schema.json', ROOT), 'utf8'),
  ) as Property;
  return { [FILES.values]: valuesYaml(schema), [FILES.docs]: valuesTable(schema) } as never;
}

/** The values that are the chart's own: Helm's `global` is not. */
function ownOf({ properties = {} }: Property): [string, Property][] {
  return Object.entries(properties).filter(([name]) => name !== 'global');
}

function valuesYaml(schema: Property): string {
  const document = new Document(defaultOf(schema));
  comment(document.contents as unknown as YAMLMap<Scalar<string>>, schema, 0);
  document.commentBefore = ' Settings of the chart, written by `npm run chart` from values.schema.json.';
  return document.toString({ lineWidth: 0 });
}

function defaultOf(property: Property): unknown {
  if (property.default !== undefined || !property.properties) return property.default;
  return Object.fromEntries(ownOf(property).map(([name, inner]) => [name, defaultOf(inner)]));
}

function comment(map: YAMLMap<Scalar<string>>, schema: Property, depth: number): void {
  for (const { key, value } of map.items) {
    const property = schema.properties?.[key.value];
    if (!property) continue;
    const { description = '', examples = [] } = property;
    const plain = description.replace(/\[([^\]]+)\]\(([^)]+)\)/g, 'docs/$2').replace(/\*\*|`/g, '');
    const lines = wrapped(plain, WIDTH - 2 * depth);
    for (const example of examples) {
      const text = new Document({ [key.value]: example }).toString({ lineWidth: 0 });
      lines.push(...text.trimEnd().split('\n'));
    }
    key.commentBefore = lines.map((line) => ` ${line}`).join('\n');
    if (depth === 0) key.spaceBefore = true;
    if (isMap(value) && property.properties) comment(value as YAMLMap<Scalar<string>>, property, depth + 1);
  }
}

function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length + 3 <= width)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

function valuesTable(schema: Property): string {
  const rows = (property: Property, prefix: string): string[] =>
    ownOf(property).flatMap(([name, inner]) => {
      const path = `${prefix}${name}`;
      const value = inner.properties ? '' : `\`${JSON.stringify(inner.default)}\``;
      const choices = inner.enum?.filter(Boolean).map((choice) => `\`${choice}\``);
      const said = [inner.description, choices && `One of ${choices.join(', ')}.`].filter(Boolean).join(' ');
      const row = `| \`${path}\` | ${value} | ${said.replaceAll('|', '\\|')} |`;
      return [row, ...(inner.properties ? rows(inner, `${path}.`) : [])];
    });
  return [
    '# Values of the chart',
    '',
    '<!-- Written by `npm run chart` from webhook/chart/values.schema.json. -->',
    '',
    'With `helm install … --set image.repository=… --set aws.region=…` and an [AWS identity](aws-identity.md) it runs; all else has a default. A misspelt or unknown value is refused.',
    '',
    '| value | default | |',
    '|---|---|---|',
    ...rows(schema, ''),
    '',
  ].join('\n');
}

if (import.meta.main) {
  for (const [path, text] of Object.entries(await chartValues())) await writeFile(new URL(path, ROOT), text);
}

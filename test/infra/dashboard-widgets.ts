// The CloudWatch dashboard of a template, as data.
import type { Template } from 'aws-cdk-lib/assertions';

/** A metric of a graph: the options are the last item, the dimensions' names and values are between. */
export type MetricRow = readonly (string | MetricOptions)[];

export interface MetricOptions {
  readonly id?: string;
  readonly expression?: string;
  readonly label?: string;
  readonly color?: string;
  readonly visible?: boolean;
  readonly period?: number;
  readonly stat?: string;
}

export interface Widget {
  readonly type: 'text' | 'alarm' | 'metric' | 'log';
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly properties: {
    readonly title?: string;
    readonly markdown?: string;
    readonly alarms?: readonly string[];
    readonly view?: string;
    readonly stacked?: boolean;
    readonly metrics?: readonly MetricRow[];
    readonly annotations?: {
      readonly horizontal: readonly { value: number; label: string; color: string }[];
    };
    readonly query?: string;
  };
}

/** Reads the widgets. A value that CloudFormation inserts becomes its logical id, or the name of a pseudo parameter. */
export function widgetsOf(template: Template): Widget[] {
  const [dashboard] = Object.values(template.findResources('AWS::CloudWatch::Dashboard'));
  const parts: unknown[] = dashboard?.Properties?.DashboardBody?.['Fn::Join']?.[1] ?? [];
  return JSON.parse(parts.map(textOf).join('')).widgets;
}

/** The names of the fields that a log query reads, without the ones that it defines itself. */
export function fieldsOf(query: string): string[] {
  const text = query.replace(/^SOURCE '[^']*'/, '').replaceAll(/"[^"]*"|\/[^/]*\//g, '');
  const defined = new Set([...text.matchAll(/\bas (\w+)/g)].map(([, name]) => name));
  const words = text.match(/@?\b[a-zA-Z]\w*\b(?!\()/g) ?? [];
  return [...new Set(words)].filter((word) => !defined.has(word) && !KEYWORDS.has(word));
}

const KEYWORDS: ReadonlySet<string> = new Set([
  ...['filter', 'stats', 'display', 'sort', 'limit'],
  ...['by', 'as', 'and', 'or', 'like', 'desc', 'asc'],
]);

/** The metric rows with namespace and name, without the expressions. */
export function metricsOf({ properties }: Widget): { namespace: string; name: string; row: MetricRow }[] {
  return (properties.metrics ?? []).flatMap((row) => {
    const [namespace, name] = row;
    return typeof namespace === 'string' && typeof name === 'string' ? [{ namespace, name, row }] : [];
  });
}

/** The options of a metric row. */
export function optionsOf(row: MetricRow): MetricOptions {
  const last = row.at(-1);
  return typeof last === 'object' ? last : {};
}

function textOf(part: unknown): string {
  if (typeof part === 'string') return part;
  const inserted = part as { Ref?: string; 'Fn::GetAtt'?: readonly [string, string] };
  return inserted.Ref?.replace(/^AWS::Region$/, 'eu-central-1') ?? inserted['Fn::GetAtt']?.[0] ?? '';
}

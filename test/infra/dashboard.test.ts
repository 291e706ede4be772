// The dashboard: what it shows exists, and the picture of it is up to date.
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { METRIC, METRICS_NAMESPACE } from '../../functions/refresher/settings.ts';
import { columnsOf, drawDashboard, evaluate } from './dashboard-picture.ts';
import { metricsOf, optionsOf, widgetsOf } from './dashboard-widgets.ts';
import { deployed } from './synth.ts';

const template = deployed();
const widgets = widgetsOf(template);
const resources = template.toJSON().Resources as Record<string, { Type: string }>;

test('shows every alarm of the stack', () => {
  const alarms = widgets.flatMap(({ properties }) => properties.alarms ?? []);
  const inStack = Object.entries(resources).filter(([, { Type }]) => Type === 'AWS::CloudWatch::Alarm');
  expect(alarms.toSorted()).toEqual(inStack.map(([id]) => id).sort());
});

test('its metrics are the refresher’s own, or AWS’ metrics of resources in the stack', () => {
  const shown = widgets.flatMap(metricsOf);
  expect(shown.length).toBeGreaterThan(20);
  for (const { namespace, name, row } of shown) {
    const dimensions = row.slice(2, -1);
    if (namespace === 'AWS/Usage') continue;
    expect(Object.keys(resources)).toContain(dimensions[1]);
    if (namespace === METRICS_NAMESPACE) {
      expect(Object.values(METRIC)).toContain(name);
      expect(dimensions[0]).toBe('service');
    } else expect(['AWS/Lambda', 'AWS/SQS']).toContain(namespace);
  }
  const names = new Set(shown.map(({ name }) => name));
  // Not of the fleet, the difference of two others, or only with scaleOut.
  const left = [METRIC.consecutiveFailures, METRIC.clustersServed, METRIC.secretsDue, METRIC.batchesEnded];
  expect(Object.values(METRIC).filter((name) => !names.has(name))).toEqual(expect.arrayContaining(left));
  expect(Object.values(METRIC).filter((name) => !names.has(name))).toHaveLength(left.length);
});

test('its expressions name metrics of their widget', () => {
  const graphs = widgets.filter(({ properties }) => properties.metrics);
  for (const widget of graphs) {
    const series = new Map(
      metricsOf(widget).flatMap(({ row }) => {
        const { id } = optionsOf(row);
        return id === undefined ? [] : [[id, [1]] as const];
      }),
    );
    for (const row of widget.properties.metrics ?? []) {
      const { expression } = optionsOf(row);
      if (expression !== undefined) expect(evaluate(expression, series, 0)).toBeTypeOf('number');
    }
  }
});

test('its queries read the log group of the function', () => {
  const queries = widgets.flatMap(({ properties }) => properties.query ?? []);
  expect(queries).toHaveLength(4);
  for (const query of queries) {
    const [, source = ''] = /^SOURCE '([^']*)'/.exec(query) ?? [];
    expect(resources[source]).toMatchObject({ Type: 'AWS::Logs::LogGroup' });
  }
});

test('names the columns of a table as the console does', () => {
  expect(
    columnsOf('filter a = 1\n| stats latest(x) as state, count(*) as n by cluster, y\n| filter state = "E"'),
  ).toEqual(['cluster', 'y', 'n']);
});

test('the picture in docs/images is drawn from this template: "npm run pictures -- dashboard" draws it', async () => {
  const picture = await readFile(new URL('../../docs/images/dashboard.svg', import.meta.url), 'utf8');
  expect(drawDashboard(widgets)).toBe(picture);
});

test('is left out on request', () => {
  deployed({ dashboard: false }).resourceCountIs('AWS::CloudWatch::Dashboard', 0);
});

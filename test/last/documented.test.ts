// The operators' page documents every metric, log event and reason that the webhook and the refresher wrote in the tests.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { METRICS_NAMESPACE } from '../../functions/refresher/settings.ts';
import { embeddedMetrics } from '../bed/cloudwatch-alarms.ts';
import { EVIDENCE_DIR, type Kind } from '../bed/evidence.ts';
import { fieldsOf, metricsOf, widgetsOf } from '../infra/dashboard-widgets.ts';
import { deployed } from '../infra/synth.ts';

const dir = process.env[EVIDENCE_DIR] ?? '';
const docs = (name: string) => readFile(new URL(`../../docs/${name}`, import.meta.url), 'utf8');
const page = docs('metrics-and-logs.md');

async function textsOf(kind: Kind): Promise<string[]> {
  const files = (await readdir(dir)).filter((file) => file.startsWith(`${kind}.`));
  return Promise.all(files.map((file) => readFile(join(dir, file), 'utf8')));
}

interface Line {
  readonly msg: string;
  readonly action?: string;
  readonly reason?: string;
}

/** The webhook's log lines. Only pino, which the webhook uses, writes levels as numbers. */
async function webhookLines(): Promise<Line[]> {
  const lines = (await textsOf('log')).join('\n').split('\n');
  return lines.filter((line) => /^\{"level":\d+,.*\}$/.test(line)).map((line) => JSON.parse(line) as Line);
}

test('the page names every log event, and every action and reason of an admission', async () => {
  const logged = new Set<string>();
  for (const { msg, action, reason } of await webhookLines()) {
    logged.add(msg);
    if (msg === 'admission') for (const word of [action, reason]) logged.add(word ?? 'malformed');
  }
  expect(logged.size).toBeGreaterThan(20);
  const text = await page;
  expect([...logged].filter((word) => !text.includes(`\`${word}\``))).toEqual([]);
});

test('the page names every metric of the webhook, and no other', async () => {
  const names = (text: string) => new Set(text.match(/ecr_anywhere_[a-z_]+/g));
  const documented = names(await page);
  const exported = names(
    (await textsOf('metrics'))
      .join('\n')
      .split('\n')
      .filter((line) => line.startsWith('# TYPE'))
      .join('\n'),
  );
  expect(exported.size).toBeGreaterThan(5);
  expect([...documented].sort()).toEqual([...exported].sort());
});

test('the pages name every outcome of the function API, and every reason why a Secret was due', async () => {
  const reports = (await textsOf('report')).join('\n');
  const words = new Set([...reports.matchAll(/"(?:due|outcome)":"([a-z-]+)"/g)].map(([, word = '']) => word));
  expect(words.size).toBeGreaterThan(8);
  const text = `${await page}${await docs('function-api.md')}`;
  expect([...words].filter((word) => !text.includes(`\`${word}\``))).toEqual([]);
});

test('each metric of the dashboard was published, and each field of its queries was logged', async () => {
  const widgets = widgetsOf(deployed());
  const log = (await textsOf('log')).join('\n').split('\n');
  const lines = log
    .filter((line) => line.startsWith('{') && line.includes('function_request_id'))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  for (const { properties } of widgets) {
    const { query } = properties;
    if (query === undefined) continue;
    const [, message] = /message = "(\w+)"/.exec(query) ?? [];
    const logged = new Set(lines.filter((line) => line.message === message).flatMap(Object.keys));
    expect(fieldsOf(query).filter((field) => !field.startsWith('@') && !logged.has(field))).toEqual([]);
  }
  const published = new Set(embeddedMetrics(log).map(({ name }) => name));
  const own = widgets.flatMap(metricsOf).filter(({ namespace }) => namespace === METRICS_NAMESPACE);
  expect(own.map(({ name }) => name).filter((name) => !published.has(name))).toEqual([]);
});

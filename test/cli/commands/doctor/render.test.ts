// doctor's report as text: at a terminal of any width nothing is cut off, and in a pipe a check is one line.
import { describe, expect, test } from 'vitest';
import {
  CHECK_NAMES,
  CHECKS,
  failed,
  judge,
  passed,
  skipped,
} from '../../../../cli/commands/doctor/checks.ts';
import { type ClusterResult, renderFleet } from '../../../../cli/commands/doctor/fleet.ts';
import { renderChecks, renderReport } from '../../../../cli/commands/doctor/render.ts';

const ARN = `arn:aws:sts::111122223333:assumed-role/${'Administrator'.repeat(4)}/me@example.com`;
const LONG = `failed calling webhook ${'connection refused '.repeat(9)}by ${ARN}`;
const COMMAND = `kubectl ${'x '.repeat(90)}y`;
const findings = judge([
  passed('session', ARN),
  failed('webhook-unreachable', LONG, { investigate: COMMAND, hint: LONG }),
  failed('paused', 'since today', { repair: 'ecr-anywhere resume alpha' }),
]);
const skippedCount = findings.filter(({ verdict }) => verdict === 'skipped').length;
const withoutSpace = (text: string) => text.replaceAll(/\s/g, '');

describe.each([60, 80, 132])('a terminal of %i columns', (columns) => {
  test('no line but a command is longer, and nothing is cut off', () => {
    const text = renderReport(findings, columns);
    for (const line of text.split('\n'))
      if (!/^ {2}(Repair|Investigate): /.test(line)) expect(line.length).toBeLessThanOrEqual(columns);
    expect(withoutSpace(text)).toContain(ARN);
    expect(withoutSpace(text)).toContain(withoutSpace(LONG));
    expect(text).toContain(`\n  Investigate: ${COMMAND}\n`);
  });
});

test('each failure has its message, its meaning, then its command', () => {
  const blocks = renderReport(findings, undefined).split('\n\n').slice(1);
  expect(blocks).toEqual([
    [
      'refresh schedule (paused)',
      '  since today',
      `  ${CHECKS.schedule.means}`,
      '  Repair: ecr-anywhere resume alpha',
    ].join('\n'),
    [
      'webhook (webhook-unreachable)',
      `  ${LONG}`,
      `  ${CHECKS.webhook.means}`,
      `  Investigate: ${COMMAND}`,
      `  ${LONG}`,
    ].join('\n'),
  ]);
});

test('in a pipe each check is one line, and all skipped checks are one', () => {
  const lines = renderChecks(findings, undefined).split('\n');
  expect(lines.map((line) => line[0])).toEqual(['✔', '✖', '✖', '–']);
  expect(lines.at(-1)).toContain(`${skippedCount} checks skipped: `);
});

test('the line of the skipped checks groups them by reason', () => {
  const seen = CHECK_NAMES.slice(0, CHECK_NAMES.indexOf('context')).filter((check) => check !== 'clock');
  const judged = judge([
    ...seen.map((check) => passed(check, 'x')),
    skipped('clock', 'no Date header'),
    skipped('context', 'the context is not verified'),
  ]);
  const text = renderReport(judged, undefined);
  expect(text.split('\n').filter((line) => line.startsWith('–'))).toEqual([
    '– 13 checks skipped: no Date header (clock); the context is not verified (context, chart, write-policy, configuration, labels, 6 more); not checked (subscribers)',
  ]);
  expect(text.split('\n').at(-1)).toContain('exit code 1');
});

test('a report without failures ends with a line that says so', () => {
  const all = CHECK_NAMES.map((check) => passed(check, 'x'));
  expect(renderReport(all, undefined).split('\n').at(-1)).toBe('All checks passed.');
});

describe('all clusters', () => {
  const many = Array.from({ length: 300 }, (_, index): ClusterResult => ({ cluster: `fine-${index}` }));
  const wrong: ClusterResult = {
    cluster: 'wrong',
    problem: failed('unreachable', LONG, { investigate: 'x' }),
  };
  const dim: ClusterResult = { cluster: 'dim', problem: skipped('clock', 'no Date') };
  const shown = (results: readonly ClusterResult[], columns?: number) =>
    renderFleet(results, 'ecr-anywhere doctor NAME', columns).split('\n');

  test('failed and skipped clusters come first, and further clusters are a number', () => {
    const lines = shown([...many, dim, wrong]);
    expect(lines.slice(1, 4).map((line) => line.split(' ')[0])).toEqual(['wrong', 'dim', 'fine-0']);
    expect(lines[51]).toBe('… and 252 more without a problem');
    expect(lines[53]).toContain('302, of which 1 failed, 1 could not be checked');
  });

  test('each failed cluster has a row, however many there are', () => {
    const lines = shown([...many.map(({ cluster }) => ({ ...wrong, cluster })), { cluster: 'one' }]);
    expect(lines[301]).toBe('… and 1 more without a problem');
  });

  test('fifty clusters all have a row', () => {
    expect(shown(many.slice(0, 50)).filter((line) => line.startsWith('fine-'))).toHaveLength(50);
  });

  test('no line is longer than the terminal, and nothing is cut off', () => {
    const lines = shown([wrong, dim, ...many], 80);
    for (const line of lines) if (!line.startsWith('  → ')) expect(line.length).toBeLessThanOrEqual(80);
    const column = lines[0]?.indexOf('MESSAGE');
    const messages = lines.map((line) => line.slice(column)).join('');
    expect(withoutSpace(messages)).toContain(withoutSpace(LONG));
  });

  test('without a cluster, it says that none is registered', () => {
    expect(shown([])[0]).toBe('No cluster is registered.');
  });
});

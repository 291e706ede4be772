// How doctor judges what the chart installs: the webhook configuration, and which chart there is. Pure.
import { describe, expect, test } from 'vitest';
import { chartFinding, configuration } from '../../../../cli/commands/doctor/check-chart.ts';
import type { Found, Installation } from '../../../../cli/kubernetes/chart.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import { NAMESPACE_LABEL, SECRET_LABEL, WEBHOOK_NAME } from '../../../../contract/names.ts';
import { INSTALLATION } from './installation.ts';

const commands = new ShellCommands({}, { context: 'prod' });
const installation: Installation = {
  ...INSTALLATION,
  webhook: {
    name: WEBHOOK_NAME,
    clientConfig: { service: { name: 'ecr-anywhere', namespace: 'ecr-anywhere' } },
    failurePolicy: 'Fail',
    rules: [{ operations: ['CREATE', 'UPDATE'], resources: ['secrets'] }],
    namespaceSelector: {
      matchExpressions: [{ key: NAMESPACE_LABEL.key, operator: 'In', values: [NAMESPACE_LABEL.value] }],
    },
    objectSelector: { matchLabels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
  },
};

describe('configuration', () => {
  test('passes as the chart installs it', () => {
    expect(configuration(installation, commands).verdict).toBe('passed');
  });

  test('fails with all that was changed', () => {
    const webhook = { name: WEBHOOK_NAME, clientConfig: { url: 'https://x' }, failurePolicy: 'Ignore' };
    const found = configuration({ ...installation, webhook }, commands);
    expect(found).toMatchObject({
      code: 'configuration-changed',
      repair: expect.stringMatching(/^helm upgrade /),
    });
    for (const part of ['CREATE and UPDATE', 'Ignore', 'objectSelector', 'namespaceSelector', 'Service'])
      expect(found.message).toContain(part);
  });
});

describe('chartFinding', () => {
  const release = { release: 'pulls', namespace: 'ecr' };
  test.each<{ name: string; found: Found; expected: object }>([
    { name: 'installed', found: { installation, originals: [] }, expected: { verdict: 'passed' } },
    {
      name: 'not installed',
      found: { originals: [] },
      expected: { code: 'chart-not-installed', hint: expect.stringContaining('helm install ecr-anywhere ') },
    },
    {
      name: 'a release without its configuration',
      found: { release, originals: [] },
      expected: { code: 'configuration-missing', repair: expect.stringMatching(/^helm upgrade /) },
    },
    {
      name: 'CentML in its place, whose objects have the same names',
      found: { originals: ['ecr-anywhere'] },
      expected: {
        code: 'chart-not-installed',
        message: expect.stringContaining('CentML'),
        hint: expect.stringContaining('helm install aws-ecr-anywhere '),
      },
    },
    {
      name: 'CentML beside it',
      found: { installation, originals: ['zentml'] },
      expected: {
        code: 'original-beside',
        investigate: expect.stringContaining(' zentml'),
        hint: expect.not.stringContaining('before'),
      },
    },
    {
      name: 'CentML beside it, and called before it',
      found: { installation, originals: ['centml'] },
      expected: { code: 'original-beside', hint: expect.stringContaining('before') },
    },
  ])('$name', ({ found, expected }) => {
    expect(chartFinding(found, commands)).toMatchObject(expected);
  });
});

// How doctor judges what the chart installs: the caBundle, the webhook configuration, and which chart there is. Pure.
import { beforeAll, describe, expect, test } from 'vitest';
import { caBundle, chartFinding, configuration } from '../../../../cli/commands/doctor/check-chart.ts';
import type { Found, Installation } from '../../../../cli/kubernetes/chart.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import { NAMESPACE_LABEL, SECRET_LABEL, WEBHOOK_NAME } from '../../../../contract/names.ts';
import { createAuthority } from '../../../bed/certificates.ts';

const commands = new ShellCommands({}, { context: 'prod' });
const installation: Installation = {
  ...{ name: 'ecr-anywhere', release: 'ecr-anywhere', namespace: 'ecr-anywhere', index: 0, tlsMode: 'self' },
  ...{ version: '1', refresher: 'ecr-anywhere-refresher', tokenSecret: 'ecr-anywhere-refresher-token' },
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

describe('caBundle', () => {
  let pem = '';
  beforeAll(async () => {
    pem = (await createAuthority('authority')).caPem;
  });
  const judged = (text: string | undefined, tlsMode = 'self', now?: number) => {
    const bundle = text && { caBundle: Buffer.from(text).toString('base64') };
    const webhook = { ...installation.webhook, clientConfig: { ...bundle } };
    return caBundle({ ...installation, webhook, tlsMode }, commands, now);
  };

  test('passes if it holds a certificate that has not expired', () => {
    expect(judged(pem)).toBeUndefined();
  });

  test.each([
    { name: 'it is empty', text: () => '', now: undefined },
    { name: 'it holds no certificate', text: () => 'nonsense', now: undefined },
    {
      name: 'it holds a broken certificate',
      text: () => '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----',
      now: undefined,
    },
    { name: 'it has expired', text: () => pem, now: Date.parse('2999-01-01') },
  ])('fails if $name', ({ text, now }) => {
    expect(judged(text(), 'self', now)).toMatchObject({ code: 'ca-bundle-invalid', check: 'webhook' });
  });

  test.each([
    ['self', /^kubectl .* logs deployment\/ecr-anywhere$/],
    ['cert-manager', /^kubectl .*--namespace cert-manager logs deployment\/cert-manager-cainjector$/],
    [
      'provided',
      /^kubectl .* get mutatingwebhookconfiguration ecr-anywhere .*\| base64 --decode \| openssl x509/,
    ],
  ])('is investigated by tls.mode %s', (tlsMode, command) => {
    expect(judged('', tlsMode)?.investigate).toMatch(command);
  });
});

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
        code: 'original-in-place',
        hint: expect.stringContaining('helm install ecr-anywhere-keeper '),
      },
    },
    {
      name: 'CentML beside it',
      found: { installation, originals: ['centml'] },
      expected: { code: 'original-beside', investigate: expect.stringContaining(' centml ') },
    },
  ])('$name', ({ found, expected }) => {
    expect(chartFinding(found, commands)).toMatchObject(expected);
  });
});

// What cdk-nag's AwsSolutions rules and cfn-lint find in the template: nothing, apart from the accepted findings.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { App } from 'aws-cdk-lib';
import { AwsSolutionsChecks } from 'cdk-nag';
import { describe, expect, test } from 'vitest';
import { readSettings, SETTING_NAMES } from '../../infra/settings.ts';
import { EcrAnywhereStack } from '../../infra/stack.ts';
import { tools } from '../bed/toolchain.ts';
import { CDK_NAG, CFN_LINT, type Suppression } from './suppressions.ts';
import { EVERYTHING, templateOf } from './synth.ts';

interface Finding {
  readonly rule: string;
  readonly at: string;
  readonly message: string;
}

/** The template with the CDK's app, which cdk-nag reads. */
function build(context: Readonly<Record<string, unknown>>) {
  let built: App | undefined;
  const template = templateOf((app) => {
    built = app;
    return new EcrAnywhereStack(app, 'Test', { settings: readSettings(context) });
  });
  if (!built) throw new Error('templateOf did not call its argument.');
  return { app: built, template };
}

function cdkNag(app: App): Finding[] {
  return new AwsSolutionsChecks()
    .validateScope(app)
    .violations.flatMap(({ ruleName, description, violatingResources }) =>
      violatingResources.map(({ constructPath = '' }) => ({
        rule: ruleName,
        at: constructPath.replace(/^Test\//, ''),
        message: description,
      })),
    );
}

function cfnLint(template: unknown): Finding[] {
  const dir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-'));
  try {
    const file = join(dir, 'template.json');
    writeFileSync(file, JSON.stringify(template));
    const args = ['--format', 'json', '--regions', 'eu-central-1', '--', file];
    const { stdout, stderr, error } = spawnSync(tools().cfnLint, args, { encoding: 'utf8' });
    if (error) throw error;
    if (stderr !== '') throw new Error(stderr);
    const findings = JSON.parse(stdout) as {
      Rule: { Id: string };
      Message: string;
      Location: { Path: (string | number)[] };
    }[];
    return findings.map(({ Rule, Message, Location }) => ({
      rule: Rule.Id,
      at: Location.Path.slice(1).join('/'),
      message: Message,
    }));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const accepts =
  ({ rule, at }: Finding) =>
  (suppression: Suppression) =>
    suppression.rule.test(rule) && suppression.at.test(at);

const builds = { 'the defaults': build({}), 'every setting': build(EVERYTHING) };

test('every setting has a value in the template with every setting, except one that excludes another', () => {
  expect([...Object.keys(EVERYTHING), 'alarmTopicArn'].toSorted()).toEqual(SETTING_NAMES.toSorted());
});

// To accept a finding, add it to suppressions.ts with the reason.
describe.each([
  { linter: 'cdk-nag', accepted: CDK_NAG, find: ({ app }: ReturnType<typeof build>) => cdkNag(app) },
  {
    linter: 'cfn-lint',
    accepted: CFN_LINT,
    find: ({ template }: ReturnType<typeof build>) => cfnLint(template.toJSON()),
  },
])('$linter', ({ accepted, find }) => {
  const findings = Object.entries(builds).map(([name, built]) => ({ name, found: find(built) }));

  test.each(findings)('finds nothing else with $name', ({ found }) => {
    expect(found.filter((finding) => !accepted.some(accepts(finding)))).toEqual([]);
  });

  test('finds everything that is accepted, so that no suppression outlives its finding', () => {
    const all = findings.flatMap(({ found }) => found);
    expect(accepted.filter((suppression) => !all.some((finding) => accepts(finding)(suppression)))).toEqual(
      [],
    );
  });
});

test('cfn-lint reads the template: it finds an invalid property', () => {
  const template = { Resources: { Topic: { Type: 'AWS::SNS::Topic', Properties: { NoSuch: true } } } };
  expect(cfnLint(template).map(({ rule }) => rule)).toEqual(['E3002']);
});

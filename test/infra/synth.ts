// Synthesizes the stack for the tests of infra/, as CloudFormation would receive it.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, type Stack } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { FEATURE_FLAGS } from '../../infra/feature-flags.ts';
import { readSettings } from '../../infra/settings.ts';
import { EcrAnywhereStack } from '../../infra/stack.ts';

/** Settings with which the template has all resources that it can have. */
export const EVERYTHING: Readonly<Record<string, unknown>> = {
  stackName: 'Everything',
  rateMinutes: 75,
  scheduleEnabled: true,
  alarmEmail: 'platform@example.com',
  clusterDeadlineSeconds: 60,
  clusterConcurrency: 50,
  scaleOut: true,
  toleratedFailingClusters: 3,
  dashboard: true,
  pagerTopicArn: 'arn:aws:sns:eu-central-1:123456789012:pager',
  clusterMetrics: true,
  memorySize: 1024,
  tracing: true,
  logRetentionDays: 90,
  kmsKeyArn: 'arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef',
  secretPrefix: 'team/clusters/',
  subnetIds: 'subnet-0123456789abcdef0,subnet-0123456789abcdef1',
  securityGroupIds: 'sg-0123456789abcdef0',
  httpsProxy: 'http://proxy.example.com:3128',
  noProxy: 'sts.eu-central-1.amazonaws.com',
  eksRegions: 'eu-central-1',
  assumableRoles: 'arn:aws:iam::210987654321:role/clusters',
  eksDiscovery: 'us-east-1,eu-west-1=arn:aws:iam::321098765432:role/discovery',
  keyless: true,
  webhooks: [
    { name: 'one', issuer: 'https://oidc.example.com/one', repositories: ['team/*'], namespace: 'pull' },
  ],
  tags: { team: 'platform' },
  permissionsBoundary: 'arn:aws:iam::123456789012:policy/boundary',
  allowLocalServers: true,
};

/** The template of the stack. @param context settings, as `-c` would give them */
export function synth(context: Readonly<Record<string, unknown>> = {}): Template {
  return templateOf((app) => new EcrAnywhereStack(app, 'Test', { settings: readSettings(context) }));
}

/** The template that a person deploys who sets nothing but these settings. */
export function deployed(context: Readonly<Record<string, unknown>> = {}): Template {
  const settings = readSettings(context);
  return templateOf((app) => new EcrAnywhereStack(app, settings.stackName, { settings }));
}

/** The template of a stack. The bundle is not copied, because the template contains only its hash. */
export function templateOf(make: (app: App) => Stack): Template {
  const outdir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-'));
  try {
    return Template.fromStack(
      make(new App({ outdir, context: { ...FEATURE_FLAGS, 'aws:cdk:disable-asset-staging': true } })),
    );
  } finally {
    rmSync(outdir, { recursive: true, force: true });
  }
}

/** Synthesizes the stack with its bundle. @param outdir for template and bundle @returns the folder of the bundle */
export function synthWithBundle(outdir: string): string {
  const app = new App({ context: FEATURE_FLAGS, outdir });
  const stack = new EcrAnywhereStack(app, 'Test', { settings: readSettings({}) });
  app.synth();
  const bundle = readdirSync(outdir).find((name) => name.startsWith('asset.'));
  if (!bundle) throw new Error(`The stack ${stack.stackName} has no asset.`);
  return join(outdir, bundle);
}

export interface Resource {
  readonly Type: string;
  readonly Properties: Readonly<Record<string, unknown>>;
}

/** The resources of a type, by logical id without the hash. */
export function resources(template: Template, type: string): Record<string, Resource> {
  return Object.fromEntries(
    Object.entries(template.findResources(type) as Record<string, Resource>).map(([id, resource]) => [
      id.replace(/[0-9A-F]{8}$/, ''),
      resource,
    ]),
  );
}

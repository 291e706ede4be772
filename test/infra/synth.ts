// The stack as CloudFormation would get it, for the tests of infra/.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, type Stack } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { readSettings } from '../../infra/settings.ts';
import { EcrAnywhereStack } from '../../infra/stack.ts';

const { context: flags } = JSON.parse(readFileSync(new URL('../../cdk.json', import.meta.url), 'utf8')) as {
  context: Record<string, unknown>;
};

/** The template. @param context settings, as `-c` would give them */
export function synth(context: Readonly<Record<string, unknown>> = {}): Template {
  return templateOf((app) => new EcrAnywhereStack(app, 'Test', { settings: readSettings(context) }));
}

/** The template of a stack that is made in the app; without bundles, of which it has nothing but their hash. */
export function templateOf(make: (app: App) => Stack): Template {
  const outdir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-'));
  try {
    return Template.fromStack(
      make(new App({ outdir, context: { ...flags, 'aws:cdk:bundling-stacks': [] } })),
    );
  } finally {
    rmSync(outdir, { recursive: true, force: true });
  }
}

/** Synthesizes with the code. @param outdir where the template and the bundle go */
export function synthWithBundle(outdir: string): string {
  const app = new App({ context: flags, outdir });
  const stack = new EcrAnywhereStack(app, 'Test', { settings: readSettings({}) });
  app.synth();
  const bundle = readdirSync(outdir).find((name) => name.startsWith('asset.'));
  if (!bundle) throw new Error(`${stack.stackName} has no asset`);
  return join(outdir, bundle);
}

export interface Resource {
  readonly Type: string;
  readonly Properties: Readonly<Record<string, unknown>>;
}

/** The resources of a type by logical id without its hash. */
export function resources(template: Template, type: string): Record<string, Resource> {
  return Object.fromEntries(
    Object.entries(template.findResources(type) as Record<string, Resource>).map(([id, resource]) => [
      id.replace(/[0-9A-F]{8}$/, ''),
      resource,
    ]),
  );
}

// Deploys a CDK app into the local AWS with the real CDK: `cdk bootstrap`, then `cdk deploy`.
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { CloudFormationClient, DescribeStacksCommand } from '@aws-sdk/client-cloudformation';
import { Deployment } from './deployment.ts';
import type { Emulator } from './emulator.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface DeployOptions {
  /** Settings of the app (infra/settings.ts). */
  readonly context?: Readonly<Record<string, string | number | boolean>>;
  /** A CDK app or a cloud assembly in place of the project's, as for `cdk --app`, and the name of its only stack. */
  readonly app?: { readonly command: string; readonly stackName: string };
  /** The directory in which the CDK runs, such as another checkout, whose app it deploys in place of this one's. */
  readonly cwd?: string;
}

/** Deploys or updates the stack, and bootstraps the account if necessary. */
export async function deployStack(emulator: Emulator, options: DeployOptions = {}): Promise<Deployment> {
  const { context = {}, app, cwd } = options;
  const stackName = app?.stackName ?? String(context.stackName ?? 'EcrAnywhere');
  const settings = [
    ...Object.entries(context).flatMap(([key, value]) => ['--context', `${key}=${value}`]),
    ...(app ? ['--app', app.command] : []),
    ...['--output', join(emulator.dir, `cdk.out.${stackName}`)],
  ];
  if (!(await exists(emulator, 'CDKToolkit')))
    // Beside no cdk.json, cdk does not run the app to learn the environment.
    await cdk(emulator, ['bootstrap', `aws://${emulator.account}/${emulator.region}`], emulator.dir);
  const outputsFile = join(emulator.dir, `outputs.${stackName}.json`);
  const deploy = ['deploy', stackName, ...settings, '--require-approval', 'never'];
  await cdk(emulator, [...deploy, '--outputs-file', outputsFile], cwd);
  const outputs = JSON.parse(await readFile(outputsFile, 'utf8')) as Record<string, Record<string, string>>;
  return Deployment.of(emulator, stackName, outputs[stackName] ?? {});
}

/** Destroys the stack, as the project's app does. */
export async function destroyStack(emulator: Emulator, stackName: string): Promise<void> {
  await cdk(emulator, ['destroy', stackName, '--force', '--context', `stackName=${stackName}`]);
}

/** Whether the account has the stack. */
export async function exists(emulator: Emulator, StackName: string): Promise<boolean> {
  const client = new CloudFormationClient(emulator.clientConfig);
  try {
    await client.send(new DescribeStacksCommand({ StackName }));
    return true;
  } catch (error) {
    if (error instanceof Error && error.name === 'ValidationError') return false;
    throw error;
  }
}

async function cdk(emulator: Emulator, args: readonly string[], cwd = ROOT): Promise<void> {
  try {
    await promisify(execFile)('cdk', [...args, '--no-notices'], {
      cwd,
      env: { ...emulator.env, CDK_DISABLE_CLI_TELEMETRY: 'true' },
      maxBuffer: 64 * 1024 * 1024,
    });
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`cdk ${args[0]} failed:\n${stdout}${stderr}`, { cause: error });
  }
}

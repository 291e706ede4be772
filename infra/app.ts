// The entry point of the CDK app: reads the settings and creates one stack.
import { App } from 'aws-cdk-lib';
import { readSettings } from './settings.ts';
import { EcrAnywhereStack } from './stack.ts';

const app = new App();
try {
  const settings = readSettings(app.node.getAllContext());
  new EcrAnywhereStack(app, settings.stackName, { settings });
} catch (error) {
  // An invalid setting is the operator's to correct, so print the message without a stack trace.
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}

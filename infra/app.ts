// The entry point of the CDK app, in the checkout and in the npm package: reads the settings and creates one stack.
import { App } from 'aws-cdk-lib';
import { FEATURE_FLAGS } from './feature-flags.ts';
import { readSettings } from './settings.ts';
import { EcrAnywhereStack } from './stack.ts';

const app = new App({ postCliContext: FEATURE_FLAGS, analyticsReporting: false });
try {
  const settings = readSettings(app.node.getAllContext());
  new EcrAnywhereStack(app, settings.stackName, { settings });
} catch (error) {
  // An invalid setting is the operator's to correct, so print the message without a stack trace.
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}

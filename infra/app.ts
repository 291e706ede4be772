// The CDK app's entry: settings in, one stack out.
import { App } from 'aws-cdk-lib';
import { readSettings } from './settings.ts';
import { EcrAnywhereStack } from './stack.ts';

const app = new App();
try {
  const settings = readSettings(app.node.getAllContext());
  new EcrAnywhereStack(app, settings.stackName, { settings });
} catch (error) {
  // A wrong setting needs a sentence, not a stack trace.
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}

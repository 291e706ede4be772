// A CDK app with the project's construct, in which another handler runs with the refresher's role.
import { fileURLToPath } from 'node:url';
import { App, Stack } from 'aws-cdk-lib';
import { Refresher } from '../../../infra/refresher.ts';

const stack = new Stack(new App(), 'Probe');
new Refresher(stack, 'Refresher', {
  function: { entry: fileURLToPath(new URL('./handler.ts', import.meta.url)) },
  scheduleEnabled: false,
});

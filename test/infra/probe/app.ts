// A stack that embeds the project's construct, with another handler under the same role.
import { fileURLToPath } from 'node:url';
import { App, Stack } from 'aws-cdk-lib';
import { Refresher } from '../../../infra/refresher.ts';

const stack = new Stack(new App(), 'Probe');
new Refresher(stack, 'Refresher', {
  entry: fileURLToPath(new URL('./handler.ts', import.meta.url)),
  scheduleEnabled: false,
});

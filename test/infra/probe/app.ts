// A CDK app with the project's construct, in which another handler runs with the refresher's role.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, Stack } from 'aws-cdk-lib';
import { Code } from 'aws-cdk-lib/aws-lambda';
import { Refresher } from '../../../infra/refresher.ts';
import { bundle } from '../../../release/bundle.ts';

const folder = mkdtempSync(join(tmpdir(), 'ecr-anywhere-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
await bundle({ outfile: join(folder, 'index.mjs'), entry: 'test/infra/probe/handler.ts' });
const stack = new Stack(new App(), 'Probe');
new Refresher(stack, 'Refresher', { function: { code: Code.fromAsset(folder) }, scheduleEnabled: false });

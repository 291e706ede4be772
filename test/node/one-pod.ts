// A node with one Pod, until something ends it: what interruption.test.ts interrupts.
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startAwsEndpoint } from '../bed/aws-endpoint.ts';
import { interrupted } from '../bed/up.ts';
import { buildPauseImage, PAUSE_IMAGE } from './images.ts';
import { startNode } from './node.ts';
import { startRegistries } from './registry.ts';

const dir = await mkdtemp(join(tmpdir(), 'node-'));
await using ecr = await startAwsEndpoint();
await using registries = await startRegistries(join(dir, 'registry'), ecr);
await buildPauseImage(join(dir, 'images'), registries.address);
await using cluster = await startNode({ dir: join(dir, 'node'), pauseImage: PAUSE_IMAGE });
const pod = {
  kind: 'Pod',
  metadata: { name: 'app' },
  spec: { containers: [{ name: 'app', image: PAUSE_IMAGE }] },
};
// The API server refuses Pods until the controllers have created it.
await cluster.kubectl(['wait', '--for=create', 'serviceaccount/default', '--timeout=60s']);
await cluster.kubectl(['apply', '-f', '-'], { input: JSON.stringify({ apiVersion: 'v1', ...pod }) });
await interrupted();

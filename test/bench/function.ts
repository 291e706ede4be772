// Benchmarks the cold start of the refresher: Node with the deployed bundle loaded, against Node with an empty module.
import { execFile } from 'node:child_process';
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { buildFunction } from '../../functions/build.ts';
import { ENVIRONMENT } from '../../functions/refresher/settings.ts';
import { synthWithBundle } from '../infra/synth.ts';
import { median, type Row } from './table.ts';

const ROUNDS = 9;

/** Measures the time from the start of the process until the module is loaded, and the size of the bundle. */
export async function benchFunction(dir: string): Promise<Row[]> {
  await mkdir(dir, { recursive: true });
  await buildFunction();
  const bundle = join(synthWithBundle(join(dir, 'cdk.out')), 'index.mjs');
  const empty = join(dir, 'empty.mjs');
  await writeFile(empty, '');
  const rounds: { floor: number; ours: number }[] = [];
  for (let round = 0; round < ROUNDS; round++)
    rounds.push({ floor: await secondsToLoad(empty), ours: await secondsToLoad(bundle) });
  const of = (name: 'floor' | 'ours') => `${median(rounds.map((round) => round[name])).toFixed(2)} s`;
  const { size } = await stat(bundle);
  return [
    {
      what: 'function: start of Node and import of the bundle',
      floor: of('floor'),
      ours: of('ours'),
      ratio: median(rounds.map(({ floor, ours }) => floor / ours)),
    },
    { what: 'function: size of the bundle', floor: '', ours: `${(size / 1e6).toFixed(2)} MB` },
  ];
}

async function secondsToLoad(module: string): Promise<number> {
  const startedAt = performance.now();
  await promisify(execFile)(process.execPath, ['--enable-source-maps', module], {
    env: {
      [ENVIRONMENT.clusterDeadline]: '120',
      [ENVIRONMENT.clusterConcurrency]: '25',
      [ENVIRONMENT.stateTable]: 'states',
      [ENVIRONMENT.topic]: 'arn:aws:sns:eu-central-1:111122223333:alarms',
      [ENVIRONMENT.stackName]: 'EcrAnywhere',
      AWS_LAMBDA_FUNCTION_NAME: 'refresher',
      AWS_REGION: 'eu-central-1',
    },
  });
  return (performance.now() - startedAt) / 1000;
}

// Two stacks in one account and region: each serves its own clusters, and the command line registers with the stack that
// --stack-name names.
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { deployStack } from '../../../bed/deploy.ts';
import type { Deployment } from '../../../bed/deployment.ts';
import { Registrar } from './registrar.ts';

let registrar: Registrar;
let live: Deployment;

beforeAll(async () => {
  registrar = await Registrar.start({ clusters: ['one'] });
  live = await deployStack(registrar.bed.deployment.emulator, {
    context: {
      scheduleEnabled: false,
      stackName: 'Live',
      allowLocalServers: true,
      clusterDeadlineSeconds: 20,
    },
  });
});
afterAll(() => registrar?.[Symbol.asyncDispose]());

const namesOf = async (deployment: Deployment) => {
  const { payload } = await deployment.invoke();
  return (payload as { clusters: { cluster: string }[] }).clusters.map(({ cluster }) => cluster);
};
const run = async (...args: string[]) => {
  const ended = await registrar.cli.run([...args, '--output', 'json', '--quiet']);
  expect({ code: ended.code, stderr: ended.stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(ended.stdout);
};

test('a cluster that is registered with one stack is served by that stack only', async () => {
  const { adminKubeconfigPath } = registrar.bed.cluster('one').controlPlane;
  const ofLive = ['--stack-name', 'Live'];
  await registrar.register(['one', '--kubeconfig', adminKubeconfigPath, ...ofLive]);
  const secrets = new SecretsManagerClient(registrar.bed.deployment.emulator.clientConfig);
  await secrets.send(new GetSecretValueCommand({ SecretId: 'ecr-anywhere-Live/clusters/one' }));
  registrar.lag.catchUp();
  expect(await namesOf(live)).toEqual(['one']);
  expect(await namesOf(registrar.bed.deployment)).toEqual([]);

  // By the stack's name, and by the function's.
  expect(await run('pause', 'one', ...ofLive)).toMatchObject({ isPaused: true });
  expect(await run('resume', 'one', '--function', live.functionName)).toMatchObject({ isPaused: false });
  await registrar.cli.run(['pause', 'one', '--quiet']).then(({ code, stderr }) => {
    expect(code).not.toBe(0);
    expect(stderr).toContain('one');
  });
  await run('unregister', 'one', ...ofLive);
  registrar.lag.catchUp();
  expect(await namesOf(live)).toEqual([]);
});

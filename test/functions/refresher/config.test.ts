// Tests the function's settings: valid ones are parsed, and all invalid ones are reported together.
import { expect, test } from 'vitest';
import { readConfig } from '../../../functions/refresher/config.ts';
import { ENVIRONMENT } from '../../../functions/refresher/settings.ts';

const env = {
  [ENVIRONMENT.clusterDeadline]: '120',
  [ENVIRONMENT.clusterConcurrency]: '25',
  [ENVIRONMENT.stateTable]: 'memory',
  [ENVIRONMENT.topic]: 'arn:aws:sns:eu-central-1:111122223333:alarms',
  [ENVIRONMENT.stackName]: 'EcrAnywhere',
  AWS_LAMBDA_FUNCTION_NAME: 'refresher',
  AWS_REGION: 'eu-central-1',
  PATH: '/usr/bin',
};

test('reads the environment variables that the CDK app sets', () => {
  expect(readConfig(env)).toEqual({
    clusterDeadlineMs: 120_000,
    clusterConcurrency: 25,
    region: 'eu-central-1',
    assumableRoles: [],
    eksDiscovery: [],
    secretPrefix: 'ecr-anywhere/clusters/',
    managedTag: 'true',
    stateTable: 'memory',
    topicArn: 'arn:aws:sns:eu-central-1:111122223333:alarms',
    stackName: 'EcrAnywhere',
    batchClusters: 500,
    hasClusterMetrics: false,
    isInVpc: false,
    allowLocalServers: false,
    service: 'refresher',
  });
  const roles = ['arn:aws:iam::123456789012:role/a', 'arn:aws:iam::123456789012:role/b'];
  expect(
    readConfig({
      ...env,
      [ENVIRONMENT.assumableRoles]: roles.join(),
      [ENVIRONMENT.eksDiscovery]: `eu-central-1,us-east-1=${roles[0]}`,
      [ENVIRONMENT.isInVpc]: 'true',
      [ENVIRONMENT.allowLocalServers]: 'true',
      [ENVIRONMENT.clusterMetrics]: 'true',
      [ENVIRONMENT.runsBucket]: 'runs',
      [ENVIRONMENT.batchClusters]: '40',
    }),
  ).toMatchObject({
    hasClusterMetrics: true,
    runsBucket: 'runs',
    batchClusters: 40,
    assumableRoles: roles,
    eksDiscovery: [{ region: 'eu-central-1' }, { region: 'us-east-1', roleArn: roles[0] }],
    isInVpc: true,
    allowLocalServers: true,
  });
});

test('a refresher with a prefix of its own serves the EKS clusters whose tag has the name of its stack', () => {
  const ofLive = {
    ...env,
    [ENVIRONMENT.stackName]: 'Live',
    [ENVIRONMENT.secretPrefix]: 'ecr-anywhere-Live/clusters/',
  };
  expect(readConfig(ofLive)).toMatchObject({
    secretPrefix: 'ecr-anywhere-Live/clusters/',
    managedTag: 'Live',
  });
});

test.each([
  { variable: ENVIRONMENT.clusterDeadline, values: [undefined, '', '0', '901', 'soon'] },
  { variable: ENVIRONMENT.clusterConcurrency, values: [undefined, '', '0', '1.5', '501', 'many'] },
  { variable: ENVIRONMENT.stateTable, values: [undefined, ''] },
  { variable: ENVIRONMENT.topic, values: [undefined, ''] },
  { variable: ENVIRONMENT.stackName, values: [undefined, ''] },
  { variable: 'AWS_LAMBDA_FUNCTION_NAME', values: [undefined, ''] },
  { variable: 'AWS_REGION', values: [undefined, ''] },
  { variable: ENVIRONMENT.runsBucket, values: [''] },
  { variable: ENVIRONMENT.batchClusters, values: ['', '0', '1.5', 'many'] },
  { variable: ENVIRONMENT.clusterMetrics, values: ['', 'perhaps'] },
  { variable: ENVIRONMENT.secretPrefix, values: ['', 'clusters'] },
  { variable: ENVIRONMENT.isInVpc, values: ['', 'perhaps'] },
  { variable: ENVIRONMENT.allowLocalServers, values: ['', 'perhaps'] },
])('names $variable if it is missing or out of bounds', ({ variable, values }) => {
  for (const value of values) expect(() => readConfig({ ...env, [variable]: value })).toThrow(`${variable} `);
});

test('names all invalid variables in one error', () => {
  expect(() => readConfig({})).toThrow(
    new RegExp(`${ENVIRONMENT.clusterDeadline}.*${ENVIRONMENT.clusterConcurrency}.*AWS_LAMBDA_FUNCTION_NAME`),
  );
});

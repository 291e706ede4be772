// The refresher in the cluster, as its Pod runs it: the bundle of the image, with the environment, the volumes and the
// Pod-bound token that the chart's CronJob gives it, against a real API server and the webhook.
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Finding } from '../../../../cli/commands/doctor/checks.ts';
import { EXIT } from '../../../../cli/output/errors.ts';
import { formatTime } from '../../../../contract/freshness.ts';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../../../contract/names.ts';
import type { ClusterSummary } from '../../../../contract/refresher-api.ts';
import { ENVIRONMENT } from '../../../../functions/refresher/in-cluster/settings.ts';
import { buildWebhook, IN_CLUSTER_REFRESHER } from '../../../../webhook/build.ts';
import { connectAdmin } from '../../../bed/admin.ts';
import { runCommand } from '../../../bed/control-plane.ts';
import { keepEvidence } from '../../../bed/evidence.ts';
import { helm } from '../../../bed/helm.ts';
import { containerOf } from '../../../bed/kubelet.ts';
import { type Program, startProgram } from '../../../bed/process.ts';
import { NAMESPACE, RELEASE } from '../../../bed/webhook.ts';
import { type CommandLine, startCommandLine } from '../../../cli/command-line.ts';
import { HOUR, type RealCluster, secretPath, startRealCluster } from '../../real-cluster.ts';

const CRON_JOB = `${RELEASE}-refresher`;
const POLL = { timeout: 30_000, interval: 50 };

interface Result {
  readonly code: number | string;
  readonly lines: readonly { readonly level: string; readonly message: string; readonly outcome?: string }[];
  /** What `kubectl describe pod` shows. */
  readonly message: Partial<ClusterSummary>;
}

let cluster: RealCluster;
let bundle: string;
let inputs: readonly string[];
let pods = 0;

beforeAll(async () => {
  cluster = await startRealCluster({ values: ['refresher.inCluster.enabled=true'] });
  bundle = join(cluster.controlPlane.dir, 'refresher.mjs');
  inputs = Object.keys((await buildWebhook(bundle, IN_CLUSTER_REFRESHER)).inputs);
  await cluster.createNamespace('team');
});
afterAll(() => cluster[Symbol.asyncDispose]());

/** Starts a Job by hand, and creates the Pod that the Job's controller would create. @returns what its container gets */
async function schedulePod(given: Readonly<Record<string, string>> = {}) {
  const { controlPlane } = cluster;
  pods += 1;
  const name = `by-hand-${pods}`;
  const kubectl = (...args: string[]) => controlPlane.kubectl([...args, '--namespace', NAMESPACE]);
  await kubectl('create', 'job', name, `--from=cronjob/${CRON_JOB}`);
  const { stdout } = await kubectl('get', 'job', name, '-o', 'json');
  const { template } = (JSON.parse(stdout) as { spec: { template: { metadata: object; spec: object } } })
    .spec;
  const pod = { apiVersion: 'v1', kind: 'Pod', ...template, metadata: { ...template.metadata, name } };
  await controlPlane.kubectl(['create', '--namespace', NAMESPACE, '-f', '-'], { input: JSON.stringify(pod) });
  const root = await mkdtemp(join(controlPlane.dir, 'pod-'));
  const container = containerOf(controlPlane, NAMESPACE, { kind: 'pod', name }, root);
  await container.syncVolumes();
  const terminationLog = join(root, 'termination-log');
  const env: Readonly<Record<string, string>> = {
    ...(await container.environment()),
    [ENVIRONMENT.terminationLog]: terminationLog,
    ...given,
  };
  return { name, root, terminationLog, env };
}

async function resultOf(code: number | string, output: string, terminationLog: string): Promise<Result> {
  const lines = output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const message = await readFile(terminationLog, 'utf8');
  expect(Buffer.byteLength(message)).toBeLessThanOrEqual(4_096);
  return { code, lines, message: JSON.parse(message) };
}

/** Runs a Pod to its end. */
async function runPod(env: Readonly<Record<string, string>> = {}): Promise<Result> {
  const pod = await schedulePod(env);
  const { code, stdout, stderr } = await runCommand(process.execPath, [bundle], pod.env);
  keepEvidence('log', pod.name, stdout + stderr);
  return resultOf(code, stdout + stderr, pod.terminationLog);
}

/** Starts a Pod, and waits until its run has started. */
async function startPod(env: Readonly<Record<string, string>> = {}) {
  const pod = await schedulePod(env);
  const logPath = join(pod.root, 'log');
  const program: Program = await startProgram(pod.name, process.execPath, [bundle], {
    env: pod.env,
    logPath,
    isReady: async () => (await readFile(logPath, 'utf8')).includes('cluster started'),
  });
  return { program, ended: async () => resultOf(await program.ended, program.log(), pod.terminationLog) };
}

/** Creates a managed Secret whose credentials expire in so many hours. */
async function createSecret(name: string, hours: number): Promise<string> {
  const path = `team/${name}`;
  await cluster.createSecrets([{ namespace: 'team', name }]);
  await cluster.age(new Map([[path, hours * HOUR]]));
  return path;
}

const secret = async (path: string) => (await cluster.secrets()).get(path);
const remove = (path: string) => cluster.admin('DELETE', secretPath(path));
const expiryOf = async (path: string) =>
  Date.parse((await secret(path))?.metadata.annotations?.[ANNOTATION.expiresAt] ?? '');

test('contains no code of the AWS SDK', () => {
  expect(inputs.length).toBeGreaterThan(20);
  expect(inputs.filter((path) => /@aws-sdk|@smithy/.test(path))).toEqual([]);
});

test('is named by the notes of the release, instead of the registration', async () => {
  const { stdout } = await helm(['get', 'notes', RELEASE, '--namespace', NAMESPACE], {
    cluster: cluster.controlPlane,
  });
  expect(stdout).toContain(`create job --from=cronjob/${CRON_JOB} refresh-now`);
  expect(stdout).not.toContain('ecr-anywhere register');
});

test('refreshes a due Secret, leaves a fresh one alone, and ends with 0', async () => {
  const due = await createSecret('due', 1);
  await cluster.createSecrets([{ namespace: 'team', name: 'fresh' }]);
  const before = await secret('team/fresh');
  const { code, lines, message } = await runPod();
  expect(code).toBe(0);
  expect(lines.map(({ level, message, outcome }) => [level, message, outcome])).toEqual([
    ['INFO', 'cluster started', undefined],
    ['INFO', 'secret', 'refreshed'],
    ['INFO', 'cluster', undefined],
  ]);
  expect(message).toMatchObject({ served: true, failed: false, managed: 2, outcomes: { refreshed: 1 } });
  expect(await expiryOf(due)).toBeGreaterThan(Date.now() + 11 * HOUR);
  expect(await secret('team/fresh')).toEqual(before);
  await Promise.all([remove(due), remove('team/fresh')]);
});

test('ends with 1 if the webhook refuses a Secret, and still refreshes the others', async () => {
  const due = await createSecret('due', 1);
  const { data } = (await secret(due)) ?? {};
  await cluster.withoutWebhook(async () => {
    await cluster.admin('POST', '/api/v1/namespaces/team/secrets', {
      type: SECRET_TYPE,
      immutable: true,
      metadata: { name: 'frozen', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
      data,
    });
  });
  const { code, lines, message } = await runPod();
  expect(code).toBe(1);
  expect(lines.at(-1)).toMatchObject({ level: 'ERROR', message: 'cluster', cluster: 'in-cluster' });
  expect(message).toMatchObject({
    codes: ['secrets-not-refreshed'],
    outcomes: { refreshed: 1, refused: 1 },
    problems: [{ secret: 'team/frozen', outcome: 'refused', code: 'webhook-denied' }],
  });
  await Promise.all([remove(due), remove('team/frozen')]);
});

describe('with a due Secret', () => {
  let due: string;
  beforeAll(async () => {
    due = await createSecret('always-due', 1);
  });
  afterAll(() => remove(due));

  test('ends with 1 if no webhook writes credentials', async () => {
    await cluster.withoutWebhook(async () => {
      const { code, message } = await runPod();
      expect({ code, message }).toMatchObject({
        code: 1,
        message: { served: true, problems: [{ secret: due, code: 'not-mutated' }] },
      });
    });
  });

  test('ends with 1 while the webhook is down, and with 0 when it is back', async () => {
    await cluster.webhook.program.stop();
    expect(await runPod()).toMatchObject({
      code: 1,
      message: { served: true, problems: [{ code: 'webhook-unreachable' }] },
    });
    await cluster.webhook.start();
    await expect.poll(async () => (await runPod()).code, POLL).toBe(0);
    await cluster.age(new Map([[due, HOUR]]));
  });

  test('ends with 1 if the API server cannot be reached', async () => {
    expect(await runPod({ KUBERNETES_SERVICE_PORT: '1' })).toMatchObject({
      code: 1,
      message: { served: false, failedAt: 'reach', codes: ['unreachable'] },
    });
  });

  test('ends with 1 if the API server does not accept the token, which ends with its Pod', async () => {
    const pod = await schedulePod();
    await cluster.controlPlane.kubectl(['delete', 'pod', pod.name, '--now', '--namespace', NAMESPACE]);
    const { code, stdout, stderr } = await runCommand(process.execPath, [bundle], pod.env);
    const { message } = await resultOf(code, stdout + stderr, pod.terminationLog);
    expect({ code, message }).toMatchObject({
      code: 1,
      message: { failedAt: 'credential', codes: ['unauthorized'] },
    });
  });

  describe('while the webhook does not answer', () => {
    beforeAll(() => cluster.webhook.program.signal('SIGSTOP'));
    afterAll(() => cluster.webhook.program.signal('SIGCONT'));

    test('reports and ends with 1 at its deadline', async () => {
      const { code, message } = await runPod({ [ENVIRONMENT.deadline]: '2' });
      expect(code).toBe(1);
      expect(message.codes).toContain('cluster-time-up');
    });

    test.each(['SIGTERM', 'SIGINT'] as const)('reports and ends with 1 at %s', async (signal) => {
      const { program, ended } = await startPod();
      program.signal(signal);
      const { code, message, lines } = await ended();
      expect(code).toBe(1);
      expect(message.codes).toContain('run-ended');
      expect(message.reason).toContain(signal);
      expect(lines.at(-1)?.message).toBe('cluster');
    });
  });

  test('runs beside another Pod and the Lambda function: all succeed, and the Secret is refreshed', async () => {
    const [first, second, ofFunction] = await Promise.all([runPod(), runPod(), cluster.refresh()]);
    expect([first.code, second.code, ofFunction.failed]).toEqual([0, 0, false]);
    expect(await expiryOf(due)).toBeGreaterThan(Date.now() + 11 * HOUR);
  });
});

test.each([
  [
    'settings',
    { [ENVIRONMENT.deadline]: 'soon', KUBERNETES_SERVICE_PORT: '' },
    /DEADLINE_SECONDS.*PORT|PORT.*DEADLINE_SECONDS/,
  ],
  ['files', { [ENVIRONMENT.serviceAccountDir]: '/nowhere' }, /\/nowhere\/token/],
])('ends with 2 for %s that it cannot use, and says which', async (_, env, reason) => {
  const { code, lines, message } = await runPod(env);
  expect(code).toBe(2);
  expect(lines).toMatchObject([
    { level: 'ERROR', message: 'not started', reason: expect.stringMatching(reason) },
  ]);
  expect(message.reason).toMatch(reason);
});

test('keeps its exit code and its log where it cannot leave a message', async () => {
  const pod = await schedulePod({ [ENVIRONMENT.terminationLog]: '/nowhere/log' });
  const { code, stdout, stderr } = await runCommand(process.execPath, [bundle], pod.env);
  keepEvidence('log', pod.name, stdout + stderr);
  expect(code).toBe(0);
  expect(stderr).toContain('"termination message not written"');
});

test('its Pod is held to the same write policies as the Lambda function', async () => {
  await cluster.createSecrets([{ namespace: 'team', name: 'fenced' }]);
  const { root, env } = await schedulePod();
  const token = await readFile(join(env[ENVIRONMENT.serviceAccountDir] ?? '', 'token'), 'utf8');
  const adminKubeconfigPath = join(root, 'kubeconfig');
  await writeFile(adminKubeconfigPath, cluster.controlPlane.kubeconfigForToken(token));
  await using pod = await connectAdmin({ ...cluster.controlPlane, adminKubeconfigPath });
  await expect(
    pod.admin('PATCH', secretPath('team/fenced'), { data: { [SECRET_KEY]: 'e30=' } }),
  ).rejects.toThrow('refresher-out-of-bounds');
  await expect(
    pod.admin('POST', `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${CRON_JOB}/token`, {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: {},
    }),
  ).rejects.toThrow(`${CRON_JOB}-token`);
});

describe('doctor --in-cluster', () => {
  let cli: CommandLine;
  beforeAll(async () => {
    cli = await startCommandLine({ KUBECONFIG: cluster.controlPlane.adminKubeconfigPath });
    await cluster.createSecrets([{ namespace: 'team', name: 'seen-by-doctor' }]);
  });
  afterAll(() => cli?.[Symbol.asyncDispose]());

  /** Sets the status as the CronJob controller does. */
  const setStatus = (status: object) =>
    cluster.admin('PATCH', `/apis/batch/v1/namespaces/${NAMESPACE}/cronjobs/${CRON_JOB}/status`, { status });
  const notPassed = async () => {
    const { code, stdout, stderr } = await cli.run(['doctor', '--in-cluster', '--output', 'json']);
    const { findings } = JSON.parse(stdout || stderr) as { findings: readonly Finding[] };
    return {
      exitCode: code,
      findings: findings
        .filter(({ verdict }) => verdict !== 'passed')
        .map(({ check, code }) => [check, code]),
    };
  };

  test('needs no AWS session, and judges the runs of the CronJob', async () => {
    expect(await notPassed()).toEqual({ exitCode: EXIT.unhealthy, findings: [['runs', undefined]] });
    const [earlier, now] = [formatTime(Date.now() - HOUR), formatTime(Date.now())];
    await setStatus({ lastScheduleTime: earlier, lastSuccessfulTime: now });
    expect(await notPassed()).toEqual({ exitCode: 0, findings: [] });
    await setStatus({ lastScheduleTime: now, lastSuccessfulTime: earlier });
    expect(await notPassed()).toEqual({
      exitCode: EXIT.unhealthy,
      findings: [['runs', 'last-run-failed']],
    });
  });

  test('takes no name of a registered cluster', async () => {
    expect(await cli.run(['doctor', 'alpha', '--in-cluster'])).toMatchObject({
      code: EXIT.usage,
      stdout: '',
    });
  });
});

test('creates the Secret of provision.secretName where it is missing, and ends with 0', async () => {
  await cluster.webhook.upgrade({ provision: { secretName: 'ecr' } });
  await cluster.restartWebhook();
  // The API server uses a new write policy after a second or two; until then the run ends with 1.
  const creates = async () => [(await runPod()).code, (await secret('team/ecr')) !== undefined];
  await expect.poll(creates, { timeout: 60_000 }).toEqual([0, true]);
  await cluster.createNamespace('late');
  expect(await runPod()).toMatchObject({ code: 0, message: { outcomes: { provisioned: 1 } } });
  expect((await secret('late/ecr'))?.data).toHaveProperty([SECRET_KEY]);
});

// Types the commands of docs/migration.md on the bed, in their order, against the objects that the other tools leave. What
// the controllers of the other tools do is played (migration.ts): their images cannot run here. After each step the
// Secret that the Pods name must have credentials that the registry accepts.
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Finding } from '../../cli/commands/doctor/checks.ts';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import { buildWebhook } from '../../webhook/build.ts';
import { type Admin, connectAdmin } from '../bed/admin.ts';
import { type ControlPlane, startControlPlane } from '../bed/control-plane.ts';
import { type Pod, startPod } from '../bed/kubelet.ts';
import { Bed } from '../bed/up.ts';
import { NAMESPACE, prepareNamespace, SERVICE_PORT, serviceAddress } from '../bed/webhook.ts';
import { type CommandLine, startCommandLine } from '../cli/command-line.ts';
import { commandsOf, type Ended, Shell } from '../docs/shell.ts';
import {
  base64,
  collectGarbage,
  EXTERNAL_SECRET,
  EXTERNAL_SECRET_CRD,
  isAsExternalSecretsWrote,
  passwordsFor,
  read,
  reconcileExternalSecret,
  runLoginRenew,
  runOriginalRefresher,
  runRegistryCreds,
  type SecretObject,
  startOriginalWebhook,
  writeOriginalChart,
} from './migration.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PAGE = await readFile(join(ROOT, 'docs/migration.md'), 'utf8');
const README = await readFile(join(ROOT, 'README.md'), 'utf8');
/** The page's commands by the heading of their section. */
const SECTIONS = new Map(
  PAGE.split(/^## /m).map((section) => [section.split('\n')[0] ?? '', commandsOf(section)]),
);
const HOURS = 3600;
const WAIT = { timeout: 60_000 };

const typed = new Set<string>();
let bed: Bed;
let cli: CommandLine;
let stack: AsyncDisposableStack;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  bed = stack.use(
    await Bed.create({
      clusters: ['peers'],
      context: { scheduleEnabled: false },
    }),
  );
  await bed.start();
  cli = stack.use(await startCommandLine(bed.operatorEnv));
}, 300_000);
afterAll(() => stack.disposeAsync());

/** A shell whose kubectl context is this cluster, under the name that the page gives it. */
async function operatorOf(controlPlane: ControlPlane, context = 'prod'): Promise<Operator> {
  const home = await mkdtemp(join(tmpdir(), 'ecr-anywhere-home-'));
  stack.defer(() => rm(home, { recursive: true, force: true }));
  const kubeconfig = await readFile(controlPlane.adminKubeconfigPath, 'utf8');
  await mkdir(join(home, '.kube'));
  await writeFile(join(home, '.kube', 'config'), kubeconfig.replaceAll(/: bed$/gm, `: ${context}`), {
    mode: 0o600,
  });
  const bin = join(cli.bundle, '..');
  const shell = await Shell.start(home, bed.operatorEnv);
  return { home, shell, bin, admin: stack.use(await connectAdmin(controlPlane)).admin };
}
interface Operator {
  readonly home: string;
  readonly shell: Shell;
  readonly bin: string;
  readonly admin: Admin;
}

/**
 * Types the command of a section that begins so.
 *
 * @param change adapts it to the bed
 */
async function type(
  { shell, bin, home }: Operator,
  section: string,
  begin: string,
  change = (line: string) => line,
): Promise<Ended> {
  const command = SECTIONS.get(section)?.find(({ line }) => line.startsWith(begin));
  if (!command) throw new Error(`"${section}" has no command "${begin}"`);
  typed.add(command.line);
  const line = change(command.line).replaceAll(/ -f (\S+\.yaml)/g, ` -f ${home}/$1`);
  return shell.type(line.replace(/^ecr-anywhere /, `${bin}/ecr-anywhere `));
}

const secretOf = async ({ admin }: Operator, name: string, namespace = 'team-a') => {
  const secret = await read(admin, `/api/v1/namespaces/${namespace}/secrets/${name}`);
  if (!secret) throw new Error(`there is no Secret ${namespace}/${name}`);
  return secret;
};

/**
 * Expects that the registry accepts every credential that the kubelet would try from this Secret.
 *
 * @returns the passwords
 */
async function expectPulls(on: Operator, name: string, namespace?: string): Promise<string[]> {
  const passwords = passwordsFor(bed.ecr.host, await secretOf(on, name, namespace));
  const valid = new Map(bed.ecr.calls.map(({ password = '', expiresAt = 0 }) => [password, expiresAt]));
  expect(passwords).not.toEqual([]);
  for (const password of passwords) expect(valid.get(password) ?? 0).toBeGreaterThan(Date.now());
  return passwords;
}

/** Expects that the Secret has exactly the webhook's entry, for twelve hours. */
async function expectManaged(on: Operator, name: string): Promise<void> {
  await expectPulls(on, name);
  const { data, metadata } = await secretOf(on, name);
  const { auths } = JSON.parse(Buffer.from(data?.[SECRET_KEY] ?? '', 'base64').toString()) as {
    auths: object;
  };
  expect(Object.keys(auths)).toEqual([bed.ecr.host]);
  const expiresAt = Date.parse(metadata.annotations?.[ANNOTATION.expiresAt] ?? '');
  expect(expiresAt).toBeGreaterThan(Date.now() + 11 * HOURS * 1000);
  expect(metadata.annotations?.[ANNOTATION.fingerprint]).toBeDefined();
}

const isManaged = ({ metadata }: SecretObject) => metadata.labels?.[SECRET_LABEL.key] === SECRET_LABEL.value;

describe('beside another tool', () => {
  const INSTALL = 'Install beside the other tool';
  const RENEW = 'From k8s-ecr-login-renew';
  const RENEW_SECRET = 'k8s-ecr-login-renew-docker-secret';
  const CREDS = 'From registry-creds';
  const CREDS_SECRET = 'awsecr-cred';
  const EXTERNAL = 'From External Secrets';
  const EXTERNAL_NAME = 'ecr-secret';
  const ALL = [RENEW_SECRET, CREDS_SECRET, EXTERNAL_NAME];
  let on: Operator;
  const kubectl = async (args: readonly string[], object?: object) =>
    bed.cluster('peers').controlPlane.kubectl(args, object && { input: JSON.stringify(object) });
  const apply = (object: object) => kubectl(['apply', '-f', '-'], object);
  const objectsOf = async (path: string) =>
    (await on.admin<{ items: { metadata: { name: string } }[] }>('GET', path)).items;

  const loginRenew = async () => {
    const { spec } = await on.admin<{ spec: { suspend?: boolean } }>(
      'GET',
      '/apis/batch/v1/namespaces/default/cronjobs/k8s-ecr-login-renew-cron',
    );
    const jobs = await objectsOf('/apis/batch/v1/namespaces/default/jobs');
    if (!spec.suspend || jobs.length > 0) await runLoginRenew(on.admin, bed.ecr, 'team-a', RENEW_SECRET);
  };
  const registryCreds = async () => {
    const { spec } = await on.admin<{ spec: { replicas: number } }>(
      'GET',
      '/apis/apps/v1/namespaces/kube-system/deployments/registry-creds/scale',
    );
    if (spec.replicas > 0) await runRegistryCreds(on.admin, bed.ecr, 'team-a');
  };
  const externalSecrets = async () => {
    await reconcileExternalSecret(on.admin, bed.ecr, 'team-a', EXTERNAL_NAME);
    await collectGarbage(on.admin, 'team-a');
  };
  /** What the controllers of the other tools do in an hour or six, if they run. */
  const othersRun = async () => {
    await loginRenew();
    await registryCreds();
    await externalSecrets();
  };

  /** Expects that the refresher in AWS gives the Secret new credentials. */
  const expectRefreshes = async (name: string) => {
    const before = await expectPulls(on, name);
    expect(await on.shell.type(`${on.bin}/ecr-anywhere refresh peers --force`)).toMatchObject({ code: 0 });
    await expectManaged(on, name);
    expect(await expectPulls(on, name)).not.toEqual(before);
  };

  beforeAll(async () => {
    on = await operatorOf(bed.cluster('peers').controlPlane, 'peers');
    const container = { name: 'x', image: 'registry.example.com/x' };
    const template = { spec: { restartPolicy: 'Never', containers: [container] } };
    await apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'team-a' } });
    // The controllers that create it in each namespace do not run on the bed.
    await apply({
      ...{ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace: 'team-a' } },
      imagePullSecrets: [{ name: 'docker-hub' }],
    });
    await apply({
      ...{ apiVersion: 'batch/v1', kind: 'CronJob' },
      metadata: { name: 'k8s-ecr-login-renew-cron', namespace: 'default' },
      spec: { schedule: '0 */6 * * *', jobTemplate: { spec: { template } } },
    });
    await apply({
      ...{ apiVersion: 'apps/v1', kind: 'Deployment' },
      metadata: { name: 'registry-creds', namespace: 'kube-system' },
      spec: {
        replicas: 1,
        selector: { matchLabels: { name: 'registry-creds' } },
        template: { metadata: { labels: { name: 'registry-creds' } }, spec: { containers: [container] } },
      },
    });
    await apply(EXTERNAL_SECRET_CRD);
    await kubectl(['wait', '--for=condition=Established', 'crd/externalsecrets.external-secrets.io']);
    await writeFile(join(on.home, 'external-secret.yaml'), EXTERNAL_SECRET);
    const [, manifest = ''] = /```yaml\n([\s\S]*?)```/.exec(README) ?? [];
    await writeFile(join(on.home, 'secret.yaml'), manifest);
    await kubectl(['apply', '--namespace', 'team-a', '-f', join(on.home, 'external-secret.yaml')]);
    // Written hours ago.
    bed.ecr.settings.nextLifetimesSeconds = ALL.map(() => 6 * HOURS);
    await othersRun();
  });

  test('nothing of another tool changes when the namespace is enabled and a trial Secret is created', async () => {
    const before = await Promise.all(ALL.map((name) => secretOf(on, name)));
    expect(await type(on, INSTALL, 'kubectl label namespace')).toMatchObject({ code: 0 });
    expect(await type(on, INSTALL, 'kubectl apply')).toMatchObject({ code: 0 });
    await expectManaged(on, 'ecr');
    await bed.deployment.invoke();
    const { code, stdout } = await type(on, INSTALL, 'ecr-anywhere doctor', (line) =>
      line.replaceAll('prod', 'peers'),
    );
    expect(code, stdout).toBe(0);
    expect(await Promise.all(ALL.map((name) => secretOf(on, name)))).toEqual(before);
    for (const name of ALL) {
      const { stdout } = await type(
        on,
        INSTALL,
        'kubectl --namespace team-a get secret awsecr-cred',
        (line) => line.replace('awsecr-cred', name),
      );
      expect(stdout).toBe(`${bed.ecr.host}\n`);
    }
  });

  test('the other tools go on beside it', async () => {
    await othersRun();
    for (const name of ALL) {
      await expectPulls(on, name);
      expect(isManaged(await secretOf(on, name))).toBe(false);
    }
    await expectManaged(on, 'ecr');
  });

  test('a cut-over without credentials is refused and changes nothing', async () => {
    await type(on, RENEW, 'kubectl --namespace default patch cronjob');
    const before = await secretOf(on, RENEW_SECRET);
    bed.ecr.settings.mode = 'denied';
    try {
      const { webhook } = bed.cluster('peers');
      await webhook.program.stop();
      await webhook.start();
      expect(await type(on, RENEW, 'kubectl --namespace team-a label secret')).toMatchObject({ code: 1 });
    } finally {
      bed.ecr.settings.mode = 'ok';
    }
    expect(await secretOf(on, RENEW_SECRET)).toEqual(before);
  });

  /** Types the last commands of a section. After each, the Secret has valid credentials. */
  async function typeWayBack(section: string, commands: number, secret: string): Promise<void> {
    for (const { line } of SECTIONS.get(section)?.slice(-commands) ?? []) {
      expect(await type(on, section, line)).toMatchObject({ code: 0 });
      await expectPulls(on, secret);
    }
  }

  describe('k8s-ecr-login-renew', () => {
    test('its Secret moves after its CronJob is suspended, and stays valid', async () => {
      expect(
        await type(on, RENEW, 'kubectl --namespace default patch cronjob', (line) => line),
      ).toMatchObject({ code: 0 });
      expect(await type(on, RENEW, 'kubectl --namespace default get jobs')).toMatchObject({ stdout: '' });
      await expectPulls(on, RENEW_SECRET);
      await expect
        .poll(async () => (await type(on, RENEW, 'kubectl --namespace team-a label secret')).code, WAIT)
        .toBe(0);
      await expectManaged(on, RENEW_SECRET);
      await othersRun();
      await expectManaged(on, RENEW_SECRET);
      await expectRefreshes(RENEW_SECRET);
    });

    test('its CronJob would replace the Secret by one without the label', async () => {
      bed.ecr.settings.nextLifetimesSeconds = [12 * HOURS];
      const { webhook } = bed.cluster('peers');
      await webhook.program.stop();
      await runLoginRenew(on.admin, bed.ecr, 'team-a', RENEW_SECRET);
      await webhook.start();
      expect(isManaged(await secretOf(on, RENEW_SECRET))).toBe(false);
      await expectPulls(on, RENEW_SECRET);
      await type(on, RENEW, 'kubectl --namespace team-a label secret');
      await expectManaged(on, RENEW_SECRET);
    });

    test('the way back', async () => {
      const [before] = await expectPulls(on, RENEW_SECRET);
      await typeWayBack(RENEW, 3, RENEW_SECRET);
      await loginRenew();
      expect(await expectPulls(on, RENEW_SECRET)).not.toContain(before);
      expect(isManaged(await secretOf(on, RENEW_SECRET))).toBe(false);
    });
  });

  describe('registry-creds', () => {
    const account = () =>
      on.admin<{ imagePullSecrets: object[] }>('GET', '/api/v1/namespaces/team-a/serviceaccounts/default');
    const pulls = [{ name: 'docker-hub' }, { name: CREDS_SECRET }];

    test('its Secret moves after it is stopped, and the ServiceAccount stays as it is', async () => {
      expect(await account()).toMatchObject({ imagePullSecrets: pulls });
      expect(await type(on, CREDS, 'kubectl --namespace kube-system scale')).toMatchObject({ code: 0 });
      await expectPulls(on, CREDS_SECRET);
      expect(await type(on, CREDS, 'kubectl --namespace team-a label secret')).toMatchObject({ code: 0 });
      await expectManaged(on, CREDS_SECRET);
      await othersRun();
      await expectManaged(on, CREDS_SECRET);
      await expectRefreshes(CREDS_SECRET);
      expect(await account()).toMatchObject({ imagePullSecrets: pulls });
    });

    test('its manifest in Git adopts it, and changes no credentials', async () => {
      const before = await expectPulls(on, CREDS_SECRET);
      const manifest = (await readFile(join(on.home, 'secret.yaml'), 'utf8')).replace(
        /name: ecr$/m,
        `name: ${CREDS_SECRET}`,
      );
      const { stdout } = await bed
        .cluster('peers')
        .controlPlane.kubectl(['apply', '-f', '-'], { input: manifest });
      expect(stdout).toContain(`secret/${CREDS_SECRET} configured`);
      expect(await expectPulls(on, CREDS_SECRET)).toEqual(before);
      await expectManaged(on, CREDS_SECRET);
    });

    test('it would take the label away', async () => {
      await runRegistryCreds(on.admin, bed.ecr, 'team-a');
      expect(isManaged(await secretOf(on, CREDS_SECRET))).toBe(false);
      await expectPulls(on, CREDS_SECRET);
      await type(on, CREDS, 'kubectl --namespace team-a label secret');
      await expectManaged(on, CREDS_SECRET);
    });

    test('the way back', async () => {
      const [before] = await expectPulls(on, CREDS_SECRET);
      await typeWayBack(CREDS, 2, CREDS_SECRET);
      await registryCreds();
      expect(await expectPulls(on, CREDS_SECRET)).not.toContain(before);
      expect(isManaged(await secretOf(on, CREDS_SECRET))).toBe(false);
    });
  });

  describe('External Secrets', () => {
    const LABEL = 'kubectl --namespace team-a label secret ecr-secret';

    test('it would write again after each change, if the label came first', async () => {
      await kubectl(['-n', 'team-a', 'label', 'secret', EXTERNAL_NAME, `${SECRET_LABEL.key}=true`]);
      for (let round = 0; round < 3; round++) {
        expect(isAsExternalSecretsWrote(await secretOf(on, EXTERNAL_NAME))).toBe(false);
        await externalSecrets();
      }
      await expectPulls(on, EXTERNAL_NAME);
      await kubectl(['-n', 'team-a', 'label', 'secret', EXTERNAL_NAME, `${SECRET_LABEL.key}-`]);
      await externalSecrets();
      expect(isAsExternalSecretsWrote(await secretOf(on, EXTERNAL_NAME))).toBe(true);
    });

    test('its Secret moves after it has no owner, and outlives the ExternalSecret', async () => {
      const owners = 'kubectl --namespace team-a get secret ecr-secret';
      expect((await type(on, EXTERNAL, owners)).stdout).toContain('ExternalSecret');
      expect(await type(on, EXTERNAL, 'kubectl --namespace team-a patch externalsecret')).toMatchObject({
        code: 0,
      });
      await externalSecrets();
      expect(await type(on, EXTERNAL, owners)).toMatchObject({ code: 0, stdout: '' });
      expect(await type(on, EXTERNAL, 'kubectl --namespace team-a delete externalsecret')).toMatchObject({
        code: 0,
      });
      await externalSecrets();
      await expectPulls(on, EXTERNAL_NAME);
      expect(await type(on, EXTERNAL, LABEL)).toMatchObject({ code: 0 });
      await expectManaged(on, EXTERNAL_NAME);
      await othersRun();
      await expectManaged(on, EXTERNAL_NAME);
      await expectRefreshes(EXTERNAL_NAME);
    });

    test('the way back', async () => {
      await typeWayBack(EXTERNAL, 2, EXTERNAL_NAME);
      await externalSecrets();
      await expectPulls(on, EXTERNAL_NAME);
      const secret = await secretOf(on, EXTERNAL_NAME);
      expect(isAsExternalSecretsWrote(secret)).toBe(true);
      expect(secret.metadata.ownerReferences).toHaveLength(1);
    });
  });
});

describe('From CentML/ecr-anywhere', () => {
  const SECTION = 'From CentML/ecr-anywhere';
  const SECRETS = ['ecr-secret', 'without-data'];
  const OLD_PORT = 8443;
  let on: Operator;
  let controlPlane: ControlPlane;
  let chart: string;
  let webhook: Pod | undefined;

  const expectAllPull = async () => {
    for (const name of SECRETS) await expectPulls(on, name);
  };
  const installOriginal = () => on.shell.type(`helm install ecr-anywhere ${chart}`);
  const startOriginal = async () => {
    // Its Service has a new address after each installation.
    const host = await serviceAddress(controlPlane, 'ecr-anywhere');
    stack.use(await startOriginalWebhook(bed.ecr, controlPlane.authority, { host, port: OLD_PORT }));
  };
  const doctor = async () => {
    const { stdout } = await type(on, SECTION, 'ecr-anywhere doctor', (line) => `${line} --output json`);
    const { findings } = JSON.parse(stdout) as { findings: readonly Finding[] };
    return findings.filter(({ verdict }) => verdict === 'failed').map(({ code }) => code);
  };

  beforeAll(async () => {
    controlPlane = stack.use(await startControlPlane({ name: 'prod', dir: join(bed.dir, 'prod') }));
    on = await operatorOf(controlPlane);
    await prepareNamespace(controlPlane);
    chart = join(bed.dir, 'original');
    await writeOriginalChart(chart, controlPlane.authority.caPem, OLD_PORT);
    expect(await installOriginal()).toMatchObject({ code: 0 });
    await startOriginal();
    // As its README has them.
    const labels = { 'ecr-anywhere.centml.ai/namespace': 'enabled' };
    await on.admin('POST', '/api/v1/namespaces', { metadata: { name: 'team-a', labels } });
    // The API server calls a new webhook after a second or two.
    await vi.waitUntil(async () => (await create('probe', 'x', '?dryRun=All')).metadata.annotations, 20_000);
    bed.ecr.settings.nextLifetimesSeconds = SECRETS.map(() => 5 * HOURS);
    await create('ecr-secret', 'x');
    await create('without-data');
    await expectAllPull();
  });

  const create = (name: string, config?: string, query = '') =>
    on.admin<SecretObject>('POST', `/api/v1/namespaces/team-a/secrets${query}`, {
      metadata: { name, labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
      type: SECRET_TYPE,
      ...(config !== undefined && {
        data: { [SECRET_KEY]: base64(`{"auths": {"x": {"auth": "${config}"}}}`) },
      }),
    });

  test('the chart is installed and the cluster is registered beside it', async () => {
    on.shell.set('AWS_REGION', 'eu-central-1');
    on.shell.set('role', '');
    const { code, stderr } = await type(
      on,
      SECTION,
      'helm install',
      (line) => `${line.replace('--wait --atomic ', '')} --set service.port=${SERVICE_PORT}`,
    );
    expect(code, stderr).toBe(0);
    const bundle = join(bed.dir, 'webhook.mjs');
    await buildWebhook(bundle);
    webhook = stack.use(
      await startPod(controlPlane, NAMESPACE, 'aws-ecr-anywhere', {
        bundle,
        ip: await serviceAddress(controlPlane, 'aws-ecr-anywhere'),
        ecrUrl: bed.ecr.url,
      }),
    );
    await expectAllPull();
    const registered = await type(on, SECTION, 'ecr-anywhere register');
    expect(registered.code, registered.stderr).toBe(0);
    await expectAllPull();
  });

  test('both write valid credentials, and neither refuses a request', async () => {
    // What is due is refreshed.
    bed.ecr.settings.nextLifetimesSeconds = Array(10).fill(5 * HOURS);
    await runOriginalRefresher(on.admin);
    bed.ecr.settings.nextLifetimesSeconds = [];
    expect((await bed.deployment.invoke()).payload).toMatchObject({
      clusters: expect.arrayContaining([
        expect.objectContaining({ cluster: 'prod', outcomes: { refreshed: SECRETS.length } }),
      ]),
    });
    await expectAllPull();
    const rounds = ['original', 'refresher', 'original', 'refresher'];
    for (const who of rounds) {
      if (who === 'original') await runOriginalRefresher(on.admin);
      else
        expect(await type(on, SECTION, 'ecr-anywhere refresh')).toMatchObject({
          code: 0,
          stdout: expect.stringMatching(/refreshed/),
        });
      await expectAllPull();
    }
    await create('created-beside');
    SECRETS.push('created-beside');
    await expectAllPull();
  });

  test('doctor finds the original, and nothing else', async () => {
    expect(await doctor()).toEqual(['original-beside']);
  });

  test('a refresh would be denied if the API server called the original first', async () => {
    const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
    const { webhooks } = await on.admin<{ webhooks: object[] }>('GET', `${path}/ecr-anywhere`);
    const refresh = async () => (await type(on, SECTION, 'ecr-anywhere refresh')).code;
    await on.admin('POST', path, { metadata: { name: 'a-copy' }, webhooks });
    await expect.poll(refresh, WAIT).not.toBe(0);
    await on.admin('DELETE', `${path}/a-copy`);
    await expect.poll(refresh, WAIT).toBe(0);
    await expectAllPull();
  });

  test('the original is removed, and every Secret stays valid', async () => {
    expect(await type(on, SECTION, 'kubectl delete mutatingwebhookconfiguration')).toMatchObject({ code: 0 });
    await expectAllPull();
    expect(await type(on, SECTION, 'helm uninstall ecr-anywhere')).toMatchObject({ code: 0 });
    await expectAllPull();
    expect(await type(on, SECTION, 'ecr-anywhere refresh')).toMatchObject({ code: 0 });
    for (const name of SECRETS) await expectManaged(on, name);
    await expect.poll(doctor, WAIT).toEqual([]);
  });

  test('the way back', async () => {
    expect(await installOriginal()).toMatchObject({ code: 0 });
    await startOriginal();
    await expectAllPull();
    expect(await type(on, SECTION, 'ecr-anywhere unregister')).toMatchObject({ code: 0 });
    expect(await type(on, SECTION, 'helm uninstall aws-ecr-anywhere')).toMatchObject({ code: 0 });
    await webhook?.stop();
    await expectAllPull();
    const before = await Promise.all(SECRETS.map((name) => expectPulls(on, name)));
    await expect.poll(() => runOriginalRefresher(on.admin).catch(String), WAIT).toBeUndefined();
    await expectAllPull();
    for (const [i, name] of SECRETS.entries()) expect(await expectPulls(on, name)).not.toEqual(before[i]);
  });
});

test('every command of the page was typed', () => {
  const all = [...SECTIONS.values()].flat().map(({ line }) => line);
  expect(all.filter((line) => !typed.has(line))).toEqual([]);
});

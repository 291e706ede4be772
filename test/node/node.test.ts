// The mission with nothing played: the chart's webhook as Pods of its own image, and Pods that pull a private image with the
// Secret that it fills, on a whole node. AWS is emulated; the deployed function refreshes on its schedule.
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { ANNOTATION, NAMESPACE_LABEL, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import type { ClusterSummary } from '../../contract/refresher-api.ts';
import manifest from '../../package.json' with { type: 'json' };
import { ROTATE_ANNOTATION } from '../../webhook/tls/objects.ts';
import { OVERLAP_MS } from '../../webhook/tls/rotation.ts';
import { newAuthority, newServing } from '../../webhook/tls/x509.ts';
import { connectAdmin } from '../bed/admin.ts';
import { runCommand } from '../bed/control-plane.ts';
import { helm } from '../bed/helm.ts';
import { runSteps } from '../bed/progress.ts';
import { pullSecretManifest } from '../bed/up.ts';
import { NAMESPACE, RELEASE } from '../bed/webhook.ts';
import { startAdmissions } from './admissions.ts';
import { PLATFORMS } from './images.ts';
import { CONTAINERD, PATH } from './node.ts';
import { REFUSED, sideBySide, WholeNode } from './whole-node.ts';

/** An enabled namespace, and one without the label. */
const ENABLED = 'team-a';
const PLAIN = 'team-b';
/** A namespace that is new, and the Secret that the refresher creates in it. */
const LABELLED = 'team-c';
const PROVISIONED = 'provisioned';

const BUNDLES = ['refresher', 'verify', 'webhook'];

let node: WholeNode;
/** Only the scheduled run needs it, and it takes longer than everything else. */
let deployed: Promise<void>;

beforeAll(async () => {
  node = await WholeNode.create();
  const { registries, images, cluster, aws } = node.steps;
  deployed = runSteps([aws]);
  // The test that waits for it reports the error.
  deployed.catch(() => {});
  await runSteps([registries, sideBySide(images, cluster)]);
  // Due from the start.
  node.ecr.settings.lifetimeSeconds = 3600;
});
afterAll(async () => {
  await deployed?.catch(() => {});
  await node?.[Symbol.asyncDispose]();
});

const isRunning = (namespace: string, name: string) =>
  expect.poll(() => node.stateOf(namespace, name), { timeout: 60_000 }).toBe('Running');
const isRefused = (namespace: string, name: string) =>
  expect.poll(() => node.stateOf(namespace, name), { timeout: 60_000 }).toMatch(REFUSED);

/** Reads the private image's manifest with an authfile. @returns skopeo's exit code */
async function skopeo(authfile: string): Promise<number> {
  const file = join(node.dir, 'auth.json');
  await writeFile(file, authfile, { mode: 0o600 });
  const { code } = await runCommand(
    'skopeo',
    [
      ...['inspect', '--raw', '--authfile', file, '--cert-dir', node.registries.certificates],
      `docker://${node.privateImage}`,
    ],
    { PATH: process.env.PATH ?? '', HOME: node.dir },
  );
  return code;
}

test.each(PLATFORMS)(
  'the image for %s holds the bundles and their licences above its base, and nothing else',
  async (platform) => {
    const url = `http://${node.registries.address}/v2/ecr-anywhere`;
    const read = async <Answer>(path: string, kind = 'manifest') => {
      const accept = `application/vnd.oci.image.${kind}.v1+json`;
      return (await (await fetch(`${url}/${path}`, { headers: { accept } })).json()) as Answer;
    };
    const { manifests } = await read<{ manifests: { digest: string; platform: Record<string, string> }[] }>(
      ...([`manifests/${manifest.version}`, 'index'] as const),
    );
    const { digest } =
      manifests.find((one) => `${one.platform.os}/${one.platform.architecture}` === platform) ?? {};
    const { config, layers } = await read<{ config: { digest: string }; layers: { digest: string }[] }>(
      `manifests/${digest}`,
    );
    // The stand-in of the base is one layer.
    const [, ...own] = layers;
    const files = await Promise.all(
      own.map(async (layer, index) => {
        const file = join(node.dir, `layer-${index}.tar`);
        await writeFile(file, await (await fetch(`${url}/blobs/${layer.digest}`)).bytes());
        return (await runCommand('tar', ['-tf', file], { PATH })).stdout.split('\n');
      }),
    );
    expect(
      files
        .flat()
        .filter((path) => path && !path.endsWith('/'))
        .sort(),
    ).toEqual([
      'app/LICENSE',
      'app/NOTICE',
      ...BUNDLES.flatMap((name) => [`app/${name}.mjs`, `app/${name}.mjs.map`]),
    ]);
    expect(await read(`blobs/${config.digest}`)).toMatchObject({
      os: 'linux',
      architecture: platform.replace('linux/', ''),
      config: { User: '65532:65532', Entrypoint: ['/nodejs/bin/node', '--enable-source-maps'] },
    });
  },
);

test('helm install --wait ends with the webhook ready, under restricted Pod Security', async () => {
  await node.cluster.kubectl(['create', 'namespace', NAMESPACE]);
  await node.cluster.kubectl([
    'label',
    'namespace',
    NAMESPACE,
    'pod-security.kubernetes.io/enforce=restricted',
  ]);
  await node.cluster.kubectl(['create', 'namespace', PLAIN]);
  await node.apply(`apiVersion: v1
kind: Namespace
metadata: {name: ${ENABLED}, labels: {ecr-anywhere.centml.ai/namespace: enabled}}
`);
  await node.helm('install', { enabled: [ENABLED] });
  const { status } = await node.get<{ status: { readyReplicas: number; replicas: number } }>(
    ...['deployment', RELEASE, '--namespace', NAMESPACE],
  );
  expect(status.readyReplicas).toBe(status.replicas);
});

test('helm test succeeds', async () => {
  const { code, stdout, stderr } = await helm(
    ['test', RELEASE, '--namespace', NAMESPACE, '--logs', '--timeout=2m'],
    { cluster: node.cluster, mayFail: true },
  );
  expect({ code, stdout, stderr }).toMatchObject({ code: 0 });
});

describe('a Pod with a private image', () => {
  beforeAll(() => deployed);
  afterAll(async () => {
    await node.deployment.stopSchedule();
    node.ecr.settings.lifetimeSeconds = 3600;
  });

  test('starts with the managed Secret, fails once the credential has expired, and starts after a scheduled run', async () => {
    await node.apply(pullSecretManifest(ENABLED));
    const before = await node.credentials(ENABLED, 'pull');
    await node.runPod(ENABLED, 'before', { pullSecret: 'pull' });
    await isRunning(ENABLED, 'before');
    expect(await skopeo(before.text)).toBe(0);

    node.registries.expireTokens();
    await node.runPod(ENABLED, 'expired', { pullSecret: 'pull' });
    await isRefused(ENABLED, 'expired');
    expect(await skopeo(before.text)).not.toBe(0);

    node.ecr.settings.lifetimeSeconds = 12 * 3600;
    await node.startRefresher();
    await expect
      .poll(async () => (await node.credentials(ENABLED, 'pull')).password, {
        timeout: 120_000,
        interval: 1_000,
      })
      .not.toBe(before.password);
    await node.runPod(ENABLED, 'after', { pullSecret: 'pull' });
    await isRunning(ENABLED, 'after');
    const { auths } = JSON.parse((await node.credentials(ENABLED, 'pull')).text);
    const foreign = { 'registry.example.com': { auth: Buffer.from('user:password').toString('base64') } };
    expect(await skopeo(JSON.stringify({ auths: { ...foreign, ...auths } }))).toBe(0);
  });

  test('does not start with another credential', async () => {
    const { text, password } = await node.credentials(ENABLED, 'pull');
    const wrong = text.replaceAll(password, `${password.slice(0, -1)}${password.endsWith('x') ? 'y' : 'x'}`);
    const auths = JSON.parse(wrong).auths[node.ecr.host];
    await node.apply(
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Secret',
        type: SECRET_TYPE,
        metadata: { name: 'wrong', namespace: ENABLED },
        stringData: {
          [SECRET_KEY]: JSON.stringify({
            auths: { [node.ecr.host]: { username: auths.username, password: auths.password } },
          }),
        },
      }),
    );
    await node.runPod(ENABLED, 'wrong', { pullSecret: 'wrong' });
    await isRefused(ENABLED, 'wrong');
  });

  test('does not start in a namespace without the label, whose Secret gets no credentials', async () => {
    const [, secret = ''] = pullSecretManifest(PLAIN).split('---\n');
    const { code } = await node.cluster.kubectl(['apply', '-f', '-'], { input: secret, mayFail: true });
    // The API server refuses a Secret of this type without data.
    expect(code).not.toBe(0);
    await node.runPod(PLAIN, 'plain', { pullSecret: 'pull' });
    await isRefused(PLAIN, 'plain');
  });
});

interface Replica {
  readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
  readonly status: {
    readonly podIP: string;
    readonly conditions: readonly { readonly type: string; readonly status: string }[];
    readonly containerStatuses?: readonly [{ readonly containerID: string; readonly restartCount: number }];
  };
}

async function replicas(): Promise<readonly Replica[]> {
  const selector = `app.kubernetes.io/instance=${RELEASE},app.kubernetes.io/name=ecr-anywhere`;
  // The Pod of `helm test` has the same labels.
  const running = ['--field-selector', 'status.phase!=Succeeded'];
  const pods = ['pods', '--namespace', NAMESPACE, '--selector', selector, ...running];
  return (await node.get<{ items: readonly Replica[] }>(...pods)).items;
}

/** The replicas, once two are ready and no other one is left. */
async function twoReplicas(): Promise<readonly [Replica, Replica]> {
  const isReady = ({ metadata, status }: Replica) =>
    metadata.deletionTimestamp === undefined &&
    status.conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
  await expect
    .poll(async () => (await replicas()).map(isReady), { timeout: 120_000, interval: 500 })
    .toEqual([true, true]);
  const [first, second] = await replicas();
  if (!first || !second) throw new Error('a replica has ended');
  return [first, second];
}

/** The serving certificate of a replica, PEM. */
async function servedBy({ status }: Replica): Promise<string> {
  const socket = connect({ host: status.podIP, port: 8443, rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const certificate = socket.getPeerX509Certificate();
  socket.destroy();
  return certificate?.toString().trim() ?? '';
}

/** What the upgrade changes: an annotation, so that the replicas are replaced, and the refresher in the cluster. */
const UPGRADED = {
  podAnnotations: { upgraded: 'true' },
  // In the tests, nothing but they start a Job.
  refresher: { namespaces: [ENABLED], inCluster: { enabled: true, schedule: '0 0 1 1 *' } },
};

describe('two replicas under a steady stream of admissions', () => {
  const TLS_SECRET = `${RELEASE}-self-tls`;
  const tlsSecret = async () => {
    const { data } = await node.get<{ data: Record<string, string> }>(
      ...['secret', TLS_SECRET, '--namespace', NAMESPACE],
    );
    return (key: string) => Buffer.from(data[key] ?? '', 'base64').toString();
  };
  const trusted = async () => {
    const { webhooks } = await node.get<{ webhooks: [{ clientConfig: { caBundle: string } }] }>(
      ...['mutatingwebhookconfiguration', RELEASE],
    );
    return Buffer.from(webhooks[0].clientConfig.caBundle, 'base64').toString();
  };
  /** Writes keys of the certificate Secret. */
  const write = async (stringData: Record<string, string>) => {
    const patch = ['secret', TLS_SECRET, '--namespace', NAMESPACE, '--patch', JSON.stringify({ stringData })];
    await node.cluster.kubectl(['patch', ...patch]);
  };

  test('started together, have one certificate, and have not restarted', async () => {
    const [first, second] = await twoReplicas();
    expect(await servedBy(first)).toBe(await servedBy(second));
    expect([first, second].map(({ status }) => status.containerStatuses?.[0].restartCount)).toEqual([0, 0]);
  });

  test('serve a new certificate of a new authority without a failed admission', async () => {
    await using admissions = await startAdmissions(node.cluster, ENABLED);
    const replaced = (await tlsSecret())('ca.crt');
    const request = `${ROTATE_ANNOTATION}=${new Date().toISOString()}`;
    await node.cluster.kubectl(['annotate', 'secret', TLS_SECRET, '--namespace', NAMESPACE, request]);
    await expect.poll(async () => (await tlsSecret())('next-ca.crt')).not.toBe('');

    // The dates of the certificates say when a step is over: of five minutes, ten seconds are left.
    const next = await newAuthority(Date.now() - OVERLAP_MS + 10_000);
    await write({ 'next-ca.crt': next.cert, 'next-ca.key': next.key });
    await expect.poll(async () => (await tlsSecret())('ca.crt'), { timeout: 60_000 }).toBe(next.cert);
    const signed = (await tlsSecret())('tls.crt');
    for (const replica of await twoReplicas()) await expect.poll(() => servedBy(replica)).toBe(signed.trim());
    expect(await trusted()).toContain(replaced.trim());

    const serving = await newServing(next, `${RELEASE}.${NAMESPACE}.svc`, Date.now() - OVERLAP_MS + 10_000);
    await write({ 'tls.crt': serving.cert, 'tls.key': serving.key });
    await expect.poll(trusted, { timeout: 60_000 }).toBe(`${next.cert.trim()}\n`);
    await admissions.continue();
    expect(admissions.failed).toEqual([]);
  });

  test('are replaced by an upgrade without a failed admission', async () => {
    await using admissions = await startAdmissions(node.cluster, ENABLED);
    const before = (await twoReplicas()).map(({ metadata }) => metadata.name);
    await node.helm('upgrade', {
      enabled: [ENABLED],
      values: UPGRADED,
    });
    // Those that end still serve for some seconds.
    const after = (await twoReplicas()).map(({ metadata }) => metadata.name);
    expect(after.filter((name) => before.includes(name))).toEqual([]);
    await admissions.continue();
    expect(admissions.failed).toEqual([]);
  });

  test('end with SIGTERM, one after the other, without a failed admission', async () => {
    await using admissions = await startAdmissions(node.cluster, ENABLED);
    for (const { metadata } of await twoReplicas()) {
      await node.cluster.kubectl(['delete', 'pod', metadata.name, '--namespace', NAMESPACE]);
      await twoReplicas();
    }
    await admissions.continue();
    expect(admissions.failed).toEqual([]);
  });

  test('leave a drained node one at a time, without a failed admission', async () => {
    await using admissions = await startAdmissions(node.cluster, ENABLED);
    const before = (await twoReplicas()).map(({ metadata }) => metadata.name);
    const left = async () =>
      (await replicas()).map(({ metadata }) => metadata.name).filter((name) => before.includes(name));
    const uncordon = () => node.cluster.kubectl(['uncordon', 'node']);
    onTestFinished(async () => void (await uncordon()));
    const selector = '--pod-selector=app.kubernetes.io/name=ecr-anywhere';
    const drained = node.cluster.kubectl(['drain', 'node', selector, '--force', '--timeout=3m'], {
      mayFail: true,
    });
    await expect.poll(left, { timeout: 60_000 }).toHaveLength(1);
    // The third replica would start on another node. There is none, so the budget keeps the second one.
    const [name = ''] = await left();
    await using client = await connectAdmin(node.cluster);
    const evicted = client.admin('POST', `/api/v1/namespaces/${NAMESPACE}/pods/${name}/eviction`, {
      ...{ apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace: NAMESPACE } },
    });
    await expect(evicted).rejects.toThrow(': 429: ');
    await uncordon();
    expect(await drained).toMatchObject({ code: 0 });
    await twoReplicas();
    await admissions.continue();
    expect(admissions.failed).toEqual([]);
  });

  test('one that is killed fails admissions only until the Service leaves it out', async () => {
    await using admissions = await startAdmissions(node.cluster, ENABLED);
    const [{ metadata, status }] = await twoReplicas();
    await admissions.continue();
    const id = status.containerStatuses?.[0].containerID.replace('containerd://', '') ?? '';
    const task = ['--namespace', 'k8s.io', 'tasks', 'kill', '--signal', 'SIGKILL', id];
    expect(await runCommand('ctr', ['--address', CONTAINERD, ...task], { PATH })).toMatchObject({ code: 0 });
    await expect
      .poll(
        async () => {
          const now = (await replicas()).find((one) => one.metadata.name === metadata.name);
          return now?.status.containerStatuses?.[0].restartCount;
        },
        { timeout: 60_000 },
      )
      .toBe(1);
    await twoReplicas();
    const failed = admissions.failed.length;
    // Those that it was answering, and those that reached its closed port. No Secret is stored without credentials.
    for (const message of admissions.failed)
      expect(message).toMatch(/: 500: .*failed calling webhook .*(connection (reset|refused)|EOF)/);
    await admissions.continue();
    expect(admissions.failed.length).toBe(failed);
  });
});

const CRON_JOB = `${RELEASE}-refresher`;
const kubectl = (...args: readonly string[]) => node.cluster.kubectl([...args, '--namespace', NAMESPACE]);

interface Ended {
  readonly exitCode: number;
  readonly message: Partial<ClusterSummary>;
}

/** Waits for the end of a Job. @returns its condition, and how its container ended */
async function endOf(job: string): Promise<Ended & { readonly condition: string }> {
  const condition = async () => {
    const { status } = await node.get<{ status: { conditions?: { type: string }[] } }>(
      ...['job', job, '--namespace', NAMESPACE],
    );
    return status.conditions
      ?.map(({ type }) => type)
      .find((type) => type === 'Complete' || type === 'Failed');
  };
  await expect.poll(condition, { timeout: 120_000, interval: 500 }).toBeDefined();
  const { items } = await node.get<{
    items: [
      { status: { containerStatuses: [{ state: { terminated: { exitCode: number; message: string } } }] } },
    ];
  }>(...['pods', '--namespace', NAMESPACE, '--selector', `batch.kubernetes.io/job-name=${job}`]);
  const { exitCode, message } = items[0].status.containerStatuses[0].state.terminated;
  return { condition: (await condition()) ?? '', exitCode, message: JSON.parse(message) };
}

async function run(job: string): Promise<Ended & { readonly condition: string }> {
  await kubectl('create', 'job', job, `--from=cronjob/${CRON_JOB}`);
  return endOf(job);
}

describe('the refresher in the cluster', () => {
  const scale = async (count: number) => {
    await kubectl('scale', 'deployment', RELEASE, `--replicas=${count}`);
    await expect.poll(async () => (await replicas()).length, { timeout: 120_000, interval: 500 }).toBe(count);
    if (count === 2) await twoReplicas();
  };

  /** Whether the API server calls the webhook for a managed Secret. */
  const isMutated = async () => {
    await using client = await connectAdmin(node.cluster);
    const { metadata } = await client.admin<{ metadata: { annotations?: Record<string, string> } }>(
      ...(['POST', `/api/v1/namespaces/${ENABLED}/secrets?dryRun=All`] as const),
      {
        type: SECRET_TYPE,
        metadata: { name: 'probe', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
        data: { [SECRET_KEY]: Buffer.from('{"auths":{}}').toString('base64') },
      },
    );
    return metadata.annotations?.[ANNOTATION.expiresAt] !== undefined;
  };

  beforeAll(async () => {
    // The replicas since the upgrade have only tokens that are due.
    await node.cluster.kubectl(['delete', 'secret', 'pull', '--namespace', ENABLED, '--ignore-not-found']);
    await node.apply(pullSecretManifest(ENABLED));
  });

  test('fails while the webhook is down', async () => {
    await scale(0);
    onTestFinished(() => scale(2));
    expect(await run('webhook-down')).toMatchObject({
      condition: 'Failed',
      exitCode: 1,
      message: { served: true, failed: true, problems: [{ code: 'webhook-unreachable' }] },
    });
  });

  test('fails if the webhook refuses the refresh', async () => {
    node.ecr.settings.mode = 'denied';
    onTestFinished(() => {
      node.ecr.settings.mode = 'ok';
    });
    expect(await run('refused')).toMatchObject({
      condition: 'Failed',
      exitCode: 1,
      message: { outcomes: { refused: 1 }, problems: [{ code: 'webhook-denied' }] },
    });
  });

  test('fails if no webhook writes credentials', async () => {
    const proof = `${RELEASE}-caller-proof`;
    await node.cluster.kubectl(['delete', 'mutatingadmissionpolicybinding', proof]);
    await node.cluster.kubectl(['delete', 'mutatingwebhookconfiguration', RELEASE]);
    onTestFinished(async () => {
      await node.helm('upgrade', { enabled: [ENABLED], values: UPGRADED });
      await expect.poll(() => isMutated().catch(() => false), { timeout: 60_000 }).toBe(true);
    });
    await expect.poll(() => isMutated().catch(() => true), { timeout: 30_000 }).toBe(false);
    expect(await run('not-mutated')).toMatchObject({
      condition: 'Failed',
      exitCode: 1,
      message: { problems: [{ code: 'not-mutated' }] },
    });
  });

  test('on its schedule renews an expired credential without AWS Lambda, so that the next Pod starts', async () => {
    const before = await node.credentials(ENABLED, 'pull');
    node.registries.expireTokens();
    await node.runPod(ENABLED, 'expired-again', { pullSecret: 'pull' });
    await isRefused(ENABLED, 'expired-again');

    node.ecr.settings.lifetimeSeconds = 12 * 3600;
    await kubectl('patch', 'cronjob', CRON_JOB, '--patch', '{"spec": {"schedule": "* * * * *"}}');
    const jobs = async () => {
      const { items } = await node.get<{ items: { metadata: { name: string } }[] }>(
        ...['jobs', '--namespace', NAMESPACE],
      );
      return items.map(({ metadata }) => metadata.name).filter((name) => name.startsWith(CRON_JOB));
    };
    await expect.poll(jobs, { timeout: 90_000, interval: 500 }).toHaveLength(1);
    await kubectl('patch', 'cronjob', CRON_JOB, '--patch', '{"spec": {"suspend": true}}');
    const [job = ''] = await jobs();
    expect(await endOf(job)).toMatchObject({
      condition: 'Complete',
      exitCode: 0,
      message: { failed: false, managed: 1, outcomes: { refreshed: 1 } },
    });
    expect((await node.credentials(ENABLED, 'pull')).password).not.toBe(before.password);
    await node.runPod(ENABLED, 'refreshed', { pullSecret: 'pull' });
    await isRunning(ENABLED, 'refreshed');
  });

  test('succeeds and changes nothing when nothing is due', async () => {
    const before = await node.credentials(ENABLED, 'pull');
    expect(await run('fresh')).toMatchObject({
      condition: 'Complete',
      exitCode: 0,
      message: { failed: false, managed: 1, due: 0 },
    });
    expect(await node.credentials(ENABLED, 'pull')).toEqual(before);
  });
});

describe('a new namespace', () => {
  /** The Secrets that the API server adds to a new Pod. */
  const attachedIn = async (namespace: string) => {
    await using client = await connectAdmin(node.cluster);
    const { spec } = await client.admin<{ spec: { imagePullSecrets?: { name: string }[] } }>(
      ...(['POST', `/api/v1/namespaces/${namespace}/pods?dryRun=All`] as const),
      { metadata: { name: 'app' }, spec: { containers: [{ name: 'app', image: node.privateImage }] } },
    );
    return spec.imagePullSecrets?.map(({ name }) => name) ?? [];
  };

  test('needs one label, and nothing else: the refresher creates the Secret, and a Pod that names none starts', async () => {
    const ownRegistry = { namespaces: ['*'], account: node.ecr.host.split('.')[0] };
    const refresher = { ...UPGRADED.refresher, namespaces: ['*'] };
    const attach = { enabled: true };
    const provision = { secretName: PROVISIONED };
    const values = { ...UPGRADED, ownRegistry, refresher, attach, provision };
    await node.helm('upgrade', { enabled: ['*'], values });
    await twoReplicas();

    await node.cluster.kubectl(['create', 'namespace', LABELLED]);
    await node.cluster.kubectl([
      ...['label', 'namespace', LABELLED, `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`],
    ]);
    await expect.poll(() => attachedIn(LABELLED), { timeout: 30_000 }).toEqual([PROVISIONED]);
    await node.runPod(LABELLED, 'early');
    await isRefused(LABELLED, 'early');

    const { exitCode, condition, message } = await run('one-label');
    expect({ exitCode, condition, message }).toMatchObject({ exitCode: 0, condition: 'Complete' });
    // The other one is in the namespace of the tests before.
    expect(message.outcomes).toMatchObject({ provisioned: 2 });
    await node.runPod(LABELLED, 'app');
    await isRunning(LABELLED, 'app');
  });

  test('without the label gets nothing', async () => {
    await run('no-label');
    expect(await attachedIn(PLAIN)).toEqual([]);
    const { items } = await node.get<{ items: object[] }>('secrets', '--namespace', PLAIN);
    expect(items).toEqual([]);
    await node.runPod(PLAIN, 'app');
    await isRefused(PLAIN, 'app');
  });
});

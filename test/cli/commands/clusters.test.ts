// status, refresh, pause and resume on the bed, with a healthy cluster, an unreachable one, one with an invalid
// registration, and one that the refresher has not observed yet.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { NAMESPACE_LABEL, SECRET_LABEL, SECRET_TYPE } from '../../../contract/names.ts';
import type { ClusterStatus, RefreshAnswer } from '../../../contract/refresher-api.ts';
import { UNREACHABLE_KUBECONFIG } from '../../bed/deployment.ts';
import { Bed } from '../../bed/up.ts';
import { type CommandLine, startCommandLine } from '../command-line.ts';
import { type ListLag, startListLag } from '../list-lag.ts';

let bed: Bed;
let cli: CommandLine;
/** The function gets a list of the secrets that existed at the last `catchUp`. */
let lag: ListLag;

beforeAll(async () => {
  lag = await startListLag();
  bed = await Bed.create({
    clusters: ['alpha'],
    context: { scheduleEnabled: false, clusterDeadlineSeconds: 5 },
    functionEnv: lag.env,
  });
  await bed.start();
  lag.attach(bed.deployment.emulator);
  lag.catchUp();
  cli = await startCommandLine(bed.operatorEnv);
});
afterAll(async () => {
  await cli?.[Symbol.asyncDispose]();
  await bed?.[Symbol.asyncDispose]();
  await lag?.[Symbol.asyncDispose]();
});

type Row = ClusterStatus & { readonly state: string };

const rows = async (...args: string[]) => (await cli.json<{ clusters: Row[] }>(['status', ...args])).clusters;
const row = async (name: string, ...args: string[]) => {
  const found = (await rows(...args)).find((one) => one.name === name);
  if (!found) throw new Error(`no row of ${name}`);
  return found;
};

async function createSecret(namespace: string, name: string, changes: object = {}): Promise<void> {
  const { controlPlane } = bed.cluster('alpha');
  const secret = {
    apiVersion: 'v1',
    kind: 'Secret',
    type: SECRET_TYPE,
    metadata: { name, namespace, labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
    ...changes,
  };
  await controlPlane.kubectl(['create', '-f', '-'], { input: JSON.stringify(secret) });
}

async function createNamespace(name: string, isEnabled = true): Promise<void> {
  const labels = isEnabled ? { [NAMESPACE_LABEL.key]: NAMESPACE_LABEL.value } : {};
  const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } };
  await bed
    .cluster('alpha')
    .controlPlane.kubectl(['create', '-f', '-'], { input: JSON.stringify(namespace) });
}

test('a cluster without a run is new, and needs no attention', async () => {
  const { code, stdout } = await cli.run(['status']);
  expect(stdout).toMatch(/^alpha +new +- +- +- +- +-$/m);
  expect({ code, last: stdout.trimEnd().split('\n').at(-1) }).toEqual({
    code: 0,
    last: '1 cluster, none needs attention.',
  });
});

describe('refresh', () => {
  test('prints the outcome of each Secret', async () => {
    await createNamespace('team-a');
    // A webhook that has just started has no token to reuse, and this one is due at once.
    bed.ecr.settings.nextLifetimesSeconds = [300];
    await createSecret('team-a', 'due');
    // For two seconds after a call, a running webhook reuses its token, even one that is due.
    const { webhook } = bed.cluster('alpha');
    await webhook.program.stop();
    await webhook.start();
    await createSecret('team-a', 'fresh');
    const { code, stdout, stderr } = await cli.run(['refresh', 'alpha']);
    expect(stdout).toMatch(/^SECRET +DUE +OUTCOME +EXPIRES +REASON$/m);
    expect(stdout).toMatch(/^team-a\/due +expiring +refreshed +\d{4}-\d\d-\d\dT[\d:]+Z$/m);
    expect(stdout).toContain('alpha: 2 managed Secrets, 1 requested: 1 refreshed.');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  test('requests nothing if nothing is due; with --force requests everything, with new tokens', async () => {
    const calls = bed.ecr.calls.length;
    expect(await cli.run(['refresh', 'alpha'])).toEqual({
      code: 0,
      stdout: 'alpha: 2 managed Secrets, none due.\n',
      stderr: '',
    });
    expect(bed.ecr.calls.length).toBe(calls);
    const { clusters } = await cli.json<RefreshAnswer>(['refresh', 'alpha', '--force']);
    expect(clusters[0]?.secrets?.map(({ secret, due, outcome }) => ({ secret, due, outcome }))).toEqual([
      { secret: 'team-a/due', due: 'forced', outcome: 'refreshed' },
      { secret: 'team-a/fresh', due: 'forced', outcome: 'refreshed' },
    ]);
    expect(bed.ecr.calls.length).toBe(calls + 1);
  });

  test('a dry run stores nothing, and its output says so', async () => {
    const read = async () =>
      (await bed.cluster('alpha').controlPlane.kubectl(['get', 'secret', '-n', 'team-a', '-o', 'json']))
        .stdout;
    const before = await read();
    const { code, stdout } = await cli.run(['refresh', 'alpha', '--force', '--dry-run']);
    expect({ code, stdout }).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('(dry run: nothing was stored)'),
    });
    expect(await read()).toBe(before);
  });

  test('refreshes only the named namespaces, and prints the command that enables a namespace', async () => {
    await createNamespace('team-b');
    await createSecret('team-b', 'other');
    await createNamespace('quiet', false);
    const one = await cli.json<RefreshAnswer>(['refresh', 'alpha', '--force', '-n', 'team-b']);
    expect(one.clusters[0]?.secrets?.map(({ secret }) => secret)).toEqual(['team-b/other']);
    const { code, stderr } = await cli.run(['refresh', '-n', 'team-b', '-n', 'quiet', 'alpha']);
    expect(code).toBe(1);
    expect(stderr).toContain(
      'kubectl --context CONTEXT label namespace quiet ecr-anywhere.centml.ai/namespace=enabled',
    );
  });

  test("prints the webhook's reason for a refused Secret, and ends with exit code 1", async () => {
    bed.ecr.settings.mode = 'denied';
    const { code, stdout } = await cli.run(['refresh', 'alpha', '--force', '--namespace', 'team-b']);
    bed.ecr.settings.mode = 'ok';
    expect(stdout).toMatch(/^team-b\/other +forced +refused .*AccessDeniedException/m);
    expect(stdout).toContain('alpha: 1 managed Secret, 1 requested: 1 refused.');
    expect(code).toBe(1);
  });
});

describe('several clusters', () => {
  beforeAll(async () => {
    await bed.deployment.registerCluster('dead', UNREACHABLE_KUBECONFIG);
    await bed.deployment.registerCluster('junk', 'registered by mistake');
    lag.catchUp();
    await bed.deployment.invoke();
    await bed.deployment.invoke();
    await bed.deployment.registerCluster('later', UNREACHABLE_KUBECONFIG);
    lag.catchUp();
  });

  test('status prints the most urgent cluster first, with the reason, and ends with exit code 1', async () => {
    const { code, stdout } = await cli.run(['status']);
    const names = stdout.split('\n').flatMap((line) => /^(alpha|dead|junk|later) /.exec(line)?.[1] ?? []);
    expect(names).toEqual(['dead', 'junk', 'later', 'alpha']);
    expect(stdout).toMatch(/^dead +failing +- +- +- +- +2 +GET \/api\/v1\/namespaces: .*ECONNREFUSED/m);
    expect(stdout).toMatch(/^junk +failing .* it is not a kubeconfig/m);
    expect(stdout).toMatch(/^later +new /m);
    expect(stdout).toMatch(/^alpha +healthy +0m ago +3 +0 +1[12]h \d+m +-$/m);
    expect(stdout).toContain('4 clusters, 2 need attention.\n  → ecr-anywhere doctor dead');
    expect(code).toBe(1);
  });

  test('prints all saved state as JSON', async () => {
    expect(await row('alpha')).toMatchObject({
      source: 'registered',
      state: 'healthy',
      isPaused: false,
      managed: 3,
      due: 0,
      failures: 0,
      tokenExpiresAt: expect.stringMatching(/^\d{4}-/),
    });
    expect(await row('dead')).toMatchObject({
      state: 'failing',
      failures: 2,
      failingSince: expect.any(String),
    });
  });

  test('--live contacts the clusters, and does not count failures', async () => {
    await createSecret('team-a', 'third');
    expect((await row('alpha')).managed).toBe(3);
    expect((await row('alpha', '--live')).managed).toBe(4);
    expect(await row('later', '--live')).toMatchObject({
      state: 'failed',
      reason: expect.stringContaining('ECONNREFUSED'),
    });
    // The state of a dry run is not saved.
    expect(await row('later')).toMatchObject({ state: 'new' });
    expect((await row('dead')).failures).toBe(2);
  });

  test('--output wide adds the source, the expiry of the token and the context', async () => {
    const { code, stdout } = await cli.run(['status', '--output', 'wide']);
    expect(code).toBe(1);
    expect(stdout).toMatch(/^CLUSTER +STATE +SOURCE .* TOKEN EXPIRES +CONTEXT +REASON$/m);
    expect(stdout).toMatch(/^alpha +healthy +registered .* \d{4}-\d\d-\d\dT[\d:]+Z +-$/m);
    expect(stdout).toMatch(/^dead +failing +registered .* GET /m);
  });
});

describe('pause and resume', () => {
  test('are idempotent and shown by status, and no run contacts the cluster meanwhile', async () => {
    for (const _ of [1, 2]) {
      const { code, stdout } = await cli.run(['pause', 'dead']);
      expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringContaining('dead is paused') });
    }
    // By its name it is paused before the list shows that.
    const refused = await cli.run(['refresh', 'dead']);
    expect(refused).toMatchObject({
      code: 1,
      stdout: expect.stringContaining(
        'The cluster is paused, so nothing was requested.\n  → ecr-anywhere resume dead',
      ),
    });
    lag.catchUp();
    await bed.deployment.invoke();
    expect(await row('dead')).toMatchObject({
      state: 'paused',
      isPaused: true,
      pausedSince: expect.any(String),
    });
    expect((await cli.run(['status', '-o', 'wide'])).stdout).toMatch(/^dead +paused +registered /m);
    for (const _ of [1, 2]) expect(await cli.run(['resume', 'dead'])).toMatchObject({ code: 0 });
    expect((await cli.run(['refresh', 'dead'])).stdout).toContain('ECONNREFUSED');
    lag.catchUp();
    await bed.deployment.invoke();
    expect(await row('dead')).toMatchObject({ state: 'failing', isPaused: false });
  });
});

describe('with the chart value provision.secretName', () => {
  const alpha = () => bed.cluster('alpha');
  const enable = (namespace: string) =>
    alpha().controlPlane.kubectl([
      ...['label', 'namespace', namespace, `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`],
    ]);
  /** Upgrades the release, and starts the webhook with the new values, as a rollout does. */
  const upgrade = async (secretName: string) => {
    await alpha().webhook.upgrade({ provision: { secretName } });
    await alpha().webhook.program.stop();
    await alpha().webhook.start();
  };
  const outcomes = async (...args: string[]) => {
    const { clusters } = await cli.json<RefreshAnswer>(['refresh', 'alpha', ...args]);
    return clusters[0]?.secrets?.map(({ secret, due, outcome }) => `${secret} ${due} ${outcome}`);
  };

  test('a namespace gets credentials by its label alone, and keeps them when the value is removed', async () => {
    await upgrade('ecr');
    await createNamespace('one-label', false);
    await enable('one-label');
    const run = () => cli.run(['refresh', 'alpha', '--namespace', 'one-label']);
    // The API server uses a new write policy after a second or two.
    await expect
      .poll(async () => (await run()).stdout, { timeout: 60_000 })
      .toMatch(/^one-label\/ecr +missing/m);
    const { stdout } = await run();
    expect(stdout).toMatch(/1 managed Secret, (none due|1 requested: 1 provisioned)/);
    const { stdout: config } = await alpha().controlPlane.kubectl([
      ...['get', 'secret', 'ecr', '-n', 'one-label', '-o', 'jsonpath={.data.\\.dockerconfigjson}'],
    ]);
    expect(Buffer.from(config, 'base64').toString()).toContain(bed.ecr.host);
    expect(await outcomes('--force', '--namespace', 'one-label')).toEqual(['one-label/ecr forced refreshed']);

    await createNamespace('taken');
    const { controlPlane } = alpha();
    await controlPlane.kubectl(['create', 'secret', 'generic', 'ecr', '-n', 'taken']);
    const taken = await cli.run(['refresh', 'alpha', '--namespace', 'taken']);
    expect(taken.stdout).toMatch(
      /^taken\/ecr +missing +not-provisioned +a Secret ecr exists that is not managed/m,
    );
    expect(taken.stdout).toContain('alpha: 0 managed Secrets, none due: 1 not-provisioned.');
    expect(taken.code).toBe(0);

    await upgrade('');
    await createNamespace('too-late');
    await expect.poll(() => outcomes('--namespace', 'too-late'), { timeout: 20_000 }).toEqual([]);
    expect(await outcomes('--force', '--namespace', 'one-label')).toEqual(['one-label/ecr forced refreshed']);
  });
});

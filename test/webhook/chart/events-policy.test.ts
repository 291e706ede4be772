// Events on managed Secrets (chart value `events`) on a real API server: what the refresher writes while a registry fails, and
// that its credential can write nothing else.
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { NAMESPACE_LABEL, REFRESHER_GROUP } from '../../../contract/names.ts';
import { RELEASE } from '../../bed/webhook.ts';
import { outcomesOf, type RealCluster, secretPath, startRealCluster } from '../../functions/real-cluster.ts';
import { type RecordingProxy, startRecordingProxy } from '../../functions/recording-proxy.ts';
import { type Call, callerOf } from '../caller.ts';

const hostOf = (account: number) => `${account}.dkr.ecr.eu-central-1.amazonaws.com`;
const roleOf = (account: number) => `arn:aws:iam::${account}:role/pull`;
const A = 111_111_111_111;
const B = 222_222_222_222;
const REGISTRIES = [A, B].map((account) => ({
  host: hostOf(account),
  roleArn: roleOf(account),
  namespaces: ['*'],
}));
const ON = { registries: REGISTRIES, events: { enabled: true } };
const TEAM = 'team-a';
const TEAMS = [TEAM, 'team-b'];
const TWO_HOURS_S = 2 * 3600;
const BY_RBAC = /cannot create resource .*events/;
const BY_POLICY = /ValidatingAdmissionPolicy 'ecr-anywhere-refresher-events'/;
const WAIT = { timeout: 20_000, interval: 200 };

interface EventObject {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly type: string;
  readonly reason: string;
  readonly note: string;
  readonly regarding: { readonly name: string; readonly uid: string };
}

let cluster: RealCluster;
let proxy: RecordingProxy;
let refresher: Call;
beforeAll(async () => {
  cluster = await startRealCluster({ document: { registries: REGISTRIES } });
  proxy = await startRecordingProxy(cluster.controlPlane);
  refresher = await callerOf(cluster.kubeconfig);
  await Promise.all(TEAMS.map((name) => cluster.createNamespace(name)));
  // Credentials that were not refreshed in time, so that a refresh is a recovery.
  cluster.ecr.settings.lifetimeSeconds = TWO_HOURS_S;
  await deny();
  await cluster.createSecrets(TEAMS.map((namespace) => ({ namespace, name: 'ecr' })));
});
afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]();
  await cluster?.[Symbol.asyncDispose]();
});

const eventsPath = (namespace: string) => `/apis/events.k8s.io/v1/namespaces/${namespace}/events`;
const eventsIn = async (namespace: string) =>
  (await cluster.admin<{ items: EventObject[] }>('GET', eventsPath(namespace))).items;
const run = (event = {}) => cluster.refresh(event, proxy.through(cluster.kubeconfig));
const posted = () => proxy.exchanges.filter(({ path }) => path.endsWith('/events'));

/** Lets AWS deny the roles of these accounts, and no other, from now on. */
async function deny(...accounts: number[]): Promise<void> {
  cluster.ecr.settings.roles = Object.fromEntries(
    accounts.map((account) => [roleOf(account), { denied: true }]),
  );
  // The webhook caches tokens, sessions and failures.
  await cluster.restartWebhook();
}

/** An Event as the refresher writes it. */
const event = (more: object = {}, namespace = TEAM) => ({
  apiVersion: 'events.k8s.io/v1',
  kind: 'Event',
  metadata: { name: 'ecr.0123456789abcdef', namespace },
  regarding: { apiVersion: 'v1', kind: 'Secret', namespace, name: 'ecr' },
  type: 'Warning',
  reason: 'RefreshFailed',
  note: 'It failed.',
  action: 'Refresh',
  eventTime: '2026-11-23T12:00:00.000000Z',
  reportingController: 'ecr-anywhere.centml.ai/refresher',
  reportingInstance: 'ecr-anywhere-refresher',
  ...more,
});

describe('without events.enabled', () => {
  test('a run that fails writes no Event, and RBAC would deny one', async () => {
    await deny(A, B);
    expect(outcomesOf(await run())).toEqual({ refused: 2 });
    expect(posted()).toEqual([]);
    const answer = await refresher('POST', eventsPath(TEAM), event());
    expect(answer.text).toMatch(BY_RBAC);
    expect(await eventsIn(TEAM)).toEqual([]);
  });
});

describe('with events.enabled', () => {
  beforeAll(async () => {
    await cluster.webhook.upgrade(ON);
    // The API server applies a new policy after a second or two.
    await vi.waitFor(async () => {
      const { text } = await refresher('POST', `${eventsPath(TEAM)}?dryRun=All`, event({ reason: 'x' }));
      expect(text).toMatch(BY_POLICY);
    }, WAIT);
  });

  test('a dry run and an inspection write no Event', async () => {
    expect(outcomesOf(await run({ dryRun: true }))).toEqual({ refused: 2 });
    await run({ action: 'inspect', clusters: ['cluster'] });
    expect(posted()).toEqual([]);
  });

  test('a run that fails writes one Event on each Secret, the next run none', async () => {
    const report = await run();
    expect(report).toMatchObject({ codes: ['secrets-not-refreshed'], events: { written: 2, notWritten: 0 } });
    for (const namespace of TEAMS) {
      const { metadata } = await cluster.admin<{ metadata: { uid: string } }>(
        'GET',
        secretPath(`${namespace}/ecr`),
      );
      const [written, ...more] = await eventsIn(namespace);
      expect(more).toEqual([]);
      expect(written).toMatchObject({
        type: 'Warning',
        reason: 'RefreshFailed',
        regarding: {
          kind: 'Secret',
          namespace,
          name: 'ecr',
          uid: metadata.uid,
        },
      });
      for (const account of [A, B]) expect(written?.note).toContain(`${hostOf(account)}: AWS does not let`);
      expect(written?.note).toContain('(aws-role-denied)');
      expect(written?.note).not.toContain('arn:');
    }
    expect((await run()).events).toBeUndefined();
    expect(await eventsIn(TEAM)).toHaveLength(1);
  });

  test('kubectl shows the Event of a Secret', async () => {
    const { stdout } = await cluster.controlPlane.kubectl([
      'events',
      '--for',
      'secret/ecr',
      '--namespace',
      TEAM,
    ]);
    expect(stdout).toMatch(/Warning +RefreshFailed +Secret\/ecr +The webhook got no new credentials/);
  });

  test('writes RefreshPartial with the one registry that failed, and RefreshRecovered once', async () => {
    cluster.ecr.settings.lifetimeSeconds = 12 * 3600;
    await deny(B);
    expect(outcomesOf(await run())).toEqual({ partial: 2 });
    const partial = (await eventsIn(TEAM)).filter(({ reason }) => reason === 'RefreshPartial');
    expect(partial).toHaveLength(1);
    expect(partial[0]?.note).toContain(hostOf(B));
    expect(partial[0]?.note).not.toContain(hostOf(A));
    // With a token from its cache, the webhook would write nothing, and deny the request.
    await deny(B);
    expect((await run()).events).toBeUndefined();

    await deny();
    expect((await run()).events).toEqual({ written: 2, notWritten: 0 });
    expect((await eventsIn(TEAM)).map(({ type, reason }) => `${type} ${reason}`).sort()).toEqual([
      'Normal RefreshRecovered',
      'Warning RefreshFailed',
      'Warning RefreshPartial',
    ]);
    await run();
    expect(await eventsIn(TEAM)).toHaveLength(3);
  });
});

describe('although another role allows every write of Events, the refresher', () => {
  const callers: Record<string, Call> = {};
  const EXCLUDED = ['kube-system', 'kube-public', 'ecr-anywhere'];
  beforeAll(async () => {
    callers['as ServiceAccount'] = refresher;
    callers['in the group'] = await callerOf(
      await cluster.controlPlane.kubeconfigFor('the-lambda', [REFRESHER_GROUP]),
    );
    const rbac = '/apis/rbac.authorization.k8s.io/v1';
    const apiGroup = 'rbac.authorization.k8s.io';
    await cluster.admin('POST', `${rbac}/clusterroles`, {
      metadata: { name: 'every-event' },
      rules: [{ apiGroups: ['', 'events.k8s.io'], resources: ['events'], verbs: ['*'] }],
    });
    await cluster.admin('POST', `${rbac}/clusterrolebindings`, {
      metadata: { name: 'every-event' },
      roleRef: { apiGroup, kind: 'ClusterRole', name: 'every-event' },
      subjects: [
        { kind: 'Group', apiGroup, name: REFRESHER_GROUP },
        { kind: 'ServiceAccount', name: `${RELEASE}-refresher`, namespace: 'ecr-anywhere' },
      ],
    });
    await cluster.createNamespace('other', false);
    for (const name of EXCLUDED)
      await cluster.admin('PATCH', `/api/v1/namespaces/${name}`, {
        metadata: { labels: { [NAMESPACE_LABEL.key]: NAMESPACE_LABEL.value } },
      });
    await vi.waitFor(async () => {
      for (const call of Object.values(callers))
        expect((await call('DELETE', `${eventsPath(TEAM)}/x`)).status).not.toBe(403);
    }, WAIT);
  });

  test('may create its own Events, with each of its reasons', async () => {
    const kinds = { RefreshFailed: 'Warning', RefreshPartial: 'Warning', RefreshRecovered: 'Normal' };
    for (const call of Object.values(callers))
      for (const [reason, type] of Object.entries(kinds)) {
        const { status, text } = await call(
          'POST',
          `${eventsPath(TEAM)}?dryRun=All`,
          event({ reason, type }),
        );
        expect(status, text).toBe(201);
      }
  });

  const { regarding, metadata } = event();
  test.each<{ what: string; change: object; namespace?: string }>([
    { what: 'about another kind', change: { regarding: { ...regarding, kind: 'Pod' } } },
    { what: 'about another API', change: { regarding: { ...regarding, apiVersion: 'example.com/v1' } } },
    { what: 'about another namespace', change: { regarding: { ...regarding, namespace: 'team-b' } } },
    { what: 'about no object', change: { regarding: { ...regarding, name: '' } } },
    {
      what: 'about an object with a long name',
      change: { regarding: { ...regarding, name: 'x'.repeat(254) } },
    },
    { what: 'about an object with a long UID', change: { regarding: { ...regarding, uid: 'x'.repeat(65) } } },
    { what: 'about a field', change: { regarding: { ...regarding, fieldPath: 'data' } } },
    { what: 'about a version', change: { regarding: { ...regarding, resourceVersion: '1' } } },
    { what: 'with another reason', change: { reason: 'BackOff' } },
    { what: 'with the wrong type for its reason', change: { type: 'Normal' } },
    { what: 'with another action', change: { action: 'Delete' } },
    { what: 'of another controller', change: { reportingController: 'kubelet' } },
    { what: 'of another instance', change: { reportingInstance: 'node-1' } },
    { what: 'with labels', change: { metadata: { ...metadata, labels: { a: 'b' } } } },
    { what: 'with annotations', change: { metadata: { ...metadata, annotations: { a: 'b' } } } },
    { what: 'with finalizers', change: { metadata: { ...metadata, finalizers: ['example.com/x'] } } },
    {
      what: 'with an owner',
      change: {
        metadata: { ...metadata, ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: 'x', uid: 'x' }] },
      },
    },
    { what: 'with a generated name', change: { metadata: { namespace: TEAM, generateName: 'ecr-' } } },
    { what: 'with a series', change: { series: { count: 2, lastObservedTime: event().eventTime } } },
    { what: 'with a related object', change: { related: regarding } },
    { what: 'in a namespace that is not enabled', change: {}, namespace: 'other' },
    ...EXCLUDED.map((namespace) => ({ what: `in ${namespace}`, change: {}, namespace })),
  ])('may not create an Event $what', async ({ change, namespace = TEAM }) => {
    for (const call of Object.values(callers)) {
      const { status, text } = await call('POST', eventsPath(namespace), event(change, namespace));
      expect(text).toMatch(BY_POLICY);
      expect(status).toBe(403);
    }
  });

  test('may not create an Event with a huge note', async () => {
    const { status } = await refresher('POST', eventsPath(TEAM), event({ note: 'x'.repeat(1025) }));
    expect(status).toBe(422);
  });

  test('may not create an Event in the core group, whose rules are weaker', async () => {
    const { note: message, ...rest } = event();
    const core = { ...rest, apiVersion: 'v1', involvedObject: rest.regarding, message, eventTime: undefined };
    for (const change of [{}, { message: 'x'.repeat(100_000) }, { count: 1_000 }]) {
      const { text } = await refresher('POST', `/api/v1/namespaces/${TEAM}/events`, { ...core, ...change });
      expect(text).toMatch(BY_POLICY);
    }
  });

  test('may not change or delete an Event, not even its own', async () => {
    const before = await eventsIn(TEAM);
    const [name] = before.map(({ metadata }) => metadata.name);
    for (const path of [eventsPath(TEAM), `/api/v1/namespaces/${TEAM}/events`]) {
      const merge = 'application/merge-patch+json';
      const attempts = [
        refresher('PATCH', `${path}/${name}`, { metadata: { labels: { a: 'b' } } }, merge),
        refresher('DELETE', `${path}/${name}`),
        refresher('DELETE', path),
      ];
      for (const { status, text } of await Promise.all(attempts)) {
        expect(text).toMatch(BY_POLICY);
        expect(status).toBe(403);
      }
    }
    expect(await eventsIn(TEAM)).toEqual(before);
  });
});

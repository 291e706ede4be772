// Tests the renewal of registered tokens over simulated weeks, with imitations of an API server and of Secrets Manager.
// After any failure, race or interruption the registered token is valid.

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CLUSTERS_PREFIX, TAG } from '../../../../contract/names.ts';
import { readEvent } from '../../../../functions/refresher/event.ts';
import type { ClusterReport } from '../../../../functions/refresher/run/cluster-report.ts';
import { run } from '../../../../functions/refresher/run/run.ts';
import { summarize } from '../../../../functions/refresher/run/summaries.ts';
import { readKubeconfig, withToken } from '../../../../lib/kubernetes/kubeconfig.ts';
import { isPastFraction, readToken } from '../../../../lib/kubernetes/service-account-token.ts';
import { NO_EKS, NO_KEYLESS } from '../../real-cluster.ts';
import {
  HANG_UP,
  type SecretsManager,
  type SecretsManagerOptions,
  startSecretsManager,
} from '../../secrets-manager.ts';
import { BOUND_TO, jwt, startTokenIssuer, type TokenIssuer } from '../../token-issuer.ts';

const SECRET = `${CLUSTERS_PREFIX}a`;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const WEEK_SECONDS = (7 * DAY) / 1000;
const DENIED = { status: 400, type: 'AccessDeniedException', message: 'not authorized' };

let stack: AsyncDisposableStack;
let now: number;
let issuer: TokenIssuer;
let secrets: SecretsManager;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  now = Date.parse('2026-11-23T12:00:00Z');
  issuer = stack.use(await startTokenIssuer(() => now));
});
afterEach(() => stack.disposeAsync());

async function register(
  token = issuer.issue({ lifeSeconds: WEEK_SECONDS }),
  options: SecretsManagerOptions = {},
): Promise<string> {
  secrets = stack.use(await startSecretsManager({ [SECRET]: issuer.kubeconfigOf(token) }, options));
  return token;
}

/** The registered token. */
function registered(): string {
  const { identity } = readKubeconfig(secrets.current(SECRET));
  return 'token' in identity ? identity.token : '';
}

async function refresh(event: object = {}, signal = AbortSignal.timeout(30_000)): Promise<ClusterReport> {
  const settings = {
    clusterDeadlineMs: 20_000,
    clusterConcurrency: 1,
    region: 'eu-central-1',
    allowLocalServers: true,
    eksDiscovery: [],
  };
  const services = { secrets: secrets.client, eks: NO_EKS, keyless: NO_KEYLESS };
  const [report] = await run(
    services,
    readEvent(event),
    settings,
    () => now,
    signal,
    () => {},
  );
  if (!report) throw new Error('no report');
  const shown = JSON.stringify([report, summarize(report)]);
  for (const token of issuer.issued) expect(shown).not.toContain(token);
  return report;
}

describe('over six weeks of a run every three hours', () => {
  test('the token is renewed past half of each lifetime, and is always valid', async () => {
    const first = await register();
    const known = new Set([first]);
    for (const end = now + 42 * DAY; now < end; now += 3 * HOUR) {
      const report = await refresh();
      expect(report).toMatchObject({ served: true, failed: false });
      const token = registered();
      expect(issuer.isValid(token)).toBe(true);
      // At most half a lifetime and the time until the next run.
      const { issuedAt = 0, expiresAt } = readToken(token) ?? {};
      expect(now - issuedAt).toBeLessThanOrEqual(3.5 * DAY);
      expect(report.renewal).toEqual({
        outcome: known.has(token) ? 'not-due' : 'renewed',
        expiresAt: new Date(expiresAt ?? 0).toISOString(),
      });
      known.add(token);
      // AWSCURRENT and AWSPREVIOUS.
      expect(secrets.versions(SECRET).length).toBeLessThanOrEqual(2);
    }
    // After three and a half days the next run, at most three hours later, renews it.
    expect(known.size).toBe(1 + Math.floor((42 * 24 - 1) / 87));
    expect(issuer.issued).toHaveLength(known.size);
  }, 120_000);

  test('at most one version waits while none can become current, and that one becomes current', async () => {
    let isDenied = true;
    const token = await register(undefined, {
      before(operation) {
        if (isDenied && operation === 'UpdateSecretVersionStage') throw DENIED;
      },
    });
    now += 4 * DAY;
    const ids = new Set<string>();
    for (let attempt = 0; attempt < 20; attempt += 1, now += HOUR) {
      expect((await refresh()).renewal?.outcome).toBe('failed');
      expect(registered()).toBe(token);
      for (const { id } of secrets.versions(SECRET)) ids.add(id);
    }
    expect(ids.size).toBe(2);
    isDenied = false;
    expect((await refresh()).renewal).toEqual({ outcome: 'renewed' });
    expect(registered()).toBe(issuer.issued[1]);
    expect(issuer.isValid(registered())).toBe(true);
    expect((await refresh()).renewal?.outcome).toBe('not-due');
  });

  test('a renewal that cannot be stored is a failure from three quarters of the lifetime, and the token stays valid', async () => {
    let isDenied = true;
    await register(undefined, {
      before(operation) {
        if (isDenied && operation === 'PutSecretValue') throw DENIED;
      },
    });
    const start = now;
    for (; now < start + 7 * DAY; now += 3 * HOUR) {
      const { served, failed, reason, renewal } = await refresh();
      const life = (now - start) / (7 * DAY);
      expect([served, failed]).toEqual([true, life > 3 / 4]);
      expect(renewal?.outcome).toBe(life > 1 / 2 ? 'failed' : 'not-due');
      if (failed)
        expect(reason).toBe(
          'the registered token expires at 2026-11-30T12:00:00.000Z and is not renewed: not authorized',
        );
    }
    now -= 3 * HOUR;
    isDenied = false;
    expect(await refresh()).toMatchObject({ failed: false, renewal: { outcome: 'renewed' } });
  }, 60_000);
});

test('the next token has the same service account, audiences, lifetime and Secret', async () => {
  const token = await register();
  now += 4 * DAY;
  await refresh();
  const asked = issuer.server.requests.filter(({ method }) => method === 'POST');
  expect(asked.map(({ path }) => path)).toEqual([
    '/api/v1/namespaces/ecr-anywhere/serviceaccounts/ecr-anywhere-refresher/token',
  ]);
  expect(asked[0]?.headers.authorization).toBe(`Bearer ${token}`);
  expect(JSON.parse(asked[0]?.body ?? '').spec).toEqual({
    audiences: ['https://kubernetes.default.svc'],
    expirationSeconds: WEEK_SECONDS,
    boundObjectRef: { kind: 'Secret', apiVersion: 'v1', ...BOUND_TO },
  });
});

test('a shorter lifetime that the API server grants decides when the next renewal is due', async () => {
  await register();
  issuer.grant = (asked) => ({ token: issuer.issue({ ...asked, lifeSeconds: (4 * DAY) / 1000 }) });
  now += 4 * DAY;
  expect((await refresh()).renewal?.expiresAt).toBe('2026-12-01T12:00:00.000Z');
  now += 2 * DAY;
  expect((await refresh()).renewal?.outcome).toBe('not-due');
  now += HOUR;
  expect((await refresh()).renewal?.outcome).toBe('renewed');
});

/** The steps at which a renewal may end. */
const STEPS = ['TokenRequest', 'trial', 'PutSecretValue', 'UpdateSecretVersionStage'] as const;
const ENDINGS = STEPS.flatMap((step) =>
  (['refused', 'crash before', 'crash after'] as const).map((how) => ({ step, how })),
);

describe.each(ENDINGS)('$step: $how', ({ step, how }) => {
  test('the registered token stays valid, and the next run renews it', async () => {
    let isBroken = true;
    const crash = new AbortController();
    const when = (at: 'before' | 'after') => (operation: string) => {
      if (!isBroken || operation !== step) return;
      if (how === 'refused' && at === 'before') throw DENIED;
      if (how !== `crash ${at}`) return;
      crash.abort();
      throw HANG_UP;
    };
    const token = await register(undefined, { before: when('before'), after: when('after') });
    issuer.intercept = (request, response) => {
      const isTrial = request.method === 'GET' && request.headers.authorization !== `Bearer ${token}`;
      const at = request.method === 'POST' ? 'TokenRequest' : isTrial ? 'trial' : undefined;
      if (!isBroken || at !== step) return false;
      if (how === 'refused') refuse403(response);
      else {
        // The token is issued, and the response is lost.
        if (how === 'crash after' && step === 'TokenRequest') issuer.issue({ lifeSeconds: WEEK_SECONDS });
        crash.abort();
        request.drop();
      }
      return true;
    };
    now += 4 * DAY;
    const report = await refresh({}, crash.signal);
    expect(crash.signal.aborted).toBe(how !== 'refused');
    // After the last call its response does not matter.
    const isDone = step === 'UpdateSecretVersionStage' && how === 'crash after';
    expect(registered() === token).toBe(!isDone);
    expect(report.renewal).toMatchObject({ outcome: 'failed', reason: expect.stringMatching(/./) });
    expect(issuer.isValid(registered())).toBe(true);

    isBroken = false;
    const next = await refresh();
    expect(next).toMatchObject({ served: true, failed: false });
    expect(next.renewal?.outcome).toBe(isDone ? 'not-due' : 'renewed');
    expect(registered()).not.toBe(token);
    expect(issuer.isValid(registered())).toBe(true);
  });
});

function refuse403(response: Parameters<TokenIssuer['intercept']>[1]): void {
  response.writeHead(403, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ kind: 'Status', message: 'the policy says no', code: 403 }));
}

test.each(['PutSecretValue', 'UpdateSecretVersionStage'])(
  'the token is renewed if the response to %s is lost once, because the SDK retries',
  async (lost) => {
    let count = 0;
    await register(undefined, {
      after(operation) {
        if (operation !== lost) return;
        count += 1;
        if (count === 1) throw HANG_UP;
      },
    });
    now += 4 * DAY;
    expect((await refresh()).renewal?.outcome).toBe('renewed');
    expect(count).toBeGreaterThanOrEqual(1);
    expect(secrets.calls.filter(({ operation }) => operation === lost)).toHaveLength(2);
    expect(issuer.isValid(registered())).toBe(true);
  },
);

describe('races', () => {
  test.each(['PutSecretValue', 'UpdateSecretVersionStage'])(
    'an operator registers the cluster anew just before %s: theirs stays',
    async (moment) => {
      const theirs = issuer.issue({ lifeSeconds: WEEK_SECONDS });
      await register(undefined, {
        before(operation) {
          if (operation === moment) secrets.register(SECRET, issuer.kubeconfigOf(theirs));
        },
      });
      now += 4 * DAY;
      expect(await refresh()).toMatchObject({ failed: false, renewal: { outcome: 'superseded' } });
      expect(registered()).toBe(theirs);
    },
  );

  test('a registration by the operator just after a renewal stays', async () => {
    const theirs = issuer.issue({ lifeSeconds: WEEK_SECONDS });
    await register(undefined, {
      after(operation) {
        if (operation === 'UpdateSecretVersionStage') secrets.register(SECRET, issuer.kubeconfigOf(theirs));
      },
    });
    now += 4 * DAY;
    await refresh();
    expect(registered()).toBe(theirs);
  });

  test.each(['PutSecretValue', 'UpdateSecretVersionStage'])(
    'two runs meet at %s: they agree on one token, which is valid',
    async (meeting) => {
      const both = Promise.withResolvers<void>();
      let there = 0;
      const token = await register(undefined, {
        async before(operation) {
          if (operation !== meeting) return;
          there += 1;
          if (there >= 2) both.resolve();
          await both.promise;
        },
      });
      now += 4 * DAY;
      const reports = await Promise.all([refresh(), refresh()]);
      const outcomes = reports.map(({ renewal }) => renewal?.outcome);
      expect(outcomes).toEqual(['renewed', 'renewed']);
      expect(reports.filter(({ renewal }) => renewal?.expiresAt !== undefined)).toHaveLength(1);
      for (const report of reports) expect(report).toMatchObject({ served: true, failed: false });
      expect(registered()).not.toBe(token);
      expect(issuer.isValid(registered())).toBe(true);
      expect((await refresh()).renewal?.outcome).toBe('not-due');
    },
  );
});

describe('a token is not stored', () => {
  test.each([
    { what: 'of another service account', other: { serviceAccount: 'default' }, code: 'token-mismatch' },
    { what: 'of another namespace', other: { namespace: 'team' }, code: 'token-mismatch' },
    { what: 'without a binding', other: { secret: undefined }, code: 'token-mismatch' },
    {
      what: 'bound to another Secret',
      other: { secret: { ...BOUND_TO, name: 'other' } },
      code: 'token-mismatch',
    },
    { what: 'that expires sooner', other: { lifeSeconds: 3600 }, code: 'token-not-longer' },
  ])('$what, with the code $code', async ({ other, code }) => {
    const token = await register();
    issuer.grant = (asked) => ({ token: issuer.issue({ ...asked, ...other }) });
    now += 4 * DAY;
    const { served, renewal } = await refresh();
    expect([served, renewal]).toEqual([
      true,
      { outcome: 'failed', expiresAt: '2026-11-30T12:00:00.000Z', code, reason: expect.any(String) },
    ]);
    expect(registered()).toBe(token);
    expect(secrets.versions(SECRET)).toHaveLength(1);
  });

  test.each([
    { what: 'that is not a JWT', answer: () => ({ token: 'opaque', expiresAt: '2027-01-01T00:00:00Z' }) },
    {
      what: 'that the API server refuses',
      answer: () => {
        const stranger = { name: 'ecr-anywhere-refresher' };
        const of = { namespace: 'ecr-anywhere', serviceaccount: stranger, secret: BOUND_TO };
        const claims = { aud: 'x', iat: now / 1000, exp: now / 1000 + WEEK_SECONDS, 'kubernetes.io': of };
        return { token: jwt(claims), expiresAt: new Date(now + 7 * DAY).toISOString() };
      },
    },
    {
      what: 'that expires sooner according to the response',
      answer: () => ({
        token: issuer.issue({ lifeSeconds: WEEK_SECONDS }),
        expiresAt: new Date(now).toISOString(),
      }),
    },
  ])('$what', async ({ answer }) => {
    const token = await register();
    issuer.grant = answer;
    now += 4 * DAY;
    expect(await refresh()).toMatchObject({ served: true, renewal: { outcome: 'failed' } });
    expect(registered()).toBe(token);
    expect(secrets.versions(SECRET)).toHaveLength(1);
  });
});

test('a paused cluster receives only the requests of the renewal', async () => {
  const token = await register(undefined, { tags: { [SECRET]: { [TAG.paused]: 'true' } } });
  now += 4 * DAY;
  expect(await refresh()).toMatchObject({ isPaused: true, failed: false, renewal: { outcome: 'renewed' } });
  expect(registered()).not.toBe(token);
  const asked = issuer.server.requests.map(({ method, query }) => `${method} ${query.get('limit') ?? ''}`);
  expect(asked).toEqual(['POST ', 'GET 1']);
});

test('a paused cluster fails if its token is not renewed at three quarters of the lifetime', async () => {
  await register(undefined, { tags: { [SECRET]: { [TAG.paused]: 'true' } } });
  issuer.grant = () => ({ token: 'x' });
  now += 6 * DAY;
  expect(await refresh()).toMatchObject({
    isPaused: true,
    failed: true,
    reason: expect.stringContaining('the registered token expires at 2026-11-30T12:00:00.000Z'),
  });
});

test('a dry run renews nothing', async () => {
  const token = await register();
  now += 4 * DAY;
  expect(await refresh({ dryRun: true })).not.toHaveProperty('renewal');
  expect(registered()).toBe(token);
});

test('the deletion of the bound Secret is reported', async () => {
  await register();
  issuer.revoke();
  now += 4 * DAY;
  expect(await refresh()).toMatchObject({
    served: false,
    failed: true,
    renewal: { outcome: 'failed', reason: expect.stringContaining('HTTP 401') },
  });
});

test('a token without a bound Secret is reported, and is a failure from three quarters of its lifetime', async () => {
  await register(issuer.issue({ lifeSeconds: WEEK_SECONDS, secret: undefined }));
  const renewal = {
    outcome: 'not-renewable',
    expiresAt: '2026-11-30T12:00:00.000Z',
    reason: 'it is not a ServiceAccount token that is bound to a Secret',
  };
  now += 5 * DAY;
  expect(await refresh()).toMatchObject({ failed: false, renewal });
  now += DAY;
  expect(await refresh()).toMatchObject({
    served: true,
    failed: true,
    reason: `the registered token expires at ${renewal.expiresAt} and is not renewed: ${renewal.reason}`,
    renewal: { ...renewal, isLate: true },
  });
  expect(issuer.server.requests.every(({ method }) => method === 'GET')).toBe(true);
});

test('a token of a year that cannot be renewed is a failure only in its last two weeks', async () => {
  await register(issuer.issue({ lifeSeconds: 365 * 86_400, secret: undefined }));
  now += 350 * DAY;
  expect(await refresh()).toMatchObject({ failed: false, renewal: { outcome: 'not-renewable' } });
  now += 2 * DAY;
  expect(await refresh()).toMatchObject({ failed: true, renewal: { isLate: true } });
});

describe('readToken', () => {
  const claims = (change: object = {}) => ({
    aud: ['x'],
    iat: 1_000,
    exp: 2_000,
    'kubernetes.io': {
      namespace: 'n',
      serviceaccount: { name: 's', uid: 'u' },
      secret: { name: 't', uid: 'v' },
    },
    ...change,
  });

  test('reads a token of a service account that is bound to a Secret', () => {
    expect(readToken(jwt(claims({ aud: 'one' })))).toEqual({
      namespace: 'n',
      serviceAccount: 's',
      secret: { name: 't', uid: 'v' },
      audiences: ['one'],
      issuedAt: 1_000_000,
      expiresAt: 2_000_000,
    });
  });

  test.each([
    { what: 'a token without expiry', claims: { iss: 'kubernetes/serviceaccount' }, says: {} },
    {
      what: 'a token bound to a Pod',
      claims: claims({
        'kubernetes.io': { namespace: 'n', serviceaccount: { name: 's' }, pod: { name: 'p' } },
      }),
      says: { issuedAt: 1_000_000, expiresAt: 2_000_000 },
    },
    {
      what: 'a token bound to an invalid name',
      claims: claims({
        'kubernetes.io': {
          ...{ namespace: 'n', serviceaccount: { name: 's' } },
          secret: { name: 't; rm -rf ~', uid: 'v' },
        },
      }),
      says: { issuedAt: 1_000_000, expiresAt: 2_000_000 },
    },
    {
      what: 'a token of another issuer',
      claims: { exp: 2_000, sub: 'alice' },
      says: { expiresAt: 2_000_000 },
    },
  ])('reads the expiry of $what, which is not renewable', ({ claims, says }) => {
    expect(readToken(jwt(claims))).toEqual({ reason: expect.any(String), ...says });
  });

  test.each(['', 'opaque', 'k8s-aws-v1.aHR0cHM', 'a.b.c', jwt({ exp: 'soon' }), jwt({ exp: 1e300 })])(
    'nothing: %s',
    (token) => {
      expect(readToken(token)).toBeUndefined();
    },
  );

  test('isPastFraction is false at the fraction and true after it', () => {
    const life = { issuedAt: 1_000, expiresAt: 3_000 };
    expect([isPastFraction(1 / 2, life, 2_000), isPastFraction(1 / 2, life, 2_001)]).toEqual([false, true]);
    expect([isPastFraction(1 / 2, { expiresAt: 3_000 }, 3_000), isPastFraction(1 / 2, {}, 3_001)]).toEqual([
      false,
      false,
    ]);
  });
});

describe('withToken replaces only the token', () => {
  const yaml = (token: string, more = '') => `# ours
apiVersion: v1
current-context: one
contexts:
  - {name: one, context: {cluster: c, user: u}}
  - {name: two, context: {cluster: c, user: v}}
clusters: [{name: c, cluster: {server: "https://c.example.com"}}] # with a comment
users:
  - name: v
    user: {token: other}
  - name: u
    user:
      token: ${token}
${more}`;

  test.each([
    { what: 'that is a plain scalar', before: 'a.b.c # the token', after: '"x.y.z" # the token' },
    { what: 'in quotes', before: "'a.b.c'", after: '"x.y.z"' },
    { what: 'in a literal block', before: '|-\n        a.b.c', after: '"x.y.z"' },
    { what: 'in a folded block', before: '>\n        a.b.c', after: '"x.y.z"' },
    { what: 'with an anchor', before: '&t a.b.c', after: '&t "x.y.z"' },
    { what: 'before other fields', before: '|\n        a.b.c', after: '"x.y.z"', more: '      extra: 1\r\n' },
  ])('$what', ({ before, after, more }) => {
    expect(withToken(yaml(before, more), 'x.y.z')).toBe(yaml(after, more));
  });

  test('of the named context', () => {
    const text = yaml('a.b.c');
    expect(withToken(text, 'x.y.z', 'two')).toBe(text.replace('token: other', 'token: "x.y.z"'));
  });

  test('in JSON', () => {
    const text = issuer.kubeconfigOf('a.b.c');
    expect(withToken(text, 'x.y.z')).toBe(text.replace('a.b.c', 'x.y.z'));
    const indented = JSON.stringify(JSON.parse(text), undefined, 2);
    expect(withToken(indented, 'x.y.z')).toBe(indented.replace('a.b.c', 'x.y.z'));
  });

  test('and fails without the token in its message if the token is an alias', () => {
    const aliased = yaml('*t').replace('token: other', 'token: &t a.b.c');
    expect(() => withToken(aliased, 'x.y.z')).toThrow('user "u": "token" is a YAML alias');
  });
});

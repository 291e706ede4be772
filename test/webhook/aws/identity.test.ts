// AWS credentials that live for five minutes, from each source: over a whole virtual day the webhook bundle renews them,
// and no admission fails.
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { registryField, type TokenFailure } from '../../../contract/denials.ts';
import { ANNOTATION } from '../../../contract/names.ts';
import { parseWarning, type WarningKind } from '../../../contract/warnings.ts';
import { TokenError } from '../../../webhook/aws/token-error.ts';
import type { AwsEndpoint } from '../../bed/aws-endpoint.ts';
import { virtualClock } from '../../virtual-clock.ts';
import { ask } from '../ask.ts';
import { type RunningWebhook, type RunOptions, runWebhook } from '../running-webhook.ts';
import { annotated, authsOf, HOUR, type Manifest, manifest, warning } from '../support.ts';

const MINUTE = 60_000;
const DAY = 24 * HOUR;
/** Between two admissions; a session lives for five minutes. */
const STEPS = [1, 2, 7, 3, 4, 6, 1, 5].map((minutes) => minutes * MINUTE);
const STATIC = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' };
const NO_KEYS = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined };
const role = (name: string) => `arn:aws:iam::123456789012:role/${name}`;
const HOST = '123456789012.dkr.ecr.eu-central-1.amazonaws.com';
const OTHER = '210987654321.dkr.ecr.us-east-1.amazonaws.com';

interface Way {
  title: string;
  env: RunOptions['env'] & object;
  /** Brings a new token, and lets no other one pass from then on. */
  rotate?: (ecr: AwsEndpoint, token: string) => void;
  /** Whose session asks ECR, where no role of a registry does. */
  principal: string;
  /** The identity is lost, or is there again. */
  lose: (ecr: AwsEndpoint, isLost: boolean) => void;
  reason: TokenFailure;
  /** What AWS answers is named too. */
  names: RegExp;
}

const dir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-identity-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const tokenFile = join(dir, 'token');
const bring = (token: string) => {
  writeFileSync(`${tokenFile}.new`, token);
  renameSync(`${tokenFile}.new`, tokenFile);
};

const WAYS: Way[] = [
  {
    title: 'EKS Pod Identity',
    env: (ecr: AwsEndpoint) => ({
      ...NO_KEYS,
      // The SDK asks three times, a second apart.
      TIMEOUT_SECONDS: '10',
      AWS_CONTAINER_CREDENTIALS_FULL_URI: `${ecr.url}/_credentials`,
      AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: tokenFile,
    }),
    rotate: (ecr, token) => {
      bring(token);
      ecr.settings.containerToken = token;
    },
    principal: 'container',
    lose: (ecr, isLost) => {
      if (isLost) ecr.settings.containerToken = 'another';
    },
    reason: 'aws-no-identity',
    names: /./,
  },
  {
    title: 'web identity',
    env: { ...NO_KEYS, AWS_ROLE_ARN: role('webhook'), AWS_WEB_IDENTITY_TOKEN_FILE: tokenFile },
    rotate: (ecr, token) => {
      bring(token);
      ecr.settings.webIdentityToken = token;
    },
    principal: role('webhook'),
    lose: (ecr, isLost) => {
      if (isLost) ecr.settings.webIdentityToken = 'another';
    },
    reason: 'aws-no-identity',
    names: /ExpiredToken/,
  },
  {
    title: 'static keys and a role to assume with them',
    env: { ...STATIC, ASSUME_ROLE_ARN: role('webhook'), ASSUME_ROLE_EXTERNAL_ID: 'cluster-1' },
    principal: role('webhook'),
    lose: (ecr, isLost) => {
      ecr.settings.roles[role('webhook')] = { externalId: 'cluster-1', denied: isLost };
    },
    reason: 'aws-role-denied',
    names: /AccessDenied: .* not authorized to perform: sts:AssumeRole/,
  },
];

describe.each(WAYS)('$title', ({ env, rotate, principal, lose, reason, names }) => {
  const clock = virtualClock(join(dir, 'clock'));
  let webhook: RunningWebhook;
  let stored: Manifest;
  let rotations = 0;

  beforeAll(async () => {
    bring('not yet');
    webhook = await runWebhook({
      env,
      clock,
      policy: JSON.stringify({
        registries: [
          { host: HOST, namespaces: ['*'] },
          { host: OTHER, namespaces: ['*'], roleArn: role('pull'), externalId: 'pull-1' },
        ],
      }),
    });
    const { settings } = webhook.ecr;
    settings.sessionSeconds = 300;
    settings.roles[role('pull')] = { externalId: 'pull-1' };
    lose(webhook.ecr, false);
  });
  afterAll(() => webhook?.[Symbol.asyncDispose]());

  /** The cause of a denial for a host that gets no token because the identity is lost. */
  const cause = (host: string) => ({
    reason,
    field: registryField(host),
    message: reason === 'aws-role-denied' ? role('webhook') : expect.stringMatching(names),
  });
  const failed = (host: string, kinds: WarningKind[]) => ({
    host,
    kind: expect.toBeOneOf(kinds),
    reason,
    message: expect.stringMatching(names),
  });
  const turn = (ms: number) => {
    clock.advance(ms);
    rotations += 1;
    rotate?.(webhook.ecr, `header.token-${rotations}.signature`);
  };
  /** A request that may not be answered from the cache: AWS is asked each time. */
  const force = async () => {
    const mark = new Date(clock.now()).toISOString();
    const object = annotated(stored, { [ANNOTATION.requestedAt]: mark, [ANNOTATION.force]: mark });
    return ask(webhook, { object, oldObject: stored });
  };

  /** The role whose session minted what a Secret has for a host. */
  const minterOf = (secret: Manifest, host: string) => {
    const { password } = authsOf(secret)[host] as { password: string };
    return webhook.ecr.calls.find((call) => call.password === password)?.role;
  };

  test('each request of a day gets new credentials of the right principal', async () => {
    const endsAt = clock.now() + DAY;
    turn(0);
    ({ secret: stored } = await ask(webhook, { object: manifest() }));
    for (let step = 0; clock.now() < endsAt; step++) {
      turn(STEPS[step % STEPS.length] ?? 0);
      const { response, secret } = await force();
      expect(response).toMatchObject({ allowed: true });
      expect(response).not.toHaveProperty('warnings');
      stored = secret;
      expect([HOST, OTHER].map((host) => minterOf(secret, host))).toEqual([principal, role('pull')]);
      if (step % 10 > 0) continue;
      const { response: created } = await ask(webhook, { object: manifest() });
      expect(created).toMatchObject({ allowed: true });
      expect(created).not.toHaveProperty('warnings');
    }
    const { calls } = webhook.ecr;
    expect(calls.length).toBeGreaterThan(700);
    // Expired credentials were never even tried.
    expect(new Set(calls.map(({ outcome }) => outcome))).toEqual(new Set(['ok']));
    expect(new Set(calls.map(({ region, role }) => `${region} ${role}`))).toEqual(
      new Set([`eu-central-1 ${principal}`, `us-east-1 ${role('pull')}`]),
    );
  }, 120_000);

  test("calls STS in the webhook's region, with the external id of the role, as the webhook", () => {
    const asked = webhook.ecr.stsCalls.filter(({ ok }) => ok);
    const pulls = asked.filter(({ role: arn }) => arn === role('pull'));
    expect(pulls.length).toBeGreaterThan(100);
    for (const call of pulls)
      expect(call).toMatchObject({
        action: 'AssumeRole',
        externalId: 'pull-1',
        by: principal,
        region: 'eu-central-1',
      });
    for (const { role: arn, action, externalId, accessKeyId, region } of asked) {
      if (arn !== role('webhook')) continue;
      // A request with a web identity is not signed, and so names no region.
      expect([action, externalId, accessKeyId, region]).toEqual(
        'ASSUME_ROLE_ARN' in env
          ? ['AssumeRole', 'cluster-1', 'test', 'eu-central-1']
          : ['AssumeRoleWithWebIdentity', undefined, '', ''],
      );
    }
  });

  test('without an identity for an hour, cached tokens serve, stored entries stay, and the reason is named', async () => {
    lose(webhook.ecr, true);
    for (const _ of ['the first half', 'the second']) {
      clock.advance(30 * MINUTE);
      const { response: created } = await ask(webhook, { object: manifest() });
      expect(created).toMatchObject({ allowed: true });
      expect(created.warnings?.map(parseWarning)).toContainEqual(failed(HOST, ['cached token']));
      const { response: forced } = await force();
      expect(forced).toMatchObject({
        allowed: false,
        status: {
          code: 503,
          message: expect.stringMatching(names),
          details: { causes: expect.arrayContaining([cause(HOST), cause(OTHER)]) },
        },
      });
    }
    lose(webhook.ecr, false);
    turn(MINUTE);
    const { response } = await force();
    expect(response).toMatchObject({ allowed: true });
    expect(response).not.toHaveProperty('warnings');
  });

  test('without an identity while entries fall due, another update passes with a warning', async () => {
    const touched = (by: string) =>
      ask(webhook, { object: annotated(stored, { 'example.com/owner': by }), oldObject: stored });
    ({ secret: stored } = await force());
    turn(7 * HOUR);
    lose(webhook.ecr, true);
    const { response, secret } = await touched('alice');
    expect(response).toMatchObject({ allowed: true });
    for (const host of [HOST, OTHER])
      expect(response.warnings?.map(parseWarning)).toContainEqual(failed(host, ['kept', 'cached token']));
    expect(authsOf(secret)).toEqual(authsOf(stored));

    lose(webhook.ecr, false);
    turn(MINUTE);
    const { response: healed, secret: renewed } = await touched('bob');
    expect(healed).toMatchObject({ allowed: true });
    expect(healed).not.toHaveProperty('warnings');
    expect(Object.keys(authsOf(renewed)).filter((host) => minterOf(renewed, host))).toHaveLength(2);
    expect(authsOf(renewed)).not.toMatchObject({ [HOST]: authsOf(stored)[HOST] });
    stored = renewed;
  });

  test('a denied role of one registry does not affect the other one', async () => {
    const { roles } = webhook.ecr.settings;
    const denied = new TokenError('aws-role-denied', 'AccessDenied');
    roles[role('pull')] = { externalId: 'pull-1', denied: true };
    turn(HOUR);
    const { response: created } = await ask(webhook, { object: manifest() });
    expect(created).toMatchObject({
      allowed: true,
      warnings: [warning(OTHER, 'cached token', denied)],
    });
    turn(MINUTE);
    const { response, secret } = await force();
    expect(response).toMatchObject({
      allowed: true,
      warnings: [warning(OTHER, 'kept', denied)],
    });
    expect(authsOf(secret)[OTHER]).toEqual(authsOf(stored)[OTHER]);
    expect(authsOf(secret)[HOST]).not.toEqual(authsOf(stored)[HOST]);

    roles[role('pull')] = { externalId: 'pull-1' };
    turn(MINUTE);
    const healed = await force();
    expect(healed.response).toMatchObject({ allowed: true });
    expect(healed.response).not.toHaveProperty('warnings');
  });
});

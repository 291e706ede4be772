// Two processes of the webhook, one that has had a token and one that has not: they give the same answer to the same
// review, and neither takes the registry of another account for the webhook's own.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { denialCauses } from '../../contract/denials.ts';
import { formatTime } from '../../contract/freshness.ts';
import { ANNOTATION } from '../../contract/names.ts';
import { ask } from './ask.ts';
import { type RunningWebhook, type RunOptions, runWebhook } from './running-webhook.ts';
import {
  annotated,
  authsOf,
  type Change,
  configText,
  encode,
  HOST,
  HOUR,
  holding,
  type Manifest,
  manifest,
  notesOf,
} from './support.ts';

const POLL = { timeout: 20_000, interval: 100 };
const OTHER_ACCOUNT = '210987654321';
const OTHER = HOST.replace('123456789012', OTHER_ACCOUNT);
const FOREIGN = { auth: encode('AWS:of-a-user') };

const only = (hosts: string, secret = manifest()) => annotated(secret, { [ANNOTATION.only]: hosts });
const touched = (oldObject: Manifest): Change => ({ object: annotated(oldObject, { a: 'b' }), oldObject });
const marked = (oldObject: Manifest, more: Record<string, string> = {}): Change => ({
  object: annotated(oldObject, { [ANNOTATION.requestedAt]: formatTime(Date.now()), ...more }),
  oldObject,
});
const forced = (oldObject: Manifest) => marked(oldObject, { [ANNOTATION.force]: formatTime(Date.now()) });

/** Of an answer what does not depend on the token and the time. */
async function verdict(webhook: RunningWebhook, change: Change) {
  const { response, secret } = await ask(webhook, change);
  return {
    allowed: response.allowed,
    causes: denialCauses(response.status).map(({ reason, field }) => ({ reason, field })),
    // As a warning names an expiry, its data come first.
    warnings: (response.warnings ?? []).map((warning) => warning.split(': ').slice(0, 2)),
    changes: configText(secret) !== configText(change.object),
    hosts: response.allowed ? Object.keys(authsOf(secret)).sort() : [],
    owned: response.allowed
      ? (notesOf(secret).registries ?? '').split(',').map((entry) => entry.split('=')[0])
      : [],
  };
}

let warm: RunningWebhook;
/** A Secret that the webhook filled, and one that a webhook of another account filled. */
let stored: Manifest;
let ofOtherAccount: Manifest;
/** As `stored`, with an entry for a registry of another account that a user wrote. */
let mixed: Manifest;

beforeAll(async () => {
  warm = await runWebhook();
  ({ secret: stored } = await ask(warm, { object: manifest() }));
  const withForeign = holding(manifest(), JSON.stringify({ auths: { [OTHER]: FOREIGN } }));
  ({ secret: mixed } = await ask(warm, { object: withForeign }));
  await using other = await runWebhook({ account: OTHER_ACCOUNT });
  ({ secret: ofOtherAccount } = await ask(other, { object: manifest() }));
  expect([stored, mixed, ofOtherAccount].map((secret) => Object.keys(authsOf(secret)).sort())).toEqual([
    [HOST],
    [HOST, OTHER],
    [OTHER],
  ]);
});
afterAll(() => warm?.[Symbol.asyncDispose]());

/** The webhook's role is set, as with a web identity, so that its account is known at the start. */
function withRole(dir: string): RunOptions {
  return {
    env: {
      AWS_ROLE_ARN: 'arn:aws:iam::123456789012:role/webhook',
      AWS_WEB_IDENTITY_TOKEN_FILE: join(dir, 'token'),
      AWS_ACCESS_KEY_ID: undefined,
      AWS_SECRET_ACCESS_KEY: undefined,
    },
  };
}

const NOT_ENTITLED = { allowed: false, causes: [{ reason: 'not-entitled' }] };
const LOSES_ENTRIES = { allowed: false, causes: [{ reason: 'not-a-docker-config' }] };

interface Case {
  what: string;
  /** A process of its own gets this review as its first: the answer needs the registry's host. */
  isFirst?: boolean;
  change: () => Change;
  expected: object;
}
const CASES: Case[] = [
  { what: 'CREATE', change: () => ({ object: manifest() }), expected: { allowed: true, owned: [HOST] } },
  {
    what: 'CREATE that names the own registry',
    isFirst: true,
    change: () => ({ object: only(HOST) }),
    expected: { allowed: true, owned: [HOST], warnings: [] },
  },
  {
    what: 'CREATE that names the registry of another account',
    isFirst: true,
    change: () => ({ object: only(OTHER) }),
    expected: NOT_ENTITLED,
  },
  {
    what: 'CREATE that names both',
    change: () => ({ object: only(`${HOST},${OTHER}`) }),
    expected: { allowed: true, owned: [HOST], warnings: [[OTHER, 'not given']] },
  },
  {
    what: 'CREATE with an entry of a user for another account',
    change: () => ({ object: holding(manifest(), JSON.stringify({ auths: { [OTHER]: FOREIGN } })) }),
    expected: { allowed: true, owned: [HOST], hosts: [HOST, OTHER] },
  },
  {
    what: 'UPDATE of a fresh Secret',
    isFirst: true,
    change: () => touched(stored),
    expected: { allowed: true, changes: false, owned: [HOST], warnings: [] },
  },
  {
    what: 'forced refresh request',
    change: () => forced(stored),
    expected: { allowed: true, changes: true },
  },
  {
    what: 'UPDATE that begins to name another account',
    change: () => ({ object: only(OTHER, stored), oldObject: stored }),
    expected: NOT_ENTITLED,
  },
  {
    what: 'UPDATE whose data would lose an entry of a user for another account',
    isFirst: true,
    change: () => ({ object: holding(mixed, 'FAKE'), oldObject: mixed }),
    expected: LOSES_ENTRIES,
  },
  {
    what: 'UPDATE that leaves such an entry',
    change: () => touched(mixed),
    expected: { allowed: true, changes: false, hosts: [HOST, OTHER] },
  },
  {
    what: 'UPDATE of a Secret of a webhook of another account',
    isFirst: true,
    change: () => touched(ofOtherAccount),
    expected: { allowed: true, owned: [HOST], hosts: [HOST], warnings: [[OTHER, 'removed']] },
  },
];

describe('a replica that has had no token answers like one that has had one', () => {
  test.each(CASES.filter(({ isFirst }) => isFirst))('$what', async ({ change, expected }) => {
    const review = change();
    const ofWarm = await verdict(warm, review);
    expect(ofWarm).toMatchObject(expected);
    await using cold = await runWebhook();
    const unmanaged = { ...manifest(), metadata: { ...manifest().metadata, labels: {} } };
    expect((await ask(cold, { object: unmanaged })).response).toMatchObject({ allowed: true });
    // The registry does not matter to that, so that the webhook is still without a token.
    expect(cold.ecr.calls).toEqual([]);
    expect(await verdict(cold, review)).toEqual(ofWarm);
  });
});

describe('a replica whose role names its account answers alike', () => {
  let dir: string;
  let withAccount: RunningWebhook;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-token-'));
    await writeFile(join(dir, 'token'), 'token');
    withAccount = await runWebhook(withRole(dir));
  });
  afterAll(async () => {
    await withAccount?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  test('without a call to ECR for a fresh Secret', async () => {
    expect(await verdict(withAccount, touched(stored))).toMatchObject({ allowed: true, changes: false });
    expect(await verdict(withAccount, { object: only(OTHER) })).toMatchObject(NOT_ENTITLED);
    expect(withAccount.ecr.calls).toEqual([]);
  });

  test.each(CASES)('$what', async ({ change, expected }) => {
    const review = change();
    const ofWarm = await verdict(warm, review);
    expect(ofWarm).toMatchObject(expected);
    expect(await verdict(withAccount, review)).toEqual(ofWarm);
  });
});

describe('a replica that has had no token, while ECR gives none', () => {
  let cold: RunningWebhook;
  beforeAll(async () => {
    cold = await runWebhook();
    cold.ecr.settings.mode = 'down';
  });
  afterAll(() => cold?.[Symbol.asyncDispose]());

  const noToken = { allowed: false, causes: [{ reason: 'no-token' }, { reason: 'ecr-unavailable' }] };
  test.each<Case>([
    { what: 'denies a CREATE', change: () => ({ object: manifest() }), expected: noToken },
    {
      what: 'denies a CREATE that names the registry of another account',
      change: () => ({ object: only(OTHER) }),
      expected: noToken,
    },
    {
      what: 'keeps a fresh Secret',
      change: () => touched(stored),
      expected: { allowed: true, changes: false, owned: [HOST], warnings: [] },
    },
    { what: 'denies a refresh request', change: () => marked(stored), expected: noToken },
    {
      what: 'denies data that would lose an entry of a user',
      change: () => ({ object: holding(mixed, 'FAKE'), oldObject: mixed }),
      expected: LOSES_ENTRIES,
    },
    {
      what: 'drops no entry of another account',
      change: () => touched(ofOtherAccount),
      expected: { allowed: true, changes: false, owned: [OTHER] },
    },
    {
      what: 'nor with data that lack it',
      change: () => ({ object: holding(ofOtherAccount, '{"auths":{}}'), oldObject: ofOtherAccount }),
      expected: { allowed: true, owned: [OTHER], hosts: [OTHER] },
    },
  ])('$what', async ({ change, expected }) => {
    expect(await verdict(cold, change())).toMatchObject(expected);
  });

  test('answers like the other one as soon as it gets a token', async () => {
    cold.ecr.settings.mode = 'ok';
    const review = { object: only(OTHER) };
    await expect.poll(() => verdict(cold, review), POLL).toMatchObject(NOT_ENTITLED);
    expect(await verdict(cold, touched(ofOtherAccount))).toEqual(
      await verdict(warm, touched(ofOtherAccount)),
    );
  });
});

test('an explicit account is the account of the own registry, whatever the token names', async () => {
  const policy = `ownRegistry: {namespaces: ["*"], account: "${OTHER_ACCOUNT}"}`;
  await using webhook = await runWebhook({ policy });
  const created = await ask(webhook, { object: manifest() });
  expect(Object.keys(authsOf(created.secret))).toEqual([OTHER]);
  expect(Date.parse(notesOf(created.secret).expiresAt ?? '')).toBeGreaterThan(Date.now() + 11 * HOUR);
  expect(await verdict(webhook, { object: only(HOST) })).toMatchObject(NOT_ENTITLED);
});

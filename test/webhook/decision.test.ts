// The first table of docs/design.md, row by row and in its order: what happens before any token is asked for.
import { describe, expect, test } from 'vitest';
import { formatTime } from '../../contract/freshness.ts';
import { ANNOTATION, REFRESHER_GROUP, SECRET_KEY, SECRET_LABEL } from '../../contract/names.ts';
import { decide, settle } from '../../webhook/decision.ts';
import {
  allowedSecret,
  annotated,
  configOf,
  HOST,
  HOUR,
  marked,
  NOW,
  passwordsOf,
  REGION,
  request,
  type SecretObject,
  secret,
  token,
} from './secrets.ts';

const REFRESHER = 'system:serviceaccount:ecr-anywhere:ecr-anywhere-refresher';
const policy = { registries: [{ region: REGION }], refresherUsername: REFRESHER };
const judge = (object: SecretObject, old?: SecretObject, user = {}) =>
  decide(request(object, old, user), policy, NOW);

/** What the webhook stores when this is created, at a time before NOW. */
function stored(config?: string, { hoursAgo = 1, password = 'old' } = {}): SecretObject {
  const at = NOW - hoursAgo * HOUR;
  const object = secret(config);
  const injection = decide(request(object), policy, at);
  if (injection.action !== 'obtain') throw new Error(injection.action);
  return allowedSecret(
    object,
    settle(request(object), injection, [token(HOST, password, at + 12 * HOUR)], at),
  );
}

const changes: [string, (object: SecretObject) => void][] = [
  ['a label', ({ metadata }) => Object.assign(metadata.labels ?? {}, { a: 'b' })],
  ['the managed label', ({ metadata }) => delete metadata.labels?.[SECRET_LABEL.key]],
  ['the type', (object) => Object.assign(object, { type: 'Opaque' })],
  ['the credentials', (object) => Object.assign(object, { data: { [SECRET_KEY]: 'e30=' } })],
  ['other data', (object) => Object.assign(object.data ?? {}, { other: 'eA==' })],
  ['immutable', (object) => Object.assign(object, { immutable: true })],
  ['finalizers', ({ metadata }) => Object.assign(metadata, { finalizers: ['a/b'] })],
  ['owner references', ({ metadata }) => Object.assign(metadata, { ownerReferences: [{ uid: 'x' }] })],
  ['another annotation', ({ metadata }) => Object.assign(metadata.annotations ?? {}, { a: 'b' })],
  [
    'expires_at',
    ({ metadata }) => Object.assign(metadata.annotations ?? {}, { [ANNOTATION.expiresAt]: 'never' }),
  ],
  ['managedFields, emptied', ({ metadata }) => Object.assign(metadata, { managedFields: [] })],
];
const identities: [string, object][] = [
  ['its ServiceAccount', { username: REFRESHER }],
  ['its group', { username: 'cert', groups: [REFRESHER_GROUP] }],
];

describe.each(['kube-system', 'kube-public'])('in %s', (namespace) => {
  test('nothing is touched', () => {
    const object = secret();
    object.metadata.namespace = namespace;
    expect(judge(object)).toMatchObject({ action: 'ignore', reason: 'excluded-namespace', patch: [] });
  });
});

describe.each(identities)('the refresher, known by %s', (_, user) => {
  test.each(changes)('that changed %s is denied', (_what, change) => {
    const old = stored();
    const object = marked(structuredClone(old));
    change(object);
    expect(judge(object, old, user)).toMatchObject({
      action: 'deny',
      code: 403,
      reason: 'refresher-out-of-bounds',
    });
  });
  test('that creates is denied', () => {
    expect(judge(secret(), undefined, user)).toMatchObject({ action: 'deny', code: 403 });
  });
  test('that sets the mark and force, and what the API server counts, is served', () => {
    const old = stored();
    const object = marked(structuredClone(old), undefined, true);
    Object.assign(object.metadata, { resourceVersion: '2', managedFields: [{ manager: 'refresher' }] });
    expect(judge(object, old, user)).toMatchObject({ action: 'obtain', reason: 'requested' });
  });
});
test.each(changes.slice(4, 6))('anybody else may change %s', (_, change) => {
  const old = stored();
  const object = structuredClone(old);
  change(object);
  expect(judge(object, old).reason).not.toBe('refresher-out-of-bounds');
});

describe('no longer ours', () => {
  test('no longer labelled: allowed unchanged', () => {
    const object = stored();
    delete object.metadata.labels;
    expect(judge(object, stored())).toMatchObject({ action: 'ignore', reason: 'not-managed', patch: [] });
  });
  test('being deleted: allowed unchanged, even if immutable and of another type', () => {
    const object = { ...stored(), type: 'Opaque', immutable: true };
    object.metadata.deletionTimestamp = '2026-11-23T12:00:00Z';
    expect(judge(object, stored())).toMatchObject({ action: 'ignore', reason: 'being-deleted', patch: [] });
  });
});

describe('what cannot be served is denied, with the way out', () => {
  test('another type', () => {
    expect(judge({ ...secret(), type: 'Opaque' })).toMatchObject({
      action: 'deny',
      code: 403,
      message: expect.stringMatching(/kubernetes.io\/dockerconfigjson, this one is Opaque.*remove the label/),
    });
  });
  test('immutable', () => {
    const message = expect.stringContaining('without "immutable: true"');
    expect(judge({ ...secret(), immutable: true })).toMatchObject({ action: 'deny', code: 403, message });
    expect(judge({ ...stored(), immutable: true }, stored())).toMatchObject({
      action: 'deny',
      code: 403,
      message,
    });
  });
  test.each(['{"auths": {', 'FAKE', '[]', '{"auths": []}'])(
    'data that would lose foreign entries: %s',
    (text) => {
      const old = stored('{"auths":{"ghcr.io":{"auth":"eDp5"}}}');
      const object = { ...old, data: { [SECRET_KEY]: Buffer.from(text).toString('base64') } };
      expect(judge(object, old)).toMatchObject({ action: 'deny', code: 422, reason: 'not-a-docker-config' });
    },
  );
});

describe('inject', () => {
  test.each([
    ['without data', undefined],
    ["the original's placeholder", 'FAKE'],
    ['an empty document', '{}'],
    ['null auths', '{"auths":null}'],
    ['credentials somebody sent', `{"auths":{"${HOST}":{"auth":"eDp5"}}}`],
  ])('CREATE %s', (_, config) => {
    const object = secret(config);
    const verdict = judge(object);
    expect(verdict).toMatchObject({ action: 'obtain', reason: 'created' });
    if (verdict.action !== 'obtain') return;
    const after = allowedSecret(object, settle(request(object), verdict, [token()], NOW));
    expect(JSON.parse(configOf(after))).toEqual({
      auths: {
        [HOST]: { username: 'AWS', password: 'new', auth: Buffer.from('AWS:new').toString('base64') },
      },
    });
    expect(after.metadata.annotations).toMatchObject({
      [ANNOTATION.updatedAt]: formatTime(NOW),
      [ANNOTATION.expiresAt]: formatTime(NOW + 12 * HOUR),
      [ANNOTATION.registries]: `${HOST}=${formatTime(NOW + 12 * HOUR)}`,
      [ANNOTATION.fingerprint]: expect.stringMatching(/^[\w-]{16}$/),
    });
  });
  test('a request: a mark that was not there, or another one', () => {
    const first = stored();
    expect(judge(marked(first, 'a'), first)).toMatchObject({ action: 'obtain', reason: 'requested' });
    expect(judge(marked(first, 'b'), marked(first, 'a'))).toMatchObject({
      action: 'obtain',
      reason: 'requested',
    });
    expect(judge(marked(first, 'a'), marked(first, 'a'))).toMatchObject({ action: 'keep' });
  });
  test('force counts only with the mark that it was sent with', () => {
    const old = stored();
    expect(judge(marked(old, 'a', true), old)).toMatchObject({ force: 'a' });
    const leftOver = marked(old, 'a', true);
    expect(judge(marked(leftOver, 'b'), leftOver)).not.toHaveProperty('force');
  });
  test('junk with a future expiry, labelled afterwards', () => {
    const junk = secret(`{"auths":{"${HOST}":{"auth":"anVuaw=="}}}`, {
      [ANNOTATION.expiresAt]: formatTime(NOW + 10 * HOUR),
      [ANNOTATION.registries]: `${HOST}=${formatTime(NOW + 10 * HOUR)}`,
      [ANNOTATION.fingerprint]: 'aaaaaaaaaaaaaaaa',
    });
    const old = structuredClone(junk);
    delete old.metadata.labels;
    expect(judge(junk, old)).toMatchObject({ action: 'obtain', reason: 'not-ours' });
    expect(judge(junk, junk)).toMatchObject({ action: 'obtain', reason: 'not-ours' });
  });
  test('an entry that was changed behind our back', () => {
    const old = stored();
    const changed = {
      ...old,
      data: { [SECRET_KEY]: Buffer.from(configOf(old).replace('old', 'odd')).toString('base64') },
    };
    expect(judge(changed, changed)).toMatchObject({ action: 'obtain', reason: 'not-ours' });
  });
  test("what the original's webhook wrote; its key with https:// goes", () => {
    const old = secret(
      `{"auths":{"https://${HOST}":{"username":"AWS","password":"old","auth":"QVdTOm9sZA=="}}}`,
      {
        [ANNOTATION.expiresAt]: '2026-11-24T00:00:00+01:00',
        [ANNOTATION.updatedAt]: '2026-11-23T12:00:00+01:00',
      },
    );
    const verdict = judge(old, old);
    expect(verdict).toMatchObject({ action: 'obtain', reason: 'not-ours' });
    if (verdict.action !== 'obtain') return;
    expect(passwordsOf(allowedSecret(old, settle(request(old, old), verdict, [token()], NOW)))).toEqual({
      [HOST]: 'new',
    });
  });
  test('the stored entries are not for the registry any more', () => {
    const old = stored();
    const elsewhere = { ...policy, registries: [{ region: 'us-east-1' }] };
    expect(decide(request(old, old), elsewhere, NOW)).toMatchObject({
      action: 'obtain',
      reason: 'registries-changed',
    });
    const otherAccount = { ...policy, registries: [{ region: REGION, host: HOST.replace('1', '2') }] };
    expect(decide(request(old, old), otherAccount, NOW)).toMatchObject({ reason: 'registries-changed' });
  });
  test.each([
    [5, 'keep', 'fresh'],
    [6, 'obtain', 'expiring'],
    [12, 'obtain', 'expired'],
  ])('stored %i hours ago: %s', (hoursAgo, action, reason) => {
    const old = stored(undefined, { hoursAgo });
    expect(judge(old, old)).toMatchObject({ action, reason });
  });
});

describe('keep', () => {
  test('nothing of ours touched: nothing to patch', () => {
    const old = stored();
    expect(judge(annotated(old, { a: 'b' }), old)).toMatchObject({ action: 'keep', patch: [] });
  });
  test('a manifest without data that replaces the Secret gets all of it back', () => {
    const old = stored('{"auths":{}}');
    const after = allowedSecret(secret(), judge(secret(), old));
    expect(passwordsOf(after)).toEqual({ [HOST]: 'old' });
    expect(after.metadata.annotations).toEqual(old.metadata.annotations);
  });
  test('credentials that the request carries for our host do not count, under whatever key', () => {
    const old = stored();
    const object = secret(
      `{"auths":{"${HOST}":{"password":"evil"},"https://${HOST}/v2/":{"password":"evil"}}}`,
    );
    expect(passwordsOf(allowedSecret(object, judge(object, old)))).toEqual({ [HOST]: 'old' });
  });
  test('annotations of ours that the request changed are restored', () => {
    const old = stored();
    const object = annotated(old, {
      [ANNOTATION.expiresAt]: '2099-01-01T00:00:00Z',
      [ANNOTATION.updatedAt]: 'x',
    });
    expect(allowedSecret(object, judge(object, old)).metadata.annotations).toEqual(old.metadata.annotations);
  });
  test("another registry's password, changed by a user, sticks", () => {
    const old = stored('{"auths":{"ghcr.io":{"password":"one"}}}');
    const object = secret('{"auths":{"ghcr.io":{"password":"two"}}}');
    expect(passwordsOf(allowedSecret(object, judge(object, old)))).toEqual({
      'ghcr.io': 'two',
      [HOST]: 'old',
    });
  });
});

test.each([
  '"index.docker.io": { "auth" :\t"eDp5" }',
  '"ghcr.io":{"auth":"\\u0061","n":1.50e+1,"x":[1, 2]}',
  '"*.example.com":{},"example.com/team":{"auth":"eDp5"}',
  `"${HOST}/only-this-repository":{"auth":"eDp5"}`,
  '"__proto__":{"auth":"eDp5"},"constructor":{}',
])('foreign entries stay byte for byte: %s', (entries) => {
  const object = secret(`{ "credHelpers": {"x" : "y"}, "auths": {${entries}} }`);
  const verdict = judge(object);
  if (verdict.action !== 'obtain') throw new Error(verdict.action);
  const created = allowedSecret(object, settle(request(object), verdict, [token()], NOW));
  const refreshed = marked(created);
  const again = judge(refreshed, created);
  if (again.action !== 'obtain') throw new Error(again.action);
  const after = allowedSecret(
    refreshed,
    settle(request(refreshed, created), again, [token(HOST, 'newer')], NOW),
  );
  for (const entry of entries.split(/(?<=\}),(?=")/)) {
    const [key, text] = entry.split(/(?<="): *(?=\{)/);
    expect(configOf(after)).toContain(`${key}:${text}`);
  }
  expect(configOf(after)).toContain('"credHelpers":{"x" : "y"}');
  expect(passwordsOf(after)[HOST]).toBe('newer');
});

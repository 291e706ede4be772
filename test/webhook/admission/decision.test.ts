// The first decision table of docs/design.md, row by row and in its order, by the Secret that would be stored.
// Here every registry has a token; decision-apply-tokens.test.ts covers the second table.
import { describe, expect, test } from 'vitest';
import { formatTime } from '../../../contract/freshness.ts';
import {
  ANNOTATION,
  EXCLUDED_NAMESPACES,
  REFRESHER_GROUP,
  SECRET_KEY,
  SECRET_LABEL,
} from '../../../contract/names.ts';
import type { Entitlement } from '../../../webhook/admission/decision.ts';
import { parseDockerConfig } from '../../../webhook/admission/docker-config.ts';
import {
  admit,
  afterwards,
  allFresh,
  annotated,
  authsOf,
  type Change,
  configText,
  edited,
  encode,
  entryOf,
  HOST,
  HOUR,
  holding,
  type Manifest,
  manifest,
  NOW,
  notesOf,
  ONE,
  OTHER_HOST,
  ofContract,
  REFRESHER,
  SECOND,
  stored,
  TWO,
  tokenFor,
  warning,
} from '../support.ts';

const REQUESTED_AT = '2026-03-01T11:59:58Z';
const EARLIER_REQUEST = '2026-03-01T05:00:00Z';
const NEW = entryOf(tokenFor(HOST));
const OLD = entryOf(tokenFor(HOST, 0, 'old'));
const SENT = { username: 'AWS', password: 'sent', auth: encode('AWS:sent') };
const FOREIGN = { auth: encode('bot:hunter2') };
const FOREIGN_CONFIG = JSON.stringify({ auths: { 'registry.example.com': FOREIGN } });

const fresh = stored();
const mixed = stored({ from: manifest(FOREIGN_CONFIG) });
const due = stored({ at: NOW - 7 * HOUR });

const requested = (secret: Manifest) => annotated(secret, { [ANNOTATION.requestedAt]: REQUESTED_AT });
const touched = (secret: Manifest) => annotated(secret, { 'example.com/owner': 'alice' });
const unlabelled = (secret: Manifest) =>
  edited(secret, ({ metadata }) => {
    metadata.labels = {};
  });
const movedTo = (secret: Manifest, namespace: string) =>
  edited(secret, ({ metadata }) => {
    metadata.namespace = namespace;
  });

/** The webhook's annotations after an injection at NOW. */
const injectedNow = {
  updatedAt: formatTime(NOW),
  expiresAt: formatTime(NOW + 12 * HOUR),
  registries: `${HOST}=${formatTime(NOW + 12 * HOUR)}`,
  fingerprint: expect.stringMatching(/^2\.[\w-]{16}$/),
};

function expectInjected(change: Change, reason: string): Manifest | undefined {
  const { first, verdict, secret } = admit(change);
  expect(first).toMatchObject({ action: 'obtain', reason });
  expect(verdict).toMatchObject({ action: 'inject', reason, warnings: [] });
  expect(authsOf(secret)[HOST]).toEqual(NEW);
  expect(notesOf(secret)).toEqual(injectedNow);
  return secret;
}

/** Expects `keep` without a token. @returns the Secret that would be stored */
function expectKept(change: Change, reason = 'fresh'): Manifest | undefined {
  const { first, secret } = admit(change);
  expect(first).toMatchObject({ action: 'keep', reason, warnings: [] });
  expect(authsOf(secret)[HOST]).toEqual(authsOf(change.oldObject)[HOST]);
  expect(notesOf(secret)).toEqual(notesOf(change.oldObject));
  return secret;
}

/** The field at fault, by the reason. */
const FIELDS: Record<string, string | undefined> = {
  'refresher-out-of-bounds': undefined,
  'wrong-type': 'type',
  immutable: 'immutable',
  'not-a-docker-config': 'data[.dockerconfigjson]',
};

function expectDenied(change: Change, code: number, reason: string, ...parts: string[]): void {
  const { first } = admit(change);
  expect(first).toMatchObject({ action: 'deny', code, reason });
  if (first.action !== 'deny') return;
  const { message, causes } = first;
  const field = FIELDS[reason];
  expect(causes).toEqual([{ reason, message, ...(field !== undefined && { field }) }]);
  for (const part of parts) expect(first).toMatchObject({ message: expect.stringContaining(part) });
}

function expectIgnored(change: Change, reason: string): void {
  const { first, secret } = admit(change);
  expect(first).toEqual({ action: 'ignore', reason, patch: [], warnings: [] });
  expect(secret).toEqual(change.object);
}

describe('kube-system, kube-public: allow unchanged', () => {
  test.each(EXCLUDED_NAMESPACES)('ignores %s', (namespace) => {
    expectIgnored({ object: movedTo(manifest(), namespace) }, 'excluded-namespace');
    expectIgnored(
      { object: movedTo(due, namespace), oldObject: movedTo(due, namespace) },
      'excluded-namespace',
    );
  });

  test.each(['kube-node-lease', 'kube-system-2', 'my-kube-public', 'default'])(
    'injects in %s',
    (namespace) => {
      expectInjected({ object: movedTo(manifest(), namespace) }, 'created');
    },
  );

  test('precedes the rows below: the refresher, a wrong type', () => {
    const object = movedTo({ ...manifest(), type: 'Opaque' }, 'kube-system');
    expectIgnored({ object, username: REFRESHER }, 'excluded-namespace');
  });
});

describe('the refresher changed anything but the request annotations: deny, 403', () => {
  const identities = [
    { who: 'identified by its user name', username: REFRESHER, groups: ['system:authenticated'] },
    {
      who: 'identified by its group',
      username: 'another',
      groups: ['system:authenticated', REFRESHER_GROUP],
    },
  ];
  const changes: { what: string; change: (secret: Manifest) => void }[] = [
    {
      what: 'the label removed',
      change: ({ metadata }) => {
        metadata.labels = {};
      },
    },
    {
      what: 'labels gone altogether',
      change: ({ metadata }) => {
        delete metadata.labels;
      },
    },
    {
      what: 'another label',
      change: ({ metadata }) => {
        metadata.labels = { ...metadata.labels, tier: 'front' };
      },
    },
    {
      what: 'the type',
      change: (secret) => {
        secret.type = 'Opaque';
      },
    },
    {
      what: 'the docker config',
      change: (secret) => {
        secret.data = { [SECRET_KEY]: encode('{}') };
      },
    },
    {
      what: 'another key of data',
      change: (secret) => {
        secret.data = { ...secret.data, more: encode('more') };
      },
    },
    {
      what: 'a key of data named __proto__',
      change: (secret) => {
        secret.data = JSON.parse(
          JSON.stringify(secret.data).replace('{', `{"__proto__":"${encode('more')}",`),
        );
      },
    },
    {
      what: 'data gone',
      change: (secret) => {
        delete secret.data;
      },
    },
    {
      what: 'immutable',
      change: (secret) => {
        secret.immutable = true;
      },
    },
    {
      what: 'finalizers',
      change: ({ metadata }) => {
        metadata.finalizers = ['example.com/hold'];
      },
    },
    {
      what: 'ownerReferences',
      change: ({ metadata }) => {
        metadata.ownerReferences = [{ apiVersion: 'v1', kind: 'Pod', name: 'p', uid: 'u' }];
      },
    },
    {
      what: 'emptied managedFields',
      change: ({ metadata }) => {
        metadata.managedFields = [];
      },
    },
    {
      what: 'removed managedFields',
      change: ({ metadata }) => {
        delete metadata.managedFields;
      },
    },
    {
      what: 'nulled managedFields',
      change: ({ metadata }) => {
        metadata.managedFields = null;
      },
    },
    {
      what: 'an unknown field',
      change: (secret) => {
        Object.assign(secret, { spec: {} });
      },
    },
    ...[
      'example.com/owner',
      'kubectl.kubernetes.io/last-applied-configuration',
      ANNOTATION.updatedAt,
      ANNOTATION.expiresAt,
      ANNOTATION.registries,
      ANNOTATION.fingerprint,
    ].map((key) => ({
      what: `the annotation ${key.split('/')[1]}`,
      change: ({ metadata }: Manifest) => {
        metadata.annotations = { ...metadata.annotations, [key]: formatTime(NOW + 10 * HOUR) };
      },
    })),
    ...[ANNOTATION.expiresAt, ANNOTATION.fingerprint].map((key) => ({
      what: `the annotation ${key.split('/')[1]} removed`,
      change: ({ metadata }: Manifest) => {
        delete metadata.annotations?.[key];
      },
    })),
    {
      what: 'all annotations removed',
      change: ({ metadata }) => {
        metadata.annotations = null;
      },
    },
  ];

  describe.each(identities)('$who', ({ username, groups }) => {
    test.each(changes)('denies a change of: $what', ({ change }) => {
      const object = edited(requested(fresh), change);
      expectDenied(
        { object, oldObject: fresh, username, groups },
        403,
        'refresher-out-of-bounds',
        'The refresher',
        ANNOTATION.requestedAt,
        ANNOTATION.force,
      );
      // This row does not apply to other users.
      const { first } = admit({ object, oldObject: fresh });
      expect(first).not.toMatchObject({ reason: 'refresher-out-of-bounds' });
    });

    test('denies a CREATE', () => {
      expectDenied({ object: manifest(), username, groups }, 403, 'refresher-out-of-bounds');
    });

    test.each([
      { what: 'a request alone', set: { [ANNOTATION.requestedAt]: REQUESTED_AT } },
      {
        what: 'a forced request alone',
        set: { [ANNOTATION.requestedAt]: REQUESTED_AT, [ANNOTATION.force]: REQUESTED_AT },
      },
    ])('injects for $what', ({ set }) => {
      const object = edited(annotated(fresh, set), ({ metadata }) => {
        metadata.managedFields = [{ manager: 'kubectl' }, { manager: 'refresher' }];
        metadata.resourceVersion = '4712';
      });
      expectInjected({ object, oldObject: fresh, username, groups }, 'requested');
    });

    test('injects for a request on an object with nulls where the stored one has nothing', () => {
      const object = edited(requested(fresh), ({ metadata }) => {
        metadata.ownerReferences = null;
        metadata.finalizers = [null];
        Object.assign(metadata.labels ?? {}, { other: null });
        Object.assign(metadata.annotations ?? {}, { other: null });
      });
      expectInjected({ object, oldObject: fresh, username, groups }, 'requested');
    });

    test('denies a key of data that is null: it would be stored', () => {
      const object = edited(requested(fresh), (copy) => {
        copy.data = { ...copy.data, other: null } as never;
      });
      expectDenied({ object, oldObject: fresh, username, groups }, 403, 'refresher-out-of-bounds');
    });

    test('injects for a request on a Secret without annotations', () => {
      const bare = manifest(FOREIGN_CONFIG);
      expectInjected({ object: requested(bare), oldObject: bare, username, groups }, 'requested');
    });

    test('allows the removal of an earlier request', () => {
      const before = annotated(fresh, {
        [ANNOTATION.requestedAt]: REQUESTED_AT,
        [ANNOTATION.force]: REQUESTED_AT,
      });
      expectKept({ object: fresh, oldObject: before, username, groups });
    });

    test('precedes the rows below: no longer labelled, being deleted, a wrong type', () => {
      const object = edited(unlabelled({ ...requested(fresh), type: 'Opaque' }), ({ metadata }) => {
        metadata.deletionTimestamp = formatTime(NOW);
      });
      expectDenied({ object, oldObject: fresh, username, groups }, 403, 'refresher-out-of-bounds');
    });
  });

  test('without a user name in the settings, only the group identifies the refresher', () => {
    const policy = { registries: ONE.registries };
    const object = requested(unlabelled(fresh));
    for (const username of [REFRESHER, '']) {
      expect(admit({ object, oldObject: fresh, username }, { policy }).first.reason).toBe('not-managed');
    }
    expect(admit({ object, oldObject: fresh, groups: [REFRESHER_GROUP] }, { policy }).first.reason).toBe(
      'refresher-out-of-bounds',
    );
  });
});

describe('no longer labelled, or being deleted: allow unchanged', () => {
  const relabelled = (secret: Manifest, labels: Record<string, string> | null | undefined) =>
    edited(secret, ({ metadata }) => {
      if (labels === undefined) delete metadata.labels;
      else metadata.labels = labels;
    });

  test.each([
    { what: 'the label removed', labels: {} },
    { what: 'no labels', labels: undefined },
    { what: 'labels null', labels: null },
    { what: 'the label false', labels: { [SECRET_LABEL.key]: 'false' } },
    { what: 'the label True', labels: { [SECRET_LABEL.key]: 'True' } },
    { what: 'only the other label', labels: { tier: 'front' } },
  ])('$what', ({ labels }) => {
    expectIgnored({ object: relabelled(requested(due), labels), oldObject: due }, 'not-managed');
    expectIgnored({ object: relabelled(manifest(), labels) }, 'not-managed');
  });

  test('ignores a Secret that is being deleted', () => {
    const object = edited(requested(due), ({ metadata }) => {
      metadata.deletionTimestamp = formatTime(NOW);
      metadata.finalizers = [];
    });
    expectIgnored({ object, oldObject: due }, 'being-deleted');
  });

  test('precedes the rows below: a wrong type, immutable, data that is not a docker config', () => {
    const odd = { ...holding(mixed, 'FAKE'), type: 'Opaque', immutable: true };
    expectIgnored({ object: unlabelled(odd), oldObject: mixed }, 'not-managed');
    const leaving = edited(odd, ({ metadata }) => {
      metadata.deletionTimestamp = formatTime(NOW);
    });
    expectIgnored({ object: leaving, oldObject: mixed }, 'being-deleted');
  });
});

describe('another type, or immutable: deny, 403', () => {
  test.each(['Opaque', 'kubernetes.io/dockercfg', 'kubernetes.io/tls', 'kubernetes.io/DockerConfigJSON'])(
    'denies the type %s',
    (type) => {
      const object = { ...manifest(), type };
      expectDenied({ object }, 403, 'wrong-type', type, 'kubernetes.io/dockerconfigjson', SECRET_LABEL.key);
      // Also if the label is added later.
      expectDenied({ object, oldObject: unlabelled(object) }, 403, 'wrong-type');
    },
  );

  test('treats a missing type as Opaque', () => {
    const { type: _, ...object } = manifest();
    expectDenied({ object }, 403, 'wrong-type', 'Opaque');
  });

  test('denies a CREATE of an immutable Secret', () => {
    const object = { ...manifest(), immutable: true };
    expectDenied({ object }, 403, 'immutable', 'immutable: true', SECRET_LABEL.key);
  });

  test('denies an UPDATE of an immutable Secret, or to an immutable one', () => {
    expectDenied({ object: { ...fresh, immutable: true }, oldObject: fresh }, 403, 'immutable');
    const locked = { ...fresh, immutable: true };
    expectDenied({ object: touched(locked), oldObject: unlabelled(locked) }, 403, 'immutable');
    // The API server would refuse this as well; the webhook's message says what to do.
    expectDenied({ object: fresh, oldObject: locked }, 403, 'immutable');
  });

  test('accepts immutable: false', () => {
    expectInjected({ object: { ...manifest(), immutable: false } }, 'created');
  });

  test('precedes the rows below: data that is not a docker config, a request', () => {
    const object = { ...requested(holding(mixed, 'FAKE')), immutable: true };
    expectDenied({ object, oldObject: mixed }, 403, 'immutable');
    expectDenied({ object: { ...object, type: 'Opaque' }, oldObject: mixed }, 403, 'wrong-type');
  });
});

describe('data that is not a docker config, in place of stored entries of other registries: deny, 422', () => {
  const notConfigs = [
    'FAKE',
    '{"auths":',
    '[]',
    'null',
    '"{}"',
    '7',
    '{"auths":[]}',
    '{"auths":"x"}',
    '{} {}',
  ];

  test.each(notConfigs)('denies %s', (text) => {
    expectDenied(
      { object: holding(mixed, text), oldObject: mixed },
      422,
      'not-a-docker-config',
      SECRET_KEY,
      'replace the stored entries',
    );
    // Also without owned entries, and for a request.
    const foreign = manifest(FOREIGN_CONFIG);
    expectDenied({ object: holding(foreign, text), oldObject: foreign }, 422, 'not-a-docker-config');
    expectDenied({ object: requested(holding(mixed, text)), oldObject: mixed }, 422, 'not-a-docker-config');
  });

  test.each([
    { what: 'a key with a path', text: `{"auths":{"${HOST}/team":{"auth":"eDp5"}}}` },
    { what: 'a glob key', text: '{"auths":{"*.dkr.ecr.eu-central-1.amazonaws.com":{"auth":"eDp5"}}}' },
    { what: 'another of ECR’s hosts', text: `{"auths":{"${OTHER_HOST}":{"auth":"eDp5"}}}` },
    { what: 'credHelpers', text: '{"credHelpers":{"registry.example.com":"x"}}' },
    { what: 'a key __proto__', text: '{"auths":{"__proto__":{"auth":"eDp5"}}}' },
  ])('protects stored content: $what', ({ text }) => {
    const before = stored({ from: manifest(text) });
    expectDenied({ object: holding(before, 'FAKE'), oldObject: before }, 422, 'not-a-docker-config');
  });

  test('accepts it if all stored entries are owned, or written by CentML/ecr-anywhere', () => {
    const secret = expectKept({ object: holding(fresh, 'FAKE'), oldObject: fresh });
    expect(authsOf(secret)).toEqual({ [HOST]: OLD });
    const original = manifest(JSON.stringify({ auths: { [`https://${HOST}`]: SENT } }));
    expectInjected({ object: holding(original, 'FAKE'), oldObject: original }, 'not-ours');
  });

  test('accepts it if the stored data is not a docker config either', () => {
    const junk = manifest('FAKE');
    expectInjected({ object: junk, oldObject: junk }, 'not-ours');
    expectInjected({ object: holding(junk, 'OTHER'), oldObject: junk }, 'not-ours');
  });

  test('accepts a docker config without the foreign entries: users may remove them', () => {
    const secret = expectKept({ object: holding(mixed, '{"auths":{}}'), oldObject: mixed });
    expect(authsOf(secret)).toEqual({ [HOST]: OLD });
  });
});

describe('CREATE: inject', () => {
  const creations: { what: string; object: Manifest; auths: Record<string, unknown> }[] = [
    { what: 'without data', object: manifest(), auths: { [HOST]: NEW } },
    { what: 'data null', object: { ...manifest(), data: null }, auths: { [HOST]: NEW } },
    { what: 'empty data', object: { ...manifest(), data: {} }, auths: { [HOST]: NEW } },
    { what: 'an empty document', object: manifest(''), auths: { [HOST]: NEW } },
    { what: 'FAKE, as the original’s users write it', object: manifest('FAKE'), auths: { [HOST]: NEW } },
    { what: '{}', object: manifest('{}'), auths: { [HOST]: NEW } },
    { what: 'auths null', object: manifest('{"auths":null}'), auths: { [HOST]: NEW } },
    {
      what: 'foreign entries',
      object: manifest(FOREIGN_CONFIG),
      auths: { 'registry.example.com': FOREIGN, [HOST]: NEW },
    },
    ...[
      HOST,
      `https://${HOST}`,
      `http://${HOST}`,
      `https://${HOST}/`,
      `https://${HOST}/v1/`,
      `${HOST}/v2`,
      HOST.toUpperCase(),
    ].map((key) => ({
      what: `our host as ${key}`,
      object: manifest(JSON.stringify({ auths: { [key]: SENT, 'registry.example.com': FOREIGN } })),
      auths: { 'registry.example.com': FOREIGN, [HOST]: NEW },
    })),
    {
      what: 'our host with a path, which is another entry',
      object: manifest(JSON.stringify({ auths: { [`${HOST}/team`]: SENT } })),
      auths: { [`${HOST}/team`]: SENT, [HOST]: NEW },
    },
  ];

  test.each(creations)('injects: $what', ({ object, auths }) => {
    const secret = expectInjected({ object }, 'created');
    expect(authsOf(secret)).toEqual(auths);
    expect(secret?.metadata.labels).toEqual(object.metadata.labels);
  });

  test('keeps other keys of data and other annotations', () => {
    const object = touched({ ...manifest(), data: { 'a~b/c': encode('x') } });
    const secret = expectInjected({ object }, 'created');
    expect(secret?.data).toEqual({ 'a~b/c': encode('x'), [SECRET_KEY]: expect.any(String) });
    expect(secret?.metadata.annotations).toMatchObject({ 'example.com/owner': 'alice' });
  });

  test('injects whatever annotations were copied from another Secret', () => {
    const { resourceVersion: _, uid: __, ...metadata } = fresh.metadata;
    expectInjected({ object: { ...fresh, metadata } }, 'created');
  });

  test('injects for every registry of the policy, with the soonest expiry in expires_at', () => {
    const [here, there] = TWO.registries;
    if (!here || !there) throw new Error('two registries are needed');
    const { secret } = admit(
      { object: manifest() },
      {
        policy: TWO,
        outcomes: [
          { registry: here, token: tokenFor(HOST, NOW + 12 * HOUR) },
          { registry: there, token: tokenFor(OTHER_HOST, NOW + 11 * HOUR) },
        ],
      },
    );
    expect(authsOf(secret)).toEqual({ [HOST]: NEW, [OTHER_HOST]: entryOf(tokenFor(OTHER_HOST)) });
    expect(notesOf(secret)).toMatchObject({
      expiresAt: formatTime(NOW + 11 * HOUR),
      registries: `${HOST}=${formatTime(NOW + 12 * HOUR)},${OTHER_HOST}=${formatTime(NOW + 11 * HOUR)}`,
    });
  });
});

describe('a request: inject', () => {
  const before = annotated(fresh, { [ANNOTATION.requestedAt]: EARLIER_REQUEST });

  test.each([
    { what: 'the first request', oldObject: fresh, mark: REQUESTED_AT },
    { what: 'a later time', oldObject: before, mark: REQUESTED_AT },
    { what: 'an earlier time', oldObject: before, mark: '2020-01-01T00:00:00Z' },
    { what: 'not a time', oldObject: before, mark: 'now, please' },
    { what: 'an empty value', oldObject: before, mark: '' },
  ])('injects if marked_for_update_at changes: $what', ({ oldObject, mark }) => {
    const object = annotated(oldObject, { [ANNOTATION.requestedAt]: mark });
    const secret = expectInjected({ object, oldObject }, 'requested');
    expect(secret?.metadata.annotations?.[ANNOTATION.requestedAt]).toBe(mark);
  });

  test('keeps if marked_for_update_at is the stored one, or removed', () => {
    expectKept({ object: before, oldObject: before });
    expectKept({ object: touched(before), oldObject: before });
    expectKept({ object: fresh, oldObject: before });
  });

  test('keeps if only updated_at, expires_at or force changes', () => {
    for (const key of [ANNOTATION.updatedAt, ANNOTATION.expiresAt, ANNOTATION.force]) {
      expectKept({ object: annotated(before, { [key]: REQUESTED_AT }), oldObject: before });
    }
  });

  test.each([
    { what: 'equal to marked_for_update_at', mark: REQUESTED_AT, force: REQUESTED_AT, forced: true },
    { what: 'left over from an earlier request', mark: REQUESTED_AT, force: EARLIER_REQUEST, forced: false },
    { what: 'true', mark: REQUESTED_AT, force: 'true', forced: false },
    { what: 'absent', mark: REQUESTED_AT, force: undefined, forced: false },
  ])('forces only if force equals marked_for_update_at: $what', ({ mark, force, forced }) => {
    const object = annotated(before, { [ANNOTATION.requestedAt]: mark, [ANNOTATION.force]: force });
    const { first } = admit({ object, oldObject: before });
    expect(first).toMatchObject({ action: 'obtain', reason: 'requested' });
    expect('force' in first ? first.force : undefined).toBe(forced ? mark : undefined);
    const created = admit({ object: annotated(manifest(), object.metadata.annotations ?? {}) }).first;
    expect('force' in created ? created.force : undefined).toBe(forced ? mark : undefined);
  });

  test('force has no effect if marked_for_update_at is the stored one', () => {
    const forced = annotated(before, { [ANNOTATION.force]: EARLIER_REQUEST });
    expectKept({ object: forced, oldObject: before });
    const dueForced = annotated(due, {
      [ANNOTATION.requestedAt]: REQUESTED_AT,
      [ANNOTATION.force]: REQUESTED_AT,
    });
    const { first } = admit({ object: dueForced, oldObject: dueForced });
    expect(first).toMatchObject({ action: 'obtain', reason: 'expiring' });
    expect(first).not.toHaveProperty('force');
  });

  test('precedes the row below: no owned entries', () => {
    const foreign = manifest(FOREIGN_CONFIG);
    expectInjected({ object: requested(foreign), oldObject: foreign }, 'requested');
  });
});

describe('no owned entries: inject', () => {
  const future = formatTime(NOW + 11 * HOUR);
  const junk = annotated(manifest(JSON.stringify({ auths: { [HOST]: SENT } })), {
    [ANNOTATION.expiresAt]: future,
    [ANNOTATION.updatedAt]: formatTime(NOW - HOUR),
  });
  const anotherWrote = stored({ outcomes: allFresh(ONE, NOW - HOUR, 'another') });

  const notOwned: { what: string; oldObject: Manifest }[] = [
    { what: 'hand-made, with a future expires_at', oldObject: junk },
    {
      what: 'hand-made, with a registries annotation, no fingerprint',
      oldObject: annotated(junk, { [ANNOTATION.registries]: `${HOST}=${future}` }),
    },
    {
      what: 'hand-made, with annotations copied from another Secret: the fingerprint is wrong',
      oldObject: annotated(junk, fresh.metadata.annotations ?? {}),
    },
    ...[undefined, '1', '3'].flatMap((contract) => [
      {
        what: `hand-made, with annotations of contract ${contract ?? '1, unnumbered'}: the fingerprint is wrong`,
        oldObject: annotated(junk, ofContract(contract, fresh).metadata.annotations ?? {}),
      },
      {
        what: `of contract ${contract ?? '1, unnumbered'}, the data changed without the webhook`,
        oldObject: holding(ofContract(contract, fresh), configText(junk)),
      },
    ]),
    ...['v2', '-2', '2.2', ''].map((prefix) => ({
      what: `the right hash after "${prefix}." which is not the number of a contract`,
      oldObject: ofContract(prefix, fresh),
    })),
    { what: 'a number and no hash', oldObject: annotated(fresh, { [ANNOTATION.fingerprint]: '2.' }) },
    { what: 'an empty fingerprint', oldObject: annotated(fresh, { [ANNOTATION.fingerprint]: '' }) },
    {
      what: 'annotations over entries that the webhook wrote elsewhere',
      oldObject: { ...anotherWrote, metadata: fresh.metadata },
    },
    { what: 'owned until the data changed without the webhook', oldObject: holding(fresh, configText(junk)) },
    {
      what: 'owned until the expiry in registries changed',
      oldObject: annotated(fresh, { [ANNOTATION.registries]: `${HOST}=${future.replace('T2', 'T1')}` }),
    },
    { what: 'owned, without data', oldObject: { ...fresh, data: {} } },
    { what: 'owned, with FAKE as data', oldObject: holding(fresh, 'FAKE') },
    { what: 'the fingerprint missing', oldObject: annotated(fresh, { [ANNOTATION.fingerprint]: undefined }) },
    { what: 'registries missing', oldObject: annotated(fresh, { [ANNOTATION.registries]: undefined }) },
    { what: 'registries empty', oldObject: annotated(fresh, { [ANNOTATION.registries]: '' }) },
    { what: 'registries unreadable', oldObject: annotated(fresh, { [ANNOTATION.registries]: HOST }) },
    {
      what: 'the key no longer bare',
      oldObject: holding(fresh, configText(fresh).replace(HOST, `https://${HOST}`)),
    },
    { what: 'nothing at all', oldObject: manifest() },
  ];

  test.each(notOwned)('injects: $what', ({ oldObject }) => {
    const secret = expectInjected({ object: touched(oldObject), oldObject }, 'not-ours');
    expect(Object.keys(authsOf(secret))).toEqual([HOST]);
  });

  test.each([
    { what: 'hand-made junk with a future expires_at', oldObject: junk },
    { what: 'what the webhook wrote before the label was removed', oldObject: fresh },
  ])('injects if the label is added: $what', ({ oldObject }) => {
    expectInjected({ object: oldObject, oldObject: unlabelled(oldObject) }, 'not-ours');
  });

  test.each([
    { what: 'an offset', expiresAt: '2026-03-01T23:00:00+01:00' },
    { what: 'Z', expiresAt: '2026-03-01T22:00:00Z' },
    { what: 'nanoseconds and an offset', expiresAt: '2026-03-01T22:00:00.123456789+00:00' },
  ])('injects on any update for entries of CentML/ecr-anywhere, expires_at with $what', ({ expiresAt }) => {
    const original = annotated(manifest(JSON.stringify({ auths: { [`https://${HOST}`]: SENT } })), {
      [ANNOTATION.expiresAt]: expiresAt,
      [ANNOTATION.updatedAt]: '2026-03-01T11:00:00+01:00',
    });
    for (const object of [original, touched(original), holding(original, 'FAKE')]) {
      const secret = expectInjected({ object, oldObject: original }, 'not-ours');
      expect(authsOf(secret)).toEqual({ [HOST]: NEW });
    }
    expect(
      authsOf(expectInjected({ object: requested(original), oldObject: original }, 'requested')),
    ).toEqual({
      [HOST]: NEW,
    });
  });
});

describe('the owned entries are not those of the selected registries: inject', () => {
  test('adds the entry of an added registry', () => {
    const { verdict, secret } = admit({ object: touched(fresh), oldObject: fresh }, { policy: TWO });
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed', warnings: [] });
    // The fresh entry stays.
    expect(authsOf(secret)).toEqual({ [HOST]: OLD, [OTHER_HOST]: entryOf(tokenFor(OTHER_HOST)) });
  });

  test('replaces the other entry too if it is due', () => {
    const { secret } = admit({ object: touched(due), oldObject: due }, { policy: TWO });
    expect(authsOf(secret)).toEqual({ [HOST]: NEW, [OTHER_HOST]: entryOf(tokenFor(OTHER_HOST)) });
  });

  test('removes the entry of a removed registry', () => {
    const both = stored({ policy: TWO, from: manifest(FOREIGN_CONFIG) });
    const { verdict, secret } = admit({ object: touched(both), oldObject: both });
    expect(verdict).toMatchObject({
      action: 'inject',
      reason: 'registries-changed',
      warnings: [warning(OTHER_HOST, 'removed')],
    });
    expect(authsOf(secret)).toEqual({ 'registry.example.com': FOREIGN, [HOST]: OLD });
    expect(notesOf(secret)).toEqual({ ...notesOf(stored()), updatedAt: formatTime(NOW) });
  });

  test('replaces the entry if the registry is another one', () => {
    const elsewhere = stored({ policy: { registries: TWO.registries.slice(1) } });
    const { verdict, secret } = admit({ object: touched(elsewhere), oldObject: elsewhere });
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(authsOf(secret)).toEqual({ [HOST]: NEW });
  });

  test('keeps an entry that the user sends for a removed registry', () => {
    const both = stored({ policy: TWO });
    const mine = holding(both, JSON.stringify({ auths: { [OTHER_HOST]: FOREIGN } }));
    const { verdict, secret } = admit({ object: mine, oldObject: both });
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(authsOf(secret)).toEqual({ [OTHER_HOST]: FOREIGN, [HOST]: OLD });
  });

  test('replaces the entry if the account is another one', () => {
    const host = HOST.replace('123456789012', '210987654321');
    const { verdict, secret } = admit(
      { object: touched(fresh), oldObject: fresh },
      { policy: { registries: [{ source: { service: 'ecr', region: 'eu-central-1' }, host }] } },
    );
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(authsOf(secret)).toEqual({ [host]: entryOf(tokenFor(host)) });
  });

  test('matches no entry to a registry whose host is not known', () => {
    for (const region of ['eu-central-1', 'us-east-1']) {
      const policy: Entitlement = { registries: [{ source: { service: 'ecr', region } }] };
      expect(admit({ object: touched(fresh), oldObject: fresh }, { policy }).first).toMatchObject({
        reason: 'registries-changed',
      });
    }
  });
});

describe('the owned entries are due: inject', () => {
  const at = (ahead: number) => stored({ at: NOW + ahead - 12 * HOUR });

  test.each([
    { what: 'expires in six hours and a second', oldObject: at(6 * HOUR + SECOND), reason: undefined },
    { what: 'expires in six hours', oldObject: at(6 * HOUR), reason: 'expiring' },
    { what: 'expires in a second', oldObject: at(SECOND), reason: 'expiring' },
    { what: 'expires now', oldObject: at(0), reason: 'expired' },
    { what: 'expired', oldObject: at(-48 * HOUR), reason: 'expired' },
    {
      what: 'expires in more than a token can live',
      oldObject: at(13 * HOUR + SECOND),
      reason: 'expiry-implausible',
    },
  ])('judges an entry that $what', ({ oldObject, reason }) => {
    const change = { object: touched(oldObject), oldObject };
    if (reason === undefined) expectKept(change);
    else expectInjected(change, reason);
    // The stored entries count, not what the request claims.
    const claimed = annotated(oldObject, { [ANNOTATION.expiresAt]: formatTime(NOW + 11 * HOUR) });
    if (reason !== undefined) expectInjected({ object: claimed, oldObject }, reason);
  });

  test.each([
    ['missing', undefined],
    ['unreadable', '2026-03-01'],
    ['implausible', '2036-03-01T12:00:00Z'],
    ['sooner', formatTime(NOW - HOUR)],
    ['later', formatTime(NOW + 12 * HOUR)],
  ])('judges by the entries, and corrects an expires_at that is %s', (_, expiresAt) => {
    const changed = annotated(fresh, { [ANNOTATION.expiresAt]: expiresAt });
    const { verdict, secret } = admit({ object: touched(changed), oldObject: changed });
    expect(verdict).toMatchObject({ action: 'keep', reason: 'fresh' });
    expect(secret).toEqual(touched(fresh));

    const hidden = annotated(at(-SECOND), { [ANNOTATION.expiresAt]: expiresAt });
    expectInjected({ object: touched(hidden), oldObject: hidden }, 'expired');
  });
});

describe('otherwise: keep the owned entries', () => {
  const restored: { what: string; object: Manifest }[] = [
    {
      what: 'annotations dropped',
      object: edited(fresh, ({ metadata }) => {
        delete metadata.annotations;
      }),
    },
    {
      what: 'annotations null',
      object: edited(fresh, ({ metadata }) => {
        metadata.annotations = null;
      }),
    },
    { what: 'one annotation dropped', object: annotated(fresh, { [ANNOTATION.fingerprint]: undefined }) },
    {
      what: 'annotations invented',
      object: annotated(fresh, {
        [ANNOTATION.expiresAt]: formatTime(NOW + 11.5 * HOUR),
        [ANNOTATION.registries]: 'registry.example.com=2026-03-01T23:00:00Z',
        [ANNOTATION.fingerprint]: '2.AAAAAAAAAAAAAAAA',
        [ANNOTATION.updatedAt]: formatTime(NOW + HOUR),
      }),
    },
    {
      what: 'data dropped',
      object: edited(fresh, (copy) => {
        delete copy.data;
      }),
    },
    { what: 'data null', object: { ...fresh, data: null } },
    { what: 'data emptied', object: { ...fresh, data: {} } },
    { what: 'an empty document', object: holding(fresh, '') },
    { what: 'FAKE', object: holding(fresh, 'FAKE') },
    { what: 'the owned entry dropped', object: holding(fresh, '{"auths":{}}') },
    { what: 'the owned entry null', object: holding(fresh, `{"auths":{"${HOST}":null}}`) },
    ...[HOST, `https://${HOST}`, `https://${HOST}/v2/`, HOST.toUpperCase()].map((key) => ({
      what: `other credentials for ${key}`,
      object: holding(fresh, JSON.stringify({ auths: { [key]: SENT } })),
    })),
    {
      what: 'other credentials beside the owned entry',
      object: holding(fresh, JSON.stringify({ auths: { [`https://${HOST}`]: SENT, [HOST]: OLD } })),
    },
    {
      what: 'the owned entry twice, other credentials last',
      object: holding(
        fresh,
        `{"auths":{"${HOST}":${JSON.stringify(OLD)},"${HOST}":${JSON.stringify(SENT)}}}`,
      ),
    },
    {
      what: 'the owned entry with another field',
      object: holding(fresh, JSON.stringify({ auths: { [HOST]: { ...OLD, identitytoken: 'x' } } })),
    },
  ];

  test.each(restored)('restores them: $what', ({ object }) => {
    const secret = expectKept({ object, oldObject: fresh });
    expect(authsOf(secret)).toEqual({ [HOST]: OLD });
    expect(parseDockerConfig(configText(secret))?.auths.get(HOST)).toEqual(OLD);
  });

  test('allows every other change', () => {
    const object = edited(touched(mixed), (copy) => {
      copy.metadata.labels = { ...copy.metadata.labels, tier: 'front' };
      copy.metadata.finalizers = ['example.com/hold'];
      copy.data = { ...copy.data, more: encode('more') };
    });
    const { first, secret } = admit({ object, oldObject: mixed });
    expect(first).toEqual({ action: 'keep', reason: 'fresh', patch: [], warnings: [] });
    expect(secret).toEqual(object);
  });

  test('takes foreign entries from the request: rotated, added, removed', () => {
    const rotated = { auth: encode('bot:hunter3') };
    const auths = { 'registry.example.com': rotated, 'ghcr.io': FOREIGN, [HOST]: SENT };
    const secret = expectKept({ object: holding(mixed, JSON.stringify({ auths })), oldObject: mixed });
    expect(authsOf(secret)).toEqual({ 'registry.example.com': rotated, 'ghcr.io': FOREIGN, [HOST]: OLD });
    const without = expectKept({ object: holding(mixed, configText(fresh)), oldObject: mixed });
    expect(authsOf(without)).toEqual({ [HOST]: OLD });
  });

  test('has an empty patch if nothing changed', () => {
    for (const secret of [fresh, mixed]) {
      expect(admit({ object: secret, oldObject: secret }).first).toEqual({
        action: 'keep',
        reason: 'fresh',
        patch: [],
        warnings: [],
      });
    }
  });

  test('keeps the text of a document with another layout', () => {
    const object = holding(fresh, JSON.stringify(JSON.parse(configText(fresh)), null, 2));
    const secret = expectKept({ object, oldObject: fresh });
    expect(secret).toEqual(object);
  });
});

// After an upgrade or a downgrade, the webhook meets Secrets that another contract version wrote.
describe.each([
  { what: '1, which had no number', number: undefined },
  { what: '1, numbered', number: '1' },
  { what: '3, which is not known here', number: '3' },
])('entries written by contract $what', ({ number }) => {
  const before = ofContract(number, mixed);

  test('are kept without a token or a patch if they are fresh and untouched', () => {
    for (const object of [before, touched(before)]) {
      const { first, secret } = admit({ object, oldObject: before });
      expect(first).toEqual({ action: 'keep', reason: 'fresh', patch: [], warnings: [] });
      expect(secret).toEqual(object);
    }
  });

  test('are restored without a token if dropped, as this contract writes them', () => {
    for (const object of [
      holding(before, FOREIGN_CONFIG),
      edited(before, ({ metadata }) => {
        delete metadata.annotations;
      }),
      annotated(before, { [ANNOTATION.fingerprint]: undefined }),
    ]) {
      const { first, secret } = admit({ object, oldObject: before });
      expect(first).toMatchObject({ action: 'keep', reason: 'fresh', warnings: [] });
      expect(authsOf(secret)).toEqual(authsOf(mixed));
      expect(notesOf(secret)).toEqual(notesOf(mixed));
    }
  });

  test('are replaced if requested or due, as this contract writes them', () => {
    expectInjected({ object: requested(before), oldObject: before }, 'requested');
    const old = ofContract(number, due);
    expectInjected({ object: touched(old), oldObject: old }, 'expiring');
  });

  test('are owned: one is removed with its entitlement, the other needs no token', () => {
    const both = ofContract(number, stored({ policy: TWO }));
    const { first, secret } = admit({ object: touched(both), oldObject: both });
    expect(first).toMatchObject({ action: 'obtain', reason: 'registries-changed', registries: [] });
    expect(authsOf(secret)).toEqual({ [HOST]: OLD });
    expect(notesOf(secret).fingerprint).toBe(notesOf(stored()).fingerprint);
  });

  test('are corrected if a client sends them over what this contract wrote', () => {
    const secret = expectKept({ object: before, oldObject: mixed });
    expect(secret).toEqual(mixed);
  });
});

describe('foreign entries stay byte for byte', () => {
  const members: { what: string; member: string }[] = [
    { what: 'odd whitespace', member: '"ghcr.io" :\t{ "auth"\r\n  :  "eDp5" ,"email":  ""}' },
    {
      what: '\\u escapes',
      member: '"ghcr.io":{"auth":"\\u0065Dp5","email":"\\u2028\\/\\ud83d\\ude00\\ud83d"}',
    },
    {
      what: 'U+2028 and more as they are',
      member: '"ghcr.io":{"auth":"eDp5","email":"\u2028\u00e9😀\ufeff"}',
    },
    { what: 'numbers', member: '"ghcr.io":{"n":[1.0,1e2,-0,1E+400,12345678901234567890,0.10]}' },
    { what: 'equal names inside', member: '"ghcr.io":{"auth":"eDp5","auth":"eDp6"}' },
    { what: 'braces in strings', member: '"ghcr.io":{"auth":"}\\"]{,:","x":"//","y":"/*"}' },
    { what: 'deep ones', member: `"ghcr.io":${'['.repeat(200)}${']'.repeat(200)}` },
    { what: 'a key __proto__', member: '"__proto__":{"auth":"eDp5"}' },
    { what: 'a key constructor', member: '"constructor":{"__proto__":{"auth":"eDp5"}}' },
    { what: 'numeric keys', member: '"10":{"auth":"eDp5"},"9":{"auth":"eDp6"}' },
    { what: 'an empty key', member: '"":{"auth":"eDp5"}' },
    { what: 'glob keys', member: '"*.dkr.ecr.eu-central-1.amazonaws.com":{"auth":"eDp5"}' },
    { what: 'a key with a path', member: `"${HOST}/team":{"auth":"eDp5"},"https://${HOST}/v2/team":{}` },
    { what: 'a key with a port', member: `"${HOST}:443":{"auth":"eDp5"}` },
    { what: 'Docker Hub’s', member: '"https://index.docker.io/v1/":{"auth":"eDp5"}' },
    { what: 'entries that are no objects', member: '"a.example":null,"b.example":"x","c.example":[1]' },
  ];
  const expectMember = (secret: Manifest | undefined, member: string) => {
    // Only the space between key and value may change.
    const value = member.replace(/^("[^"]*")\s*:\s*/, '$1:');
    expect(configText(secret)).toContain(value);
    expect(authsOf(secret)[HOST]).toBeDefined();
  };

  test.each(members)('on every write: $what', ({ member }) => {
    const text = `{"auths":{${member}}}`;
    const created = expectInjected({ object: manifest(text) }, 'created');
    expectMember(created, member);

    const before = stored({ from: manifest(text), at: NOW - 7 * HOUR });
    const refreshed = expectInjected({ object: requested(before), oldObject: before }, 'requested');
    expectMember(refreshed, member);

    const kept = stored({ from: manifest(text) });
    expectMember(expectKept({ object: holding(kept, text), oldObject: kept }), member);
    const { auths } = JSON.parse(text);
    expect(Object.keys(authsOf(refreshed)).sort()).toEqual([...Object.keys(auths), HOST].sort());
  });

  test.each([
    {
      what: 'credHelpers',
      text: '{"credHelpers":{"ghcr.io": "x"},"auths":{}}',
      more: '"credHelpers":{"ghcr.io": "x"}',
    },
    { what: 'without auths', text: '{"HttpHeaders":{ "A":1.0 }}', more: '"HttpHeaders":{ "A":1.0 }' },
    {
      what: '__proto__ at the top',
      text: '{"__proto__":{"auths":{}},"auths":{}}',
      more: '"__proto__":{"auths":{}}',
    },
    { what: 'auths spelt otherwise', text: '{"Auths":{"a":1.0}}', more: '"Auths":{"a":1.0}' },
  ])('and so do other members of the document: $what', ({ text, more }) => {
    const created = expectInjected({ object: manifest(text) }, 'created');
    expect(configText(created)).toContain(more);
    const before = stored({ from: manifest(text), at: NOW - 7 * HOUR });
    expect(
      configText(expectInjected({ object: requested(before), oldObject: before }, 'requested')),
    ).toContain(more);
  });
});

describe('the same manifest sent again', () => {
  const manifests = [
    { what: 'without data', sent: manifest() },
    { what: 'FAKE', sent: manifest('FAKE') },
    { what: 'foreign entries', sent: manifest(FOREIGN_CONFIG) },
    {
      what: 'our host as https://',
      sent: manifest(JSON.stringify({ auths: { [`https://${HOST}`]: SENT } })),
    },
    { what: 'with an old mark', sent: requested(manifest(FOREIGN_CONFIG)) },
    {
      what: 'with a forced mark',
      sent: annotated(manifest(), {
        [ANNOTATION.requestedAt]: REQUESTED_AT,
        [ANNOTATION.force]: REQUESTED_AT,
      }),
    },
  ];

  test.each(manifests)('changes nothing if it is the stored object: $what', ({ sent }) => {
    const before = afterwards({ object: sent });
    const { first } = admit({ object: before, oldObject: before });
    expect(first).toEqual({ action: 'keep', reason: 'fresh', patch: [], warnings: [] });
  });

  test.each(manifests)('changes nothing if applied over the stored object: $what', ({ sent }) => {
    const before = afterwards({ object: sent });
    const object = edited(annotated(before, sent.metadata.annotations ?? {}), (copy) => {
      copy.data = { ...copy.data, ...sent.data };
    });
    const again = expectKept({ object, oldObject: before });
    expect(again).toEqual(before);
  });

  test.each(manifests)('keeps the entries if it replaces the stored object: $what', ({ sent }) => {
    const before = afterwards({ object: sent });
    const again = expectKept({ object: sent, oldObject: before });
    expect(authsOf(again)).toEqual(authsOf(before));
    expect(notesOf(again)).toEqual(notesOf(before));
    // And the next time.
    if (!again) throw new Error('denied');
    expect(expectKept({ object: sent, oldObject: again })).toEqual(again);
  });
});

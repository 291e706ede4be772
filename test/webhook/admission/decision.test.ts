// The first decision table of docs/design.md, row by row and in its order, by the Secret that would be stored.
// Where the answer is "inject", every registry has a token here; what else may come of it is in applyTokens.test.ts.
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

const MARK = '2026-03-01T11:59:58Z';
const EARLIER_MARK = '2026-03-01T05:00:00Z';
const NEW = entryOf(tokenFor(HOST));
const OLD = entryOf(tokenFor(HOST, 0, 'old'));
const SENT = { username: 'AWS', password: 'sent', auth: encode('AWS:sent') };
const FOREIGN = { auth: encode('bot:hunter2') };
const FOREIGN_CONFIG = JSON.stringify({ auths: { 'registry.example.com': FOREIGN } });

const fresh = stored();
const mixed = stored({ from: manifest(FOREIGN_CONFIG) });
const due = stored({ at: NOW - 7 * HOUR });

const marked = (secret: Manifest) => annotated(secret, { [ANNOTATION.requestedAt]: MARK });
const touched = (secret: Manifest) => annotated(secret, { 'example.com/owner': 'alice' });
const unlabelled = (secret: Manifest) =>
  edited(secret, ({ metadata }) => {
    metadata.labels = {};
  });
const movedTo = (secret: Manifest, namespace: string) =>
  edited(secret, ({ metadata }) => {
    metadata.namespace = namespace;
  });

/** What the Secret says of itself where `host` was injected now. */
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

/** Kept, without asking for a token; returns what would be stored. */
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

function expectDenied(change: Change, code: number, reason: string, ...said: string[]): void {
  const { first } = admit(change);
  expect(first).toMatchObject({ action: 'deny', code, reason });
  if (first.action !== 'deny') return;
  const { message, causes } = first;
  const field = FIELDS[reason];
  expect(causes).toEqual([{ reason, message, ...(field !== undefined && { field }) }]);
  for (const words of said) expect(first).toMatchObject({ message: expect.stringContaining(words) });
}

function expectIgnored(change: Change, reason: string): void {
  const { first, secret } = admit(change);
  expect(first).toEqual({ action: 'ignore', reason, patch: [], warnings: [] });
  expect(secret).toEqual(change.object);
}

describe('kube-system, kube-public: allow unchanged', () => {
  test.each(EXCLUDED_NAMESPACES)('%s', (namespace) => {
    expectIgnored({ object: movedTo(manifest(), namespace) }, 'excluded-namespace');
    expectIgnored(
      { object: movedTo(due, namespace), oldObject: movedTo(due, namespace) },
      'excluded-namespace',
    );
  });

  test.each(['kube-node-lease', 'kube-system-2', 'my-kube-public', 'default'])('not %s', (namespace) => {
    expectInjected({ object: movedTo(manifest(), namespace) }, 'created');
  });

  test('before the rows below: the refresher there, a wrong type there', () => {
    const object = movedTo({ ...manifest(), type: 'Opaque' }, 'kube-system');
    expectIgnored({ object, username: REFRESHER }, 'excluded-namespace');
  });
});

describe('the refresher changed anything but the request annotations: deny, 403', () => {
  const identities = [
    { who: 'by its name', username: REFRESHER, groups: ['system:authenticated'] },
    { who: 'by its group', username: 'somebody', groups: ['system:authenticated', REFRESHER_GROUP] },
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
      what: 'a field nobody knows yet',
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
    test.each(changes)('$what', ({ change }) => {
      const object = edited(marked(fresh), change);
      expectDenied(
        { object, oldObject: fresh, username, groups },
        403,
        'refresher-out-of-bounds',
        'The refresher',
        ANNOTATION.requestedAt,
        ANNOTATION.force,
      );
      // Nobody else is bound by this row.
      const { first } = admit({ object, oldObject: fresh });
      expect(first).not.toMatchObject({ reason: 'refresher-out-of-bounds' });
    });

    test('CREATE', () => {
      expectDenied({ object: manifest(), username, groups }, 403, 'refresher-out-of-bounds');
    });

    test.each([
      { what: 'a mark', set: { [ANNOTATION.requestedAt]: MARK } },
      { what: 'a mark and force', set: { [ANNOTATION.requestedAt]: MARK, [ANNOTATION.force]: MARK } },
    ])('$what alone is served', ({ set }) => {
      const object = edited(annotated(fresh, set), ({ metadata }) => {
        metadata.managedFields = [{ manager: 'kubectl' }, { manager: 'refresher' }];
        metadata.resourceVersion = '4712';
      });
      expectInjected({ object, oldObject: fresh, username, groups }, 'requested');
    });

    test('a mark on a Secret without any annotation is served', () => {
      const bare = manifest(FOREIGN_CONFIG);
      expectInjected({ object: marked(bare), oldObject: bare, username, groups }, 'requested');
    });

    test('its own earlier mark and force may go', () => {
      const before = annotated(fresh, { [ANNOTATION.requestedAt]: MARK, [ANNOTATION.force]: MARK });
      expectKept({ object: fresh, oldObject: before, username, groups });
    });

    test('before the rows below: no longer labelled, being deleted, a wrong type', () => {
      const object = edited(unlabelled({ ...marked(fresh), type: 'Opaque' }), ({ metadata }) => {
        metadata.deletionTimestamp = formatTime(NOW);
      });
      expectDenied({ object, oldObject: fresh, username, groups }, 403, 'refresher-out-of-bounds');
    });
  });

  test('a policy that names no refresher knows it by its group alone', () => {
    const policy = { registries: ONE.registries };
    const object = marked(unlabelled(fresh));
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
    expectIgnored({ object: relabelled(marked(due), labels), oldObject: due }, 'not-managed');
    expectIgnored({ object: relabelled(manifest(), labels) }, 'not-managed');
  });

  test('being deleted', () => {
    const object = edited(marked(due), ({ metadata }) => {
      metadata.deletionTimestamp = formatTime(NOW);
      metadata.finalizers = [];
    });
    expectIgnored({ object, oldObject: due }, 'being-deleted');
  });

  test('before the rows below: a wrong type, immutable, data that is not a docker config', () => {
    const odd = { ...holding(mixed, 'FAKE'), type: 'Opaque', immutable: true };
    expectIgnored({ object: unlabelled(odd), oldObject: mixed }, 'not-managed');
    const leaving = edited(odd, ({ metadata }) => {
      metadata.deletionTimestamp = formatTime(NOW);
    });
    expectIgnored({ object: leaving, oldObject: mixed }, 'being-deleted');
  });
});

describe('another type; immutable: deny, 403, naming the way out', () => {
  test.each(['Opaque', 'kubernetes.io/dockercfg', 'kubernetes.io/tls', 'kubernetes.io/DockerConfigJSON'])(
    'type %s',
    (type) => {
      const object = { ...manifest(), type };
      expectDenied({ object }, 403, 'wrong-type', type, 'kubernetes.io/dockerconfigjson', SECRET_LABEL.key);
      // Labelled afterwards, too.
      expectDenied({ object, oldObject: unlabelled(object) }, 403, 'wrong-type');
    },
  );

  test('no type is Opaque', () => {
    const { type: _, ...object } = manifest();
    expectDenied({ object }, 403, 'wrong-type', 'Opaque');
  });

  test('immutable from the start', () => {
    const object = { ...manifest(), immutable: true };
    expectDenied({ object }, 403, 'immutable', 'immutable: true', SECRET_LABEL.key);
  });

  test('made immutable, or immutable and labelled afterwards', () => {
    expectDenied({ object: { ...fresh, immutable: true }, oldObject: fresh }, 403, 'immutable');
    const sealed = { ...fresh, immutable: true };
    expectDenied({ object: touched(sealed), oldObject: unlabelled(sealed) }, 403, 'immutable');
    // The API server would refuse to unseal it: the way out is named here already.
    expectDenied({ object: fresh, oldObject: sealed }, 403, 'immutable');
  });

  test('immutable: false is not immutable', () => {
    expectInjected({ object: { ...manifest(), immutable: false } }, 'created');
  });

  test('before the rows below: data that is not a docker config, a request', () => {
    const object = { ...marked(holding(mixed, 'FAKE')), immutable: true };
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

  test.each(notConfigs)('%s', (text) => {
    expectDenied(
      { object: holding(mixed, text), oldObject: mixed },
      422,
      'not-a-docker-config',
      SECRET_KEY,
      'lose the stored entries',
    );
    // Also where nothing stored is ours yet, and where it would otherwise be a request.
    const foreign = manifest(FOREIGN_CONFIG);
    expectDenied({ object: holding(foreign, text), oldObject: foreign }, 422, 'not-a-docker-config');
    expectDenied({ object: marked(holding(mixed, text)), oldObject: mixed }, 422, 'not-a-docker-config');
  });

  test.each([
    { what: 'a key with a path', text: `{"auths":{"${HOST}/team":{"auth":"eDp5"}}}` },
    { what: 'a glob key', text: '{"auths":{"*.dkr.ecr.eu-central-1.amazonaws.com":{"auth":"eDp5"}}}' },
    { what: 'another of ECR’s hosts', text: `{"auths":{"${OTHER_HOST}":{"auth":"eDp5"}}}` },
    { what: 'credHelpers', text: '{"credHelpers":{"registry.example.com":"x"}}' },
    { what: 'a key __proto__', text: '{"auths":{"__proto__":{"auth":"eDp5"}}}' },
  ])('stored: $what', ({ text }) => {
    const before = stored({ from: manifest(text) });
    expectDenied({ object: holding(before, 'FAKE'), oldObject: before }, 422, 'not-a-docker-config');
  });

  test('nothing to lose: stored entries are all ours, or the original webhook’s', () => {
    const secret = expectKept({ object: holding(fresh, 'FAKE'), oldObject: fresh });
    expect(authsOf(secret)).toEqual({ [HOST]: OLD });
    const original = manifest(JSON.stringify({ auths: { [`https://${HOST}`]: SENT } }));
    expectInjected({ object: holding(original, 'FAKE'), oldObject: original }, 'not-ours');
  });

  test('nothing to lose: what is stored is not a docker config either', () => {
    const junk = manifest('FAKE');
    expectInjected({ object: junk, oldObject: junk }, 'not-ours');
    expectInjected({ object: holding(junk, 'OTHER'), oldObject: junk }, 'not-ours');
  });

  test('a docker config without them is no mistake: users may remove theirs', () => {
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

  test.each(creations)('$what', ({ object, auths }) => {
    const secret = expectInjected({ object }, 'created');
    expect(authsOf(secret)).toEqual(auths);
    expect(secret?.metadata.labels).toEqual(object.metadata.labels);
  });

  test('other keys of data and other annotations stay', () => {
    const object = touched({ ...manifest(), data: { 'a~b/c': encode('x') } });
    const secret = expectInjected({ object }, 'created');
    expect(secret?.data).toEqual({ 'a~b/c': encode('x'), [SECRET_KEY]: expect.any(String) });
    expect(secret?.metadata.annotations).toMatchObject({ 'example.com/owner': 'alice' });
  });

  test('whatever annotations were copied along', () => {
    const { resourceVersion: _, uid: __, ...metadata } = fresh.metadata;
    expectInjected({ object: { ...fresh, metadata } }, 'created');
  });

  test('every registry of the policy, the soonest expiry in expires_at', () => {
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
  const before = annotated(fresh, { [ANNOTATION.requestedAt]: EARLIER_MARK });

  test.each([
    { what: 'the first mark', oldObject: fresh, mark: MARK },
    { what: 'a later mark', oldObject: before, mark: MARK },
    { what: 'an earlier mark: it only has to differ', oldObject: before, mark: '2020-01-01T00:00:00Z' },
    { what: 'a mark that is not a time', oldObject: before, mark: 'now, please' },
    { what: 'an empty mark', oldObject: before, mark: '' },
  ])('$what', ({ oldObject, mark }) => {
    const object = annotated(oldObject, { [ANNOTATION.requestedAt]: mark });
    const secret = expectInjected({ object, oldObject }, 'requested');
    expect(secret?.metadata.annotations?.[ANNOTATION.requestedAt]).toBe(mark);
  });

  test('not a request: the old mark sent again, or removed', () => {
    expectKept({ object: before, oldObject: before });
    expectKept({ object: touched(before), oldObject: before });
    expectKept({ object: fresh, oldObject: before });
  });

  test('not a request: updated_at, expires_at or force alone', () => {
    for (const key of [ANNOTATION.updatedAt, ANNOTATION.expiresAt, ANNOTATION.force]) {
      expectKept({ object: annotated(before, { [key]: MARK }), oldObject: before });
    }
  });

  test.each([
    { what: 'equal to the mark', mark: MARK, force: MARK, forced: true },
    { what: 'left over from an earlier request', mark: MARK, force: EARLIER_MARK, forced: false },
    { what: 'true', mark: MARK, force: 'true', forced: false },
    { what: 'absent', mark: MARK, force: undefined, forced: false },
  ])('force $what', ({ mark, force, forced }) => {
    const object = annotated(before, { [ANNOTATION.requestedAt]: mark, [ANNOTATION.force]: force });
    const { first } = admit({ object, oldObject: before });
    expect(first).toMatchObject({ action: 'obtain', reason: 'requested' });
    expect('force' in first ? first.force : undefined).toBe(forced ? mark : undefined);
    const created = admit({ object: annotated(manifest(), object.metadata.annotations ?? {}) }).first;
    expect('force' in created ? created.force : undefined).toBe(forced ? mark : undefined);
  });

  test('force is a matter of requests: where the old mark is sent again it means nothing', () => {
    const forced = annotated(before, { [ANNOTATION.force]: EARLIER_MARK });
    expectKept({ object: forced, oldObject: before });
    const dueForced = annotated(due, { [ANNOTATION.requestedAt]: MARK, [ANNOTATION.force]: MARK });
    const { first } = admit({ object: dueForced, oldObject: dueForced });
    expect(first).toMatchObject({ action: 'obtain', reason: 'expiring' });
    expect(first).not.toHaveProperty('force');
  });

  test('before the row below: also where nothing stored is ours', () => {
    const foreign = manifest(FOREIGN_CONFIG);
    expectInjected({ object: marked(foreign), oldObject: foreign }, 'requested');
  });
});

describe('the stored entries are not ours: inject', () => {
  const future = formatTime(NOW + 11 * HOUR);
  const junk = annotated(manifest(JSON.stringify({ auths: { [HOST]: SENT } })), {
    [ANNOTATION.expiresAt]: future,
    [ANNOTATION.updatedAt]: formatTime(NOW - HOUR),
  });
  const anotherWrote = stored({ outcomes: allFresh(ONE, NOW - HOUR, 'another') });

  const strangers: { what: string; oldObject: Manifest }[] = [
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
        what: `of contract ${contract ?? '1, unnumbered'}, the data changed behind our back`,
        oldObject: holding(ofContract(contract, fresh), configText(junk)),
      },
    ]),
    ...['v2', '-2', '2.2', ''].map((prefix) => ({
      what: `the right hash after "${prefix}." which is no contract’s`,
      oldObject: ofContract(prefix, fresh),
    })),
    { what: 'a number and no hash', oldObject: annotated(fresh, { [ANNOTATION.fingerprint]: '2.' }) },
    { what: 'an empty fingerprint', oldObject: annotated(fresh, { [ANNOTATION.fingerprint]: '' }) },
    {
      what: 'our annotations over what the webhook wrote elsewhere',
      oldObject: { ...anotherWrote, metadata: fresh.metadata },
    },
    { what: 'ours until the data was changed behind our back', oldObject: holding(fresh, configText(junk)) },
    {
      what: 'ours until the expiry in registries was moved',
      oldObject: annotated(fresh, { [ANNOTATION.registries]: `${HOST}=${future.replace('T2', 'T1')}` }),
    },
    { what: 'ours without data', oldObject: { ...fresh, data: {} } },
    { what: 'ours with FAKE for data', oldObject: holding(fresh, 'FAKE') },
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

  test.each(strangers)('$what', ({ oldObject }) => {
    const secret = expectInjected({ object: touched(oldObject), oldObject }, 'not-ours');
    expect(Object.keys(authsOf(secret))).toEqual([HOST]);
  });

  test.each([
    { what: 'hand-made junk with a future expires_at', oldObject: junk },
    { what: 'what the webhook wrote before the label was removed', oldObject: fresh },
  ])('labelled afterwards: $what', ({ oldObject }) => {
    expectInjected({ object: oldObject, oldObject: unlabelled(oldObject) }, 'not-ours');
  });

  test.each([
    { what: 'an offset', expiresAt: '2026-03-01T23:00:00+01:00' },
    { what: 'Z', expiresAt: '2026-03-01T22:00:00Z' },
    { what: 'nanoseconds and an offset', expiresAt: '2026-03-01T22:00:00.123456789+00:00' },
  ])('the original webhook’s, expires_at with $what, on any update', ({ expiresAt }) => {
    const original = annotated(manifest(JSON.stringify({ auths: { [`https://${HOST}`]: SENT } })), {
      [ANNOTATION.expiresAt]: expiresAt,
      [ANNOTATION.updatedAt]: '2026-03-01T11:00:00+01:00',
    });
    for (const object of [original, touched(original), holding(original, 'FAKE')]) {
      const secret = expectInjected({ object, oldObject: original }, 'not-ours');
      expect(authsOf(secret)).toEqual({ [HOST]: NEW });
    }
    expect(authsOf(expectInjected({ object: marked(original), oldObject: original }, 'requested'))).toEqual({
      [HOST]: NEW,
    });
  });
});

describe('the stored entries are not the policy’s registries: inject', () => {
  test('one was added', () => {
    const { verdict, secret } = admit({ object: touched(fresh), oldObject: fresh }, { policy: TWO });
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed', warnings: [] });
    // What is fresh is left alone.
    expect(authsOf(secret)).toEqual({ [HOST]: OLD, [OTHER_HOST]: entryOf(tokenFor(OTHER_HOST)) });
  });

  test('one was added, and the other is due: both are asked for', () => {
    const { secret } = admit({ object: touched(due), oldObject: due }, { policy: TWO });
    expect(authsOf(secret)).toEqual({ [HOST]: NEW, [OTHER_HOST]: entryOf(tokenFor(OTHER_HOST)) });
  });

  test('one was removed: its entry goes', () => {
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

  test('it is another one', () => {
    const elsewhere = stored({ policy: { registries: TWO.registries.slice(1) } });
    const { verdict, secret } = admit({ object: touched(elsewhere), oldObject: elsewhere });
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(authsOf(secret)).toEqual({ [HOST]: NEW });
  });

  test('one was removed: an entry that the request carries for it is not ours to remove', () => {
    const both = stored({ policy: TWO });
    const mine = holding(both, JSON.stringify({ auths: { [OTHER_HOST]: FOREIGN } }));
    const { verdict, secret } = admit({ object: mine, oldObject: both });
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(authsOf(secret)).toEqual({ [OTHER_HOST]: FOREIGN, [HOST]: OLD });
  });

  test('the account is another one', () => {
    const host = HOST.replace('123456789012', '210987654321');
    const { verdict, secret } = admit(
      { object: touched(fresh), oldObject: fresh },
      { policy: { registries: [{ source: { service: 'ecr', region: 'eu-central-1' }, host }] } },
    );
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(authsOf(secret)).toEqual({ [host]: entryOf(tokenFor(host)) });
  });

  test('a host that is not known yet is told by its region', () => {
    const policy: Entitlement = { registries: [{ source: { service: 'ecr', region: 'eu-central-1' } }] };
    expect(admit({ object: touched(fresh), oldObject: fresh }, { policy }).first).toMatchObject({
      action: 'keep',
    });
    const elsewhere: Entitlement = { registries: [{ source: { service: 'ecr', region: 'us-east-1' } }] };
    expect(admit({ object: touched(fresh), oldObject: fresh }, { policy: elsewhere }).first).toMatchObject({
      reason: 'registries-changed',
    });
  });
});

describe('the stored entries are due: inject', () => {
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
  ])('$what', ({ oldObject, reason }) => {
    const change = { object: touched(oldObject), oldObject };
    if (reason === undefined) expectKept(change);
    else expectInjected(change, reason);
    // It is what is stored that counts.
    const claimed = annotated(oldObject, { [ANNOTATION.expiresAt]: formatTime(NOW + 11 * HOUR) });
    if (reason !== undefined) expectInjected({ object: claimed, oldObject }, reason);
  });

  test.each([
    ['missing', undefined],
    ['unreadable', '2026-03-01'],
    ['implausible', '2036-03-01T12:00:00Z'],
    ['sooner', formatTime(NOW - HOUR)],
    ['later', formatTime(NOW + 12 * HOUR)],
  ])('by what the entries themselves say: an expires_at that is %s is put right', (_, expiresAt) => {
    const changed = annotated(fresh, { [ANNOTATION.expiresAt]: expiresAt });
    const { verdict, secret } = admit({ object: touched(changed), oldObject: changed });
    expect(verdict).toMatchObject({ action: 'keep', reason: 'fresh' });
    expect(secret).toEqual(touched(fresh));

    const hidden = annotated(at(-SECOND), { [ANNOTATION.expiresAt]: expiresAt });
    expectInjected({ object: touched(hidden), oldObject: hidden }, 'expired');
  });
});

describe('otherwise: keep ours, whatever the request carried', () => {
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
    { what: 'our entry dropped', object: holding(fresh, '{"auths":{}}') },
    { what: 'our entry null', object: holding(fresh, `{"auths":{"${HOST}":null}}`) },
    ...[HOST, `https://${HOST}`, `https://${HOST}/v2/`, HOST.toUpperCase()].map((key) => ({
      what: `other credentials for ${key}`,
      object: holding(fresh, JSON.stringify({ auths: { [key]: SENT } })),
    })),
    {
      what: 'other credentials beside ours',
      object: holding(fresh, JSON.stringify({ auths: { [`https://${HOST}`]: SENT, [HOST]: OLD } })),
    },
    {
      what: 'ours twice, the other ones last',
      object: holding(
        fresh,
        `{"auths":{"${HOST}":${JSON.stringify(OLD)},"${HOST}":${JSON.stringify(SENT)}}}`,
      ),
    },
    {
      what: 'ours with a field more',
      object: holding(fresh, JSON.stringify({ auths: { [HOST]: { ...OLD, identitytoken: 'x' } } })),
    },
  ];

  test.each(restored)('$what', ({ object }) => {
    const secret = expectKept({ object, oldObject: fresh });
    expect(authsOf(secret)).toEqual({ [HOST]: OLD });
    expect(parseDockerConfig(configText(secret))?.auths.get(HOST)).toEqual(OLD);
  });

  test('all that is not ours passes', () => {
    const object = edited(touched(mixed), (copy) => {
      copy.metadata.labels = { ...copy.metadata.labels, tier: 'front' };
      copy.metadata.finalizers = ['example.com/hold'];
      copy.data = { ...copy.data, more: encode('more') };
    });
    const { first, secret } = admit({ object, oldObject: mixed });
    expect(first).toEqual({ action: 'keep', reason: 'fresh', patch: [], warnings: [] });
    expect(secret).toEqual(object);
  });

  test('entries of other registries are taken from the request: rotated, added, removed', () => {
    const rotated = { auth: encode('bot:hunter3') };
    const auths = { 'registry.example.com': rotated, 'ghcr.io': FOREIGN, [HOST]: SENT };
    const secret = expectKept({ object: holding(mixed, JSON.stringify({ auths })), oldObject: mixed });
    expect(authsOf(secret)).toEqual({ 'registry.example.com': rotated, 'ghcr.io': FOREIGN, [HOST]: OLD });
    const without = expectKept({ object: holding(mixed, configText(fresh)), oldObject: mixed });
    expect(authsOf(without)).toEqual({ [HOST]: OLD });
  });

  test('nothing changed: an empty patch', () => {
    for (const secret of [fresh, mixed]) {
      expect(admit({ object: secret, oldObject: secret }).first).toEqual({
        action: 'keep',
        reason: 'fresh',
        patch: [],
        warnings: [],
      });
    }
  });

  test('ours sent in another layout is ours: the text stays', () => {
    const object = holding(fresh, JSON.stringify(JSON.parse(configText(fresh)), null, 2));
    const secret = expectKept({ object, oldObject: fresh });
    expect(secret).toEqual(object);
  });
});

// An upgrade and a way back meet Secrets that a webhook of another contract wrote.
describe.each([
  { what: '1, which had no number', number: undefined },
  { what: '1, numbered', number: '1' },
  { what: '3, which is not known here', number: '3' },
])('written by contract $what', ({ number }) => {
  const before = ofContract(number, mixed);

  test('fresh, and nothing of ours is touched: kept without a token or a patch', () => {
    for (const object of [before, touched(before)]) {
      const { first, secret } = admit({ object, oldObject: before });
      expect(first).toEqual({ action: 'keep', reason: 'fresh', patch: [], warnings: [] });
      expect(secret).toEqual(object);
    }
  });

  test('fresh, and what is ours was dropped: restored without a token, in the words of this contract', () => {
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

  test('requested or due: written in the words of this contract', () => {
    expectInjected({ object: marked(before), oldObject: before }, 'requested');
    const old = ofContract(number, due);
    expectInjected({ object: touched(old), oldObject: old }, 'expiring');
  });

  test('no longer entitled to one registry: the other is ours, and no token is asked for', () => {
    const both = ofContract(number, stored({ policy: TWO }));
    const { first, secret } = admit({ object: touched(both), oldObject: both });
    expect(first).toMatchObject({ action: 'obtain', reason: 'registries-changed', registries: [] });
    expect(authsOf(secret)).toEqual({ [HOST]: OLD });
    expect(notesOf(secret).fingerprint).toBe(notesOf(stored()).fingerprint);
  });

  test('sent over what this contract wrote, by whoever read it earlier: put right', () => {
    const secret = expectKept({ object: before, oldObject: mixed });
    expect(secret).toEqual(mixed);
  });
});

describe('entries of other registries stay byte for byte', () => {
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
    // The member's own text, key and value apart: only the space between them is ours.
    const value = member.replace(/^("[^"]*")\s*:\s*/, '$1:');
    expect(configText(secret)).toContain(value);
    expect(authsOf(secret)[HOST]).toBeDefined();
  };

  test.each(members)('$what', ({ member }) => {
    const text = `{"auths":{${member}}}`;
    const created = expectInjected({ object: manifest(text) }, 'created');
    expectMember(created, member);

    const before = stored({ from: manifest(text), at: NOW - 7 * HOUR });
    const refreshed = expectInjected({ object: marked(before), oldObject: before }, 'requested');
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
  ])('other members of the document: $what', ({ text, more }) => {
    const created = expectInjected({ object: manifest(text) }, 'created');
    expect(configText(created)).toContain(more);
    const before = stored({ from: manifest(text), at: NOW - 7 * HOUR });
    expect(configText(expectInjected({ object: marked(before), oldObject: before }, 'requested'))).toContain(
      more,
    );
  });
});

describe('once more: what was injected is kept when the same manifest is sent again', () => {
  const manifests = [
    { what: 'without data', sent: manifest() },
    { what: 'FAKE', sent: manifest('FAKE') },
    { what: 'foreign entries', sent: manifest(FOREIGN_CONFIG) },
    {
      what: 'our host as https://',
      sent: manifest(JSON.stringify({ auths: { [`https://${HOST}`]: SENT } })),
    },
    { what: 'with an old mark', sent: marked(manifest(FOREIGN_CONFIG)) },
    {
      what: 'with a forced mark',
      sent: annotated(manifest(), { [ANNOTATION.requestedAt]: MARK, [ANNOTATION.force]: MARK }),
    },
  ];

  test.each(manifests)('$what: nothing changed', ({ sent }) => {
    const before = afterwards({ object: sent });
    const { first } = admit({ object: before, oldObject: before });
    expect(first).toEqual({ action: 'keep', reason: 'fresh', patch: [], warnings: [] });
  });

  test.each(manifests)('$what: applied again (its fields over the stored ones)', ({ sent }) => {
    const before = afterwards({ object: sent });
    const object = edited(annotated(before, sent.metadata.annotations ?? {}), (copy) => {
      copy.data = { ...copy.data, ...sent.data };
    });
    const again = expectKept({ object, oldObject: before });
    expect(again).toEqual(before);
  });

  test.each(manifests)('$what: replaced (its fields only)', ({ sent }) => {
    const before = afterwards({ object: sent });
    const again = expectKept({ object: sent, oldObject: before });
    expect(authsOf(again)).toEqual(authsOf(before));
    expect(notesOf(again)).toEqual(notesOf(before));
    // And from there on.
    if (!again) throw new Error('denied');
    expect(expectKept({ object: sent, oldObject: again })).toEqual(again);
  });
});

// The rules for the certificates of tls.mode self: each rule, and each boundary.
import 'reflect-metadata';
import { type webcrypto, X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  dataOf,
  type Material,
  nextStep,
  OVERLAP_MS,
  RENEWED_BEFORE_MS,
  REPLACED_BEFORE_MS,
  type Situation,
  trustedBy,
} from '../../../webhook/tls/rotation.ts';
import type { KeyPair } from '../../../webhook/tls/tls.ts';
import {
  AUTHORITY_LIFETIME_MS,
  BACKDATED_MS,
  isTrusted,
  newAuthority,
  newServing,
  SERVING_LIFETIME_MS,
  servingProblem,
} from '../../../webhook/tls/x509.ts';

const NAME = 'ecr-anywhere.pull.svc';
const SECOND = 1_000;
const DAY = 86_400_000;
const NOW = Date.parse('2026-11-23T12:00:00Z');

let authority: KeyPair;
let other: KeyPair;
let good: Material;
beforeAll(async () => {
  authority = await newAuthority(NOW);
  other = await newAuthority(NOW);
  good = { authority, serving: await newServing(authority, NAME, NOW) };
});

/** The next step for a Secret with this content. */
function step(material: Readonly<Record<string, unknown>> | Material, more: Partial<Situation> = {}) {
  const data = 'authority' in material ? dataOf(material as Material) : material;
  const stored = Object.fromEntries(
    Object.entries(data).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
  const bundle = more.bundle ?? ('authority' in material ? trustedBy(material as Material) : '');
  return nextStep({
    held: undefined,
    rotateRequest: undefined,
    name: NAME,
    now: NOW,
    ...more,
    stored,
    bundle,
  });
}

/** An authority with another kind of key, as companies have them. */
async function ownAuthority(kind: 'rsa' | 'P-384'): Promise<object> {
  const algorithm =
    kind === 'rsa'
      ? {
          name: 'RSASSA-PKCS1-v1_5',
          hash: 'SHA-256',
          modulusLength: 2048,
          publicExponent: new Uint8Array([1, 0, 1]),
        }
      : { name: 'ECDSA', namedCurve: kind, hash: 'SHA-384' };
  const keys = (await crypto.subtle.generateKey(algorithm, true, [
    'sign',
    'verify',
  ])) as webcrypto.CryptoKeyPair;
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=company',
    keys,
    signingAlgorithm: algorithm,
    notBefore: new Date(NOW - DAY),
    notAfter: new Date(NOW + 400 * DAY),
    extensions: [new x509.BasicConstraintsExtension(true, 0, true)],
  });
  const key = x509.PemConverter.encode(
    await crypto.subtle.exportKey('pkcs8', keys.privateKey),
    'PRIVATE KEY',
  );
  return { 'ca.crt': cert.toString('pem'), 'ca.key': key };
}

/** Expects an authority, a certificate for the name that it signed, and matching keys. */
function expectWhole({ authority: signs, serving }: Material, now = NOW): void {
  expect(servingProblem(serving, signs.cert, NAME, now)).toBeUndefined();
}

test('does nothing for valid certificates', async () => {
  expect(await step(good)).toEqual({
    what: 'nothing',
    why: '',
    material: { ...good, next: undefined, previous: undefined, rotated: undefined },
  });
});

test('creates an authority and a serving certificate for an empty Secret', async () => {
  const { what, why, material } = await step({});
  expect([what, why]).toEqual(['new authority', 'ca.crt is missing']);
  expectWhole(material);
  expect(Object.keys(material).filter((key) => material[key as keyof Material])).toEqual([
    'authority',
    'serving',
  ]);
  expect(await step(material)).toMatchObject({ what: 'nothing' });
});

test('certificates have their lifetimes, names and key usages', () => {
  const [ca, serving] = [new X509Certificate(authority.cert), new X509Certificate(good.serving.cert)];
  expect(ca.validToDate.getTime() - NOW).toBe(AUTHORITY_LIFETIME_MS);
  expect(serving.validToDate.getTime() - NOW).toBe(SERVING_LIFETIME_MS);
  for (const certificate of [ca, serving])
    expect(NOW - certificate.validFromDate.getTime()).toBe(BACKDATED_MS);
  expect([ca.ca, serving.ca]).toEqual([true, false]);
  expect(serving.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1']);
  expect(serving.subjectAltName).toBe(`DNS:${NAME}`);
  expect(serving.publicKey.asymmetricKeyDetails).toEqual({ namedCurve: 'prime256v1' });
  expect(serving.serialNumber).not.toBe(ca.serialNumber);
});

test('a serving certificate is valid only while its authority is', async () => {
  const last = new X509Certificate(
    (await newServing(authority, NAME, NOW + AUTHORITY_LIFETIME_MS - DAY)).cert,
  );
  expect(last.validToDate.getTime()).toBe(NOW + AUTHORITY_LIFETIME_MS);
  const first = new X509Certificate((await newServing(authority, NAME, NOW - DAY)).cert);
  expect(first.validFromDate.getTime()).toBe(NOW - BACKDATED_MS);
});

test('has the times of the documentation', () => {
  expect([OVERLAP_MS, RENEWED_BEFORE_MS, REPLACED_BEFORE_MS]).toEqual([300_000, 10 * DAY, 365 * DAY]);
});

test('removes unused keys from the Secret', () => {
  expect(dataOf(good)).toEqual({
    'ca.crt': authority.cert,
    'ca.key': authority.key,
    'tls.crt': good.serving.cert,
    'tls.key': good.serving.key,
    'next-ca.crt': null,
    'next-ca.key': null,
    'previous-ca.crt': null,
    rotated: null,
  });
});

describe('a broken authority', () => {
  const broken: { what: string; data: () => Promise<object> | object; why: string }[] = [
    {
      what: 'a missing authority',
      data: () => ({ 'ca.crt': undefined, 'ca.key': undefined }),
      why: 'is missing',
    },
    { what: 'a text that is no certificate', data: () => ({ 'ca.crt': 'x' }), why: 'is not a certificate' },
    { what: 'an empty text', data: () => ({ 'ca.crt': '' }), why: 'is not a certificate' },
    {
      what: 'a serving certificate',
      data: () => ({ 'ca.crt': good.serving.cert, 'ca.key': good.serving.key }),
      why: 'is not the certificate of an authority',
    },
    {
      what: 'the key of another authority',
      data: () => ({ 'ca.key': other.key }),
      why: 'does not match its key',
    },
    { what: 'an unreadable key', data: () => ({ 'ca.key': 'x' }), why: 'has no readable key' },
    { what: 'a missing key', data: () => ({ 'ca.key': undefined }), why: 'has no readable key' },
    // The webhook could not sign with these keys.
    {
      what: 'an RSA key',
      data: () => ownAuthority('rsa'),
      why: 'does not have a P-256 key',
    },
    { what: 'a P-384 key', data: () => ownAuthority('P-384'), why: 'does not have a P-256 key' },
    {
      what: 'an expired authority',
      data: async () => {
        const { cert, key } = await newAuthority(NOW - AUTHORITY_LIFETIME_MS);
        return { 'ca.crt': cert, 'ca.key': key };
      },
      why: 'has expired',
    },
  ];
  const data = async (change: () => Promise<object> | object) =>
    Object.fromEntries(
      Object.entries({ ...dataOf(good), ...(await change()) }).filter(([, value]) => value !== undefined),
    );

  test.each(broken)(
    '$what is replaced by a new one, and no part of the old remains',
    async ({ data: change, why }) => {
      const { what, why: reason, material } = await step(await data(change));
      expect([what, reason]).toEqual(['new authority', `ca.crt ${why}`]);
      expectWhole(material);
      expect(material.authority.cert).not.toBe(authority.cert);
      const during = { 'next-ca.crt': other.cert, 'next-ca.key': other.key, 'previous-ca.crt': other.cert };
      const anew = await step({ ...(await data(change)), ...during });
      expect([anew.material.next, anew.material.previous]).toEqual([undefined, undefined]);
    },
  );

  test.each(broken)(
    '$what is replaced by the valid authority that a replica holds',
    async ({ data: change }) => {
      const held: Material = { ...good, previous: other.cert, rotated: 'once' };
      expect(await step(await data(change), { held })).toMatchObject({
        what: 'stored again',
        material: held,
      });
    },
  );

  test('a replica whose held authority has expired creates a new one', async () => {
    const now = NOW + AUTHORITY_LIFETIME_MS;
    const { what, material } = await step({}, { held: good, now });
    expect(what).toBe('new authority');
    expectWhole(material, now);
  });

  test('an authority is valid until the second before its expiry', async () => {
    const last = NOW + AUTHORITY_LIFETIME_MS - SECOND;
    expect((await step(good, { now: last })).what).not.toBe('new authority');
    expect((await step(good, { now: last + SECOND })).what).toBe('new authority');
  });

  test('a rotate-ca annotation that is already there does not replace the new authority again', async () => {
    const { material } = await step({}, { rotateRequest: 'x' });
    expect(await step(material, { rotateRequest: 'x' })).toMatchObject({ what: 'nothing' });
  });
});

describe('the serving certificate', () => {
  test.each([
    { what: 'more than a third', left: RENEWED_BEFORE_MS + SECOND, isRenewed: false },
    { what: 'exactly a third', left: RENEWED_BEFORE_MS, isRenewed: false },
    { what: 'less than a third', left: RENEWED_BEFORE_MS - SECOND, isRenewed: true },
    { what: 'nothing', left: 0, isRenewed: true },
  ])('with $what of its lifetime left: renewed is $isRenewed', async ({ left, isRenewed }) => {
    const now = NOW + SERVING_LIFETIME_MS - left;
    const { what, material } = await step(good, { now });
    expect(what).toBe(isRenewed ? 'new serving certificate' : 'nothing');
    expect(material.authority).toEqual(authority);
    expect(material.serving.key === good.serving.key).toBe(!isRenewed);
    expectWhole(material, now);
  });

  test('is kept when the clock is behind its creation', async () => {
    expect(await step(good, { now: NOW - 400 * DAY })).toMatchObject({ what: 'nothing' });
  });

  test.each([
    { what: 'that is missing', pair: () => ({}), why: 'is missing' },
    { what: 'that is no certificate', pair: () => ({ cert: 'x', key: 'x' }), why: 'is not a certificate' },
    {
      what: 'of another authority',
      pair: () => newServing(other, NAME, NOW),
      why: 'was not signed by the authority',
    },
    {
      what: 'for another name',
      pair: () => newServing(authority, 'a.b.svc', NOW),
      why: `is not for ${NAME}`,
    },
    {
      what: 'with another key',
      pair: () => ({ cert: good.serving.cert, key: other.key }),
      why: 'does not match its key',
    },
    { what: 'without a key', pair: () => ({ cert: good.serving.cert }), why: 'has no readable key' },
  ])('is replaced if it is one $what', async ({ pair, why }) => {
    const { cert, key } = (await pair()) as Partial<KeyPair>;
    const { 'tls.crt': _, 'tls.key': __, ...rest } = dataOf(good);
    const {
      what,
      why: reason,
      material,
    } = await step({
      ...rest,
      ...(cert !== undefined && { 'tls.crt': cert }),
      ...(key !== undefined && { 'tls.key': key }),
    });
    expect(what).toBe('new serving certificate');
    expect(reason).toContain(`tls.crt ${why}`);
    expect(material.authority).toEqual(authority);
    expectWhole(material);
  });

  test('is replaced without disturbing a replacement of the authority', async () => {
    const exchanged: Material = { ...good, next: other, previous: authority.cert, rotated: 'x' };
    const { material } = await step({ ...dataOf(exchanged), 'tls.crt': 'x' });
    expect(material).toEqual({ ...exchanged, serving: material.serving });
  });
});

describe('the replacement of the authority', () => {
  test('starts once for each value of the annotation', async () => {
    const started = await step(good, { rotateRequest: 'a' });
    expect(started).toMatchObject({
      what: 'next authority trusted',
      why: 'requested by annotation',
      material: { rotated: 'a' },
    });
    expect(started.material.serving).toEqual(good.serving);
    expect(trustedBy(started.material)).toBe(
      `${authority.cert.trim()}\n${started.material.next?.cert.trim()}\n`,
    );
    expect(await step({ ...good, rotated: 'a' }, { rotateRequest: 'a' })).toMatchObject({ what: 'nothing' });
    expect(await step({ ...good, rotated: 'a' }, { rotateRequest: 'b' })).toMatchObject({
      what: 'next authority trusted',
    });
    expect(await step({ ...good, rotated: 'a' })).toMatchObject({ what: 'nothing' });
  });

  test.each([
    { left: REPLACED_BEFORE_MS, what: 'nothing' },
    { left: REPLACED_BEFORE_MS - SECOND, what: 'next authority trusted' },
  ])('with $left ms of its lifetime left: $what', async ({ left, what }) => {
    const now = NOW + AUTHORITY_LIFETIME_MS - left;
    const serving = await newServing(authority, NAME, now);
    const started = await step({ authority, serving, rotated: 'a' }, { now, rotateRequest: 'a' });
    expect(started.what).toBe(what);
    expect(started.material.rotated).toBe('a');
  });

  test.each([
    { what: 'a second too early', after: OVERLAP_MS - SECOND, isTrustedEverywhere: true, does: 'nothing' },
    {
      what: 'not trusted by the API servers',
      after: OVERLAP_MS * 10,
      isTrustedEverywhere: false,
      does: 'nothing',
    },
    {
      what: 'in time, and trusted',
      after: OVERLAP_MS,
      isTrustedEverywhere: true,
      does: 'next authority signs',
    },
  ])('lets the next authority sign in time: $what', async ({ after, isTrustedEverywhere, does }) => {
    const started: Material = { ...good, next: other, rotated: 'a' };
    const bundle = isTrustedEverywhere ? trustedBy(started) : authority.cert;
    const { what, material } = await step(started, { now: NOW + after, bundle, rotateRequest: 'a' });
    expect(what).toBe(does);
    if (does === 'nothing') return expect(material).toMatchObject(started);
    expect(material).toMatchObject({ authority: other, previous: authority.cert, rotated: 'a' });
    expect(material.next).toBeUndefined();
    expectWhole(material, NOW + after);
    // The API servers trust the certificate that is still served and the new one.
    for (const { serving } of [good, material])
      expect(isTrusted(serving.cert, trustedBy(material))).toBe(true);
    expect(isTrusted(material.serving.cert, bundle)).toBe(true);
  });

  test.each([
    { after: OVERLAP_MS - SECOND, does: 'nothing' },
    { after: OVERLAP_MS, does: 'previous authority dropped' },
  ])(
    'drops the previous authority in time, $after ms after the new one signed: $does',
    async ({ after, does }) => {
      const signing: Material = { ...good, previous: other.cert, rotated: 'a' };
      const { what, material } = await step(signing, { now: NOW + after, rotateRequest: 'a' });
      expect(what).toBe(does);
      expect(material).toEqual({
        ...signing,
        next: undefined,
        previous: does === 'nothing' ? other.cert : undefined,
      });
    },
  );

  test('does not start again before it has ended', async () => {
    expect(await step({ ...good, next: other }, { rotateRequest: 'b' })).toMatchObject({ what: 'nothing' });
    expect(await step({ ...good, previous: other.cert }, { rotateRequest: 'b' })).toMatchObject({
      what: 'nothing',
    });
  });

  test('goes on when the clock was set back far', async () => {
    const signing: Material = { ...good, previous: other.cert };
    expect(await step(signing, { now: NOW - DAY })).toMatchObject({ what: 'previous authority dropped' });
  });

  test.each([
    { what: 'no certificate', next: { 'next-ca.crt': 'x', 'next-ca.key': 'x' } },
    { what: 'a certificate without a key', next: { 'next-ca.crt': '' } },
    { what: 'a key without a certificate', next: { 'next-ca.key': 'x' } },
  ])('drops a next authority that is $what', async ({ next }) => {
    const { what, material } = await step({ ...dataOf(good), ...(next as Record<string, string>) });
    expect([what, material.next]).toEqual(['next authority dropped', undefined]);
    expectWhole(material);
  });

  test('drops an expired next authority, and keeps the previous one and the annotation value', async () => {
    const next = await newAuthority(NOW - AUTHORITY_LIFETIME_MS);
    const { what, why, material } = await step({ ...good, next, previous: other.cert, rotated: 'a' });
    expect([what, why]).toEqual(['next authority dropped', 'next-ca.crt has expired']);
    expect(material).toEqual({ ...good, next: undefined, previous: other.cert, rotated: 'a' });
  });

  test('keeps the previous authority by the age of the serving certificate, not of the authority', async () => {
    const signs = await newAuthority(NOW - DAY);
    const serving = await newServing(signs, NAME, NOW);
    const signing: Material = { authority: signs, serving, previous: other.cert };
    expect(await step(signing, { now: NOW + OVERLAP_MS - SECOND })).toMatchObject({ what: 'nothing' });
  });

  test('keeps a newer annotation value for later when the next authority starts to sign', async () => {
    const started: Material = { ...good, next: other, rotated: 'a' };
    const { what, material } = await step(started, { now: NOW + OVERLAP_MS, rotateRequest: 'b' });
    expect([what, material.rotated]).toEqual(['next authority signs', 'a']);
  });

  test('drops a previous authority that is no certificate at once', async () => {
    const { what } = await step({ ...dataOf(good), 'previous-ca.crt': 'x' });
    expect(what).toBe('previous authority dropped');
  });

  test('never serves a certificate that the API servers do not trust, with a check every ten seconds', async () => {
    let material = good;
    let bundle = trustedBy(good);
    const served = [good.serving.cert];
    for (let now = NOW; now < NOW + 15 * 60 * SECOND; now += 10 * SECOND) {
      const next = await step(material, { now, bundle, rotateRequest: 'x' });
      material = next.material;
      if (next.what === 'nothing') bundle = trustedBy(material);
      if (isTrusted(material.serving.cert, bundle)) served.push(material.serving.cert);
      // One replica is always one check behind.
      for (const cert of served.slice(-2)) expect(isTrusted(cert, bundle)).toBe(true);
    }
    expect(material.authority.cert).not.toBe(authority.cert);
    expect(isTrusted(good.serving.cert, bundle)).toBe(false);
  });
});

// The table of what is done about the certificates, row by row and at each boundary.
import 'reflect-metadata';
import { type webcrypto, X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  dataOf,
  EXCHANGED_BEFORE_MS,
  type Material,
  nextStep,
  OVERLAP_MS,
  RENEWED_BEFORE_MS,
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

/** What is done where the Secret holds this. */
function step(material: Readonly<Record<string, unknown>> | Material, more: Partial<Situation> = {}) {
  const data = 'authority' in material ? dataOf(material as Material) : material;
  const stored = Object.fromEntries(
    Object.entries(data).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
  const bundle = more.bundle ?? ('authority' in material ? trustedBy(material as Material) : '');
  return nextStep({ mine: undefined, command: undefined, name: NAME, now: NOW, ...more, stored, bundle });
}

/** An authority as companies have them. */
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

/** Whether it is whole: an authority, what it signed for the name, and keys that fit. */
function expectWhole({ authority: signs, serving }: Material, now = NOW): void {
  expect(servingProblem(serving, signs.cert, NAME, now)).toBeUndefined();
}

test('what is good stays as it is', async () => {
  expect(await step(good)).toEqual({
    what: 'nothing',
    why: '',
    material: { ...good, next: undefined, previous: undefined, rotated: undefined },
  });
});

test('an empty Secret: a new authority, and what it signs', async () => {
  const { what, why, material } = await step({});
  expect([what, why]).toEqual(['new authority', 'ca.crt is missing']);
  expectWhole(material);
  expect(Object.keys(material).filter((key) => material[key as keyof Material])).toEqual([
    'authority',
    'serving',
  ]);
  expect(await step(material)).toMatchObject({ what: 'nothing' });
});

test('the certificates: lives, names, uses', () => {
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

test('a serving certificate never outlives its authority, nor is it older', async () => {
  const last = new X509Certificate(
    (await newServing(authority, NAME, NOW + AUTHORITY_LIFETIME_MS - DAY)).cert,
  );
  expect(last.validToDate.getTime()).toBe(NOW + AUTHORITY_LIFETIME_MS);
  const first = new X509Certificate((await newServing(authority, NAME, NOW - DAY)).cert);
  expect(first.validFromDate.getTime()).toBe(NOW - BACKDATED_MS);
});

test('the times that the documentation promises', () => {
  expect([OVERLAP_MS, RENEWED_BEFORE_MS, EXCHANGED_BEFORE_MS]).toEqual([300_000, 10 * DAY, 365 * DAY]);
});

test('what a Secret shall not have is taken out of it', () => {
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
    { what: 'nothing', data: () => ({ 'ca.crt': undefined, 'ca.key': undefined }), why: 'is missing' },
    { what: 'garbage', data: () => ({ 'ca.crt': 'x' }), why: 'is no certificate' },
    { what: 'an empty one', data: () => ({ 'ca.crt': '' }), why: 'is no certificate' },
    {
      what: 'a serving certificate',
      data: () => ({ 'ca.crt': good.serving.cert, 'ca.key': good.serving.key }),
      why: 'is the certificate of no authority',
    },
    { what: 'another key', data: () => ({ 'ca.key': other.key }), why: 'and its key do not belong together' },
    { what: 'a garbled key', data: () => ({ 'ca.key': 'x' }), why: 'has no key that can be read' },
    { what: 'no key', data: () => ({ 'ca.key': undefined }), why: 'has no key that can be read' },
    // With which nothing could be signed: neither the next certificate nor the one that is needed now.
    {
      what: 'one of RSA',
      data: () => ownAuthority('rsa'),
      why: 'has a key of another kind than P-256',
    },
    { what: 'one of P-384', data: () => ownAuthority('P-384'), why: 'has a key of another kind than P-256' },
    {
      what: 'an expired one',
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
    '$what: a new one, of which nothing of the old is left',
    async ({ data: change, why }) => {
      const { what, why: told, material } = await step(await data(change));
      expect([what, told]).toEqual(['new authority', `ca.crt ${why}`]);
      expectWhole(material);
      expect(material.authority.cert).not.toBe(authority.cert);
      const during = { 'next-ca.crt': other.cert, 'next-ca.key': other.key, 'previous-ca.crt': other.cert };
      const anew = await step({ ...(await data(change)), ...during });
      expect([anew.material.next, anew.material.previous]).toEqual([undefined, undefined]);
    },
  );

  test.each(broken)('$what: a replica that has a good one stores it again', async ({ data: change }) => {
    const mine: Material = { ...good, previous: other.cert, rotated: 'once' };
    expect(await step(await data(change), { mine })).toMatchObject({ what: 'stored again', material: mine });
  });

  test('a replica whose own has expired makes a new one', async () => {
    const now = NOW + AUTHORITY_LIFETIME_MS;
    const { what, material } = await step({}, { mine: good, now });
    expect(what).toBe('new authority');
    expectWhole(material, now);
  });

  test('until a second before it expires it is good', async () => {
    const last = NOW + AUTHORITY_LIFETIME_MS - SECOND;
    expect((await step(good, { now: last })).what).not.toBe('new authority');
    expect((await step(good, { now: last + SECOND })).what).toBe('new authority');
  });

  test('a command that lies there already is not followed by a second new one', async () => {
    const { material } = await step({}, { command: 'x' });
    expect(await step(material, { command: 'x' })).toMatchObject({ what: 'nothing' });
  });
});

describe('the serving certificate', () => {
  test.each([
    { what: 'more than a third of its life is left', left: RENEWED_BEFORE_MS + SECOND, isRenewed: false },
    { what: 'a third', left: RENEWED_BEFORE_MS, isRenewed: false },
    { what: 'less', left: RENEWED_BEFORE_MS - SECOND, isRenewed: true },
    { what: 'nothing', left: 0, isRenewed: true },
  ])('$what', async ({ left, isRenewed }) => {
    const now = NOW + SERVING_LIFETIME_MS - left;
    const { what, material } = await step(good, { now });
    expect(what).toBe(isRenewed ? 'new serving certificate' : 'nothing');
    expect(material.authority).toEqual(authority);
    expect(material.serving.key === good.serving.key).toBe(!isRenewed);
    expectWhole(material, now);
  });

  test('one made by a clock that was ahead, or that goes back, is no reason', async () => {
    expect(await step(good, { now: NOW - 400 * DAY })).toMatchObject({ what: 'nothing' });
  });

  test.each([
    { what: 'missing', pair: () => ({}), why: 'is missing' },
    { what: 'garbage', pair: () => ({ cert: 'x', key: 'x' }), why: 'is no certificate' },
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
      why: 'and its key do not',
    },
    { what: 'without a key', pair: () => ({ cert: good.serving.cert }), why: 'has no key that can be read' },
  ])('$what', async ({ pair, why }) => {
    const { cert, key } = (await pair()) as Partial<KeyPair>;
    const { 'tls.crt': _, 'tls.key': __, ...rest } = dataOf(good);
    const {
      what,
      why: told,
      material,
    } = await step({
      ...rest,
      ...(cert !== undefined && { 'tls.crt': cert }),
      ...(key !== undefined && { 'tls.key': key }),
    });
    expect(what).toBe('new serving certificate');
    expect(told).toContain(`tls.crt ${why}`);
    expect(material.authority).toEqual(authority);
    expectWhole(material);
  });

  test('an exchange of the authority goes on meanwhile', async () => {
    const exchanged: Material = { ...good, next: other, previous: authority.cert, rotated: 'x' };
    const { material } = await step({ ...dataOf(exchanged), 'tls.crt': 'x' });
    expect(material).toEqual({ ...exchanged, serving: material.serving });
  });
});

describe('the exchange of the authority', () => {
  test('a command begins it, once', async () => {
    const begun = await step(good, { command: 'a' });
    expect(begun).toMatchObject({
      what: 'next authority trusted',
      why: 'asked for',
      material: { rotated: 'a' },
    });
    expect(begun.material.serving).toEqual(good.serving);
    expect(trustedBy(begun.material)).toBe(`${authority.cert.trim()}\n${begun.material.next?.cert.trim()}\n`);
    expect(await step({ ...good, rotated: 'a' }, { command: 'a' })).toMatchObject({ what: 'nothing' });
    expect(await step({ ...good, rotated: 'a' }, { command: 'b' })).toMatchObject({
      what: 'next authority trusted',
    });
    expect(await step({ ...good, rotated: 'a' })).toMatchObject({ what: 'nothing' });
  });

  test.each([
    { left: EXCHANGED_BEFORE_MS, what: 'nothing' },
    { left: EXCHANGED_BEFORE_MS - SECOND, what: 'next authority trusted' },
  ])('with $left ms of the authority left: $what', async ({ left, what }) => {
    const now = NOW + AUTHORITY_LIFETIME_MS - left;
    const serving = await newServing(authority, NAME, now);
    const begun = await step({ authority, serving, rotated: 'a' }, { now, command: 'a' });
    expect(begun.what).toBe(what);
    expect(begun.material.rotated).toBe('a');
  });

  test.each([
    { what: 'a second too early', after: OVERLAP_MS - SECOND, isTrustedByAll: true, does: 'nothing' },
    {
      what: 'not trusted by the API servers',
      after: OVERLAP_MS * 10,
      isTrustedByAll: false,
      does: 'nothing',
    },
    { what: 'in time, and trusted', after: OVERLAP_MS, isTrustedByAll: true, does: 'next authority signs' },
  ])('the next one signs: $what', async ({ after, isTrustedByAll, does }) => {
    const begun: Material = { ...good, next: other, rotated: 'a' };
    const bundle = isTrustedByAll ? trustedBy(begun) : authority.cert;
    const { what, material } = await step(begun, { now: NOW + after, bundle, command: 'a' });
    expect(what).toBe(does);
    if (does === 'nothing') return expect(material).toMatchObject(begun);
    expect(material).toMatchObject({ authority: other, previous: authority.cert, rotated: 'a' });
    expect(material.next).toBeUndefined();
    expectWhole(material, NOW + after);
    // What is served still, and what will be: both trusted.
    for (const { serving } of [good, material])
      expect(isTrusted(serving.cert, trustedBy(material))).toBe(true);
    expect(isTrusted(material.serving.cert, bundle)).toBe(true);
  });

  test.each([
    { after: OVERLAP_MS - SECOND, does: 'nothing' },
    { after: OVERLAP_MS, does: 'previous authority dropped' },
  ])('the previous one goes $after ms after the new one signed', async ({ after, does }) => {
    const signing: Material = { ...good, previous: other.cert, rotated: 'a' };
    const { what, material } = await step(signing, { now: NOW + after, command: 'a' });
    expect(what).toBe(does);
    expect(material).toEqual({
      ...signing,
      next: undefined,
      previous: does === 'nothing' ? other.cert : undefined,
    });
  });

  test('another command waits for the end', async () => {
    expect(await step({ ...good, next: other }, { command: 'b' })).toMatchObject({ what: 'nothing' });
    expect(await step({ ...good, previous: other.cert }, { command: 'b' })).toMatchObject({
      what: 'nothing',
    });
  });

  test('a clock that was put back far does not hold it up', async () => {
    const signing: Material = { ...good, previous: other.cert };
    expect(await step(signing, { now: NOW - DAY })).toMatchObject({ what: 'previous authority dropped' });
  });

  test.each([
    { what: 'garbage', next: { 'next-ca.crt': 'x', 'next-ca.key': 'x' } },
    { what: 'a certificate without a key', next: { 'next-ca.crt': '' } },
    { what: 'a key without a certificate', next: { 'next-ca.key': 'x' } },
  ])('a next one that is broken goes: $what', async ({ next }) => {
    const { what, material } = await step({ ...dataOf(good), ...(next as Record<string, string>) });
    expect([what, material.next]).toEqual(['next authority dropped', undefined]);
    expectWhole(material);
  });

  test('a next one that has expired goes; a previous one, and the command that was followed, stay', async () => {
    const next = await newAuthority(NOW - AUTHORITY_LIFETIME_MS);
    const { what, why, material } = await step({ ...good, next, previous: other.cert, rotated: 'a' });
    expect([what, why]).toEqual(['next authority dropped', 'next-ca.crt has expired']);
    expect(material).toEqual({ ...good, next: undefined, previous: other.cert, rotated: 'a' });
  });

  test('the previous one stays for the serving certificate’s sake, however old the authority is', async () => {
    const signs = await newAuthority(NOW - DAY);
    const serving = await newServing(signs, NAME, NOW);
    const signing: Material = { authority: signs, serving, previous: other.cert };
    expect(await step(signing, { now: NOW + OVERLAP_MS - SECOND })).toMatchObject({ what: 'nothing' });
  });

  test('a command that comes while the next one begins to sign is not taken for followed', async () => {
    const begun: Material = { ...good, next: other, rotated: 'a' };
    const { what, material } = await step(begun, { now: NOW + OVERLAP_MS, command: 'b' });
    expect([what, material.rotated]).toEqual(['next authority signs', 'a']);
  });

  test('a previous one that is broken goes at once', async () => {
    const { what } = await step({ ...dataOf(good), 'previous-ca.crt': 'x' });
    expect(what).toBe('previous authority dropped');
  });

  test('all the way, with a look every ten seconds, nobody is ever shown what is not trusted', async () => {
    let material = good;
    let bundle = trustedBy(good);
    const served = [good.serving.cert];
    for (let now = NOW; now < NOW + 15 * 60 * SECOND; now += 10 * SECOND) {
      const next = await step(material, { now, bundle, command: 'x' });
      material = next.material;
      if (next.what === 'nothing') bundle = trustedBy(material);
      if (isTrusted(material.serving.cert, bundle)) served.push(material.serving.cert);
      // One replica is always a look behind.
      for (const cert of served.slice(-2)) expect(isTrusted(cert, bundle)).toBe(true);
    }
    expect(material.authority.cert).not.toBe(authority.cert);
    expect(isTrusted(good.serving.cert, bundle)).toBe(false);
  });
});

// Tests which webhook is recognised as the writer of a Secret, and how the fingerprint contains the contract version.
import { describe, expect, test } from 'vitest';
import { ANNOTATION } from '../../contract/names.ts';
import {
  CONTRACT_VERSION,
  credentialsWriter,
  formatFingerprint,
  parseFingerprint,
  type Writer,
} from '../../contract/version.ts';
import { fingerprint } from '../../webhook/admission/docker-config.ts';

const HASH = 'I1Wiy_umWnTukRJ-';
const UPDATED = { [ANNOTATION.updatedAt]: '2026-03-01T12:00:00Z' };
const EXPIRES = { [ANNOTATION.expiresAt]: '2026-03-02T00:00:00Z' };
const sealed = (value: string) => ({ ...UPDATED, ...EXPIRES, [ANNOTATION.fingerprint]: value });

describe('the writer of a Secret', () => {
  test.each<{ what: string; annotations: Record<string, string> | null | undefined; writer: Writer }>([
    { what: 'is none without annotations', annotations: undefined, writer: { writer: 'none' } },
    { what: 'is none with null annotations', annotations: null, writer: { writer: 'none' } },
    { what: 'is none with empty annotations', annotations: {}, writer: { writer: 'none' } },
    {
      what: 'is none with annotations of others and of requesters',
      annotations: { 'example.com/owner': 'alice', [ANNOTATION.requestedAt]: '2026-03-01T12:00:00Z' },
      writer: { writer: 'none' },
    },
    {
      what: 'is none with a fingerprint and no time',
      annotations: { [ANNOTATION.fingerprint]: `2.${HASH}` },
      writer: { writer: 'none' },
    },
    {
      what: 'is the original with both times',
      annotations: { ...UPDATED, ...EXPIRES },
      writer: { writer: 'original' },
    },
    { what: 'is the original with updated_at alone', annotations: UPDATED, writer: { writer: 'original' } },
    { what: 'is the original with expires_at alone', annotations: EXPIRES, writer: { writer: 'original' } },
    {
      what: 'is this project, version 1, with a fingerprint without a version',
      annotations: sealed(HASH),
      writer: { writer: 'ours', contract: 1 },
    },
    {
      what: 'is this project, version 1, with that version',
      annotations: sealed(`1.${HASH}`),
      writer: { writer: 'ours', contract: 1 },
    },
    {
      what: 'is this project, the current version, with a fingerprint of today',
      annotations: sealed(formatFingerprint(HASH)),
      writer: { writer: 'ours', contract: CONTRACT_VERSION },
    },
    {
      what: 'is this project with a later version',
      annotations: sealed(`17.${HASH}`),
      writer: { writer: 'ours', contract: 17 },
    },
    {
      what: 'is this project without expires_at, because the Secret has no entries left',
      annotations: { ...UPDATED, [ANNOTATION.fingerprint]: `2.${HASH}` },
      writer: { writer: 'ours', contract: 2 },
    },
  ])('$what', ({ annotations, writer }) => {
    expect(credentialsWriter(annotations)).toEqual(writer);
  });
});

describe('the fingerprint', () => {
  test('begins with the contract version and is parsed to the same values', () => {
    expect(formatFingerprint(HASH)).toBe(`2.${HASH}`);
    expect(parseFingerprint(formatFingerprint(HASH))).toEqual({ contract: CONTRACT_VERSION, hash: HASH });
  });

  test.each([
    HASH,
    '',
    '0.x',
    '01.x',
    '-1.x',
    '+1.x',
    '1e3.x',
    '.x',
    ' 2.x',
    '2',
    '2,x',
    '1234567.x',
    'v2.x',
  ])('is a hash of version 1 if it does not begin with a version: "%s"', (value) => {
    expect(parseFingerprint(value)).toEqual({ contract: 1, hash: value });
  });

  test.each(['2.', '2.a.b', '2.\n', '2. x'])('is parsed to its last character: %j', (value) => {
    expect(parseFingerprint(value)).toEqual({ contract: 2, hash: value.slice(2) });
  });

  test('is never parsed with a version if it is a hash alone', () => {
    for (let i = 0; i < 10_000; i += 1) {
      const hash = fingerprint(`host=${i}`, []);
      expect(parseFingerprint(hash)).toEqual({ contract: 1, hash });
    }
  });
});

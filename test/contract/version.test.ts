// Who wrote a Secret, by its annotations, and how the contract's number stands in its fingerprint.
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

describe('the writer', () => {
  test.each<{ what: string; annotations: Record<string, string> | null | undefined; writer: Writer }>([
    { what: 'absent annotations', annotations: undefined, writer: { writer: 'none' } },
    { what: 'null annotations', annotations: null, writer: { writer: 'none' } },
    { what: 'no annotations', annotations: {}, writer: { writer: 'none' } },
    {
      what: 'what others and requesters write',
      annotations: { 'example.com/owner': 'alice', [ANNOTATION.requestedAt]: '2026-03-01T12:00:00Z' },
      writer: { writer: 'none' },
    },
    {
      what: 'a fingerprint and no time',
      annotations: { [ANNOTATION.fingerprint]: `2.${HASH}` },
      writer: { writer: 'none' },
    },
    { what: 'both times', annotations: { ...UPDATED, ...EXPIRES }, writer: { writer: 'original' } },
    { what: 'updated_at alone', annotations: UPDATED, writer: { writer: 'original' } },
    { what: 'expires_at alone', annotations: EXPIRES, writer: { writer: 'original' } },
    { what: 'no number', annotations: sealed(HASH), writer: { writer: 'ours', contract: 1 } },
    { what: 'the number 1', annotations: sealed(`1.${HASH}`), writer: { writer: 'ours', contract: 1 } },
    {
      what: 'this number',
      annotations: sealed(formatFingerprint(HASH)),
      writer: { writer: 'ours', contract: CONTRACT_VERSION },
    },
    { what: 'a later number', annotations: sealed(`17.${HASH}`), writer: { writer: 'ours', contract: 17 } },
    {
      what: 'ours where nothing is wanted any more, so that nothing expires',
      annotations: { ...UPDATED, [ANNOTATION.fingerprint]: `2.${HASH}` },
      writer: { writer: 'ours', contract: 2 },
    },
  ])('$what', ({ annotations, writer }) => {
    expect(credentialsWriter(annotations)).toEqual(writer);
  });
});

describe('the fingerprint', () => {
  test('says the contract first, and reads as it was written', () => {
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
  ])('is of contract 1 as a whole where no number comes first: "%s"', (value) => {
    expect(parseFingerprint(value)).toEqual({ contract: 1, hash: value });
  });

  test.each(['2.', '2.a.b', '2.\n', '2. x'])('is read to its last character: %j', (value) => {
    expect(parseFingerprint(value)).toEqual({ contract: 2, hash: value.slice(2) });
  });

  test('never takes a bare hash for one with a number', () => {
    for (let i = 0; i < 10_000; i += 1) {
      const hash = fingerprint(`host=${i}`, []);
      expect(parseFingerprint(hash)).toEqual({ contract: 1, hash });
    }
  });
});

// The caller proof: compared, and replaced step by step.
import { describe, expect, test } from 'vitest';
import { formatTime } from '../../../contract/freshness.ts';
import {
  acceptedOf,
  isAccepted,
  nextStep,
  OVERLAP_MS,
  REPLACED_AFTER_MS,
} from '../../../webhook/caller/proof.ts';
import { encode, NOW } from '../support.ts';

describe('isAccepted', () => {
  const accepted = acceptedOf({
    proof: Buffer.from('s3cret'),
    next: Buffer.from('n3xt'),
    since: Buffer.from('s'),
  });

  test.each(['s3cret', 'n3xt'])('accepts %s in the base64 of the Secret', (value) => {
    expect(isAccepted(encode(value), accepted)).toBe(true);
  });

  test.each(['', 's3cret', encode('s3cre'), encode('s3cret2'), encode('s')])('refuses "%s"', (given) => {
    expect(isAccepted(given, accepted)).toBe(false);
  });

  test('refuses an empty proof also when the Secret has an empty value', () => {
    expect(isAccepted('', acceptedOf({ proof: Buffer.alloc(0) }))).toBe(false);
  });
});

describe('nextStep', () => {
  type Data = Record<string, string>;
  const at = (ms: number) => formatTime(NOW + ms);
  const withChange = (data: Data, change: Readonly<Record<string, string | null>> = {}): Data =>
    Object.fromEntries(
      Object.entries({ ...data, ...change }).filter((entry): entry is [string, string] => entry[1] !== null),
    );

  test('creates a proof of 256 random bits in an empty Secret', () => {
    const [one, other] = [nextStep({}, undefined, NOW), nextStep({}, undefined, NOW)];
    expect(one).toMatchObject({ what: 'new proof', change: { since: at(0) } });
    expect(Buffer.from(one?.change.proof ?? '', 'base64url')).toHaveLength(32);
    expect(one?.change.proof).not.toBe(other?.change.proof);
  });

  test('keeps a proof of less than 30 days', () => {
    const data = { proof: 'a', since: at(0) };
    expect(nextStep(data, undefined, NOW + REPLACED_AFTER_MS - 1)).toBeUndefined();
  });

  test.each([
    { title: 'after 30 days', rotate: undefined, ms: REPLACED_AFTER_MS },
    { title: 'on request', rotate: 'please', ms: 1_000 },
  ])(
    'replaces a proof $title, and accepts each value before and after the policy sends it',
    ({ rotate, ms }) => {
      let data: Data = { proof: 'a', since: at(0) };
      let now = NOW + ms;
      const first = nextStep(data, rotate, now);
      expect(first?.what).toBe('next proof accepted');
      data = withChange(data, first?.change);
      const next = data.next ?? '';
      expect(data).toMatchObject({ proof: 'a', next: expect.stringMatching(/^.{43}$/) });
      expect(nextStep(data, rotate, now + OVERLAP_MS - 1_000)).toBeUndefined();

      now += OVERLAP_MS;
      const second = nextStep(data, rotate, now);
      expect(second?.what).toBe('next proof sent');
      data = withChange(data, second?.change);
      expect(data).toMatchObject({ proof: next, previous: 'a' });
      expect(data).not.toHaveProperty('next');
      expect(nextStep(data, rotate, now + OVERLAP_MS - 1_000)).toBeUndefined();

      now += OVERLAP_MS;
      const third = nextStep(data, rotate, now);
      expect(third).toEqual({ what: 'previous proof dropped', change: { previous: null } });
      data = withChange(data, third?.change);
      expect(nextStep(data, rotate, now)).toBeUndefined();
    },
  );

  test.each(['', 'soon', at(10 * REPLACED_AFTER_MS)])(
    'starts a replacement when the time of the last one is "%s"',
    (since) => {
      const step = nextStep({ proof: 'a', since }, undefined, NOW);
      expect(step).toMatchObject({ what: 'next proof accepted', change: { since: at(0) } });
    },
  );
});

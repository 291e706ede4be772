// The caller proof: taken out of a request before any decision, compared, and replaced step by step.
import { describe, expect, test } from 'vitest';
import { formatTime } from '../../../contract/freshness.ts';
import { ANNOTATION, PROOF_ANNOTATION } from '../../../contract/names.ts';
import { decide } from '../../../webhook/admission/decision.ts';
import {
  acceptedOf,
  isAccepted,
  nextStep,
  OVERLAP_MS,
  REPLACED_AFTER_MS,
  takeProof,
} from '../../../webhook/caller/proof.ts';
import { annotated, applied, encode, manifest, NOW, ONE, REFRESHER, requestOf, stored } from '../support.ts';

const PROOF = encode('s3cret');
const proven = { [PROOF_ANNOTATION]: PROOF };

describe('takeProof', () => {
  test.each([
    { title: 'among other annotations', annotations: { note: 'x', __proto__x: 'y' } },
    { title: 'as the only annotation', annotations: {} },
  ])('removes the proof from what is decided on and compared, $title', ({ annotations }) => {
    const object = annotated(manifest(), { ...annotations, ...proven });
    const { request, proof, removal } = takeProof(requestOf({ object }));
    expect(proof).toBe(PROOF);
    expect(request.object.metadata.annotations).toEqual(annotations);
    expect(JSON.stringify(request)).not.toContain(PROOF);
    expect(applied(object, removal).metadata.annotations).toEqual(annotations);
  });

  test('changes nothing in a request without a proof', () => {
    const request = requestOf({ object: manifest() });
    expect(takeProof(request)).toEqual({ request, proof: undefined, removal: [] });
  });

  test('lets the refresher request a refresh, although the policy adds the proof to its request', () => {
    const oldObject = stored();
    const object = annotated(oldObject, { [ANNOTATION.requestedAt]: formatTime(NOW), ...proven });
    const { request } = takeProof(requestOf({ object, oldObject, username: REFRESHER }));
    expect(decide(request, ONE, NOW)).toMatchObject({ action: 'obtain', reason: 'requested' });
  });
});

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

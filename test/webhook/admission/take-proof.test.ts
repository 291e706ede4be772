// The caller proof is taken out of a request before any decision.
import { describe, expect, test } from 'vitest';
import { formatTime } from '../../../contract/freshness.ts';
import { ANNOTATION, PROOF_ANNOTATION } from '../../../contract/names.ts';
import { decide } from '../../../webhook/admission/decision.ts';
import { takeProof } from '../../../webhook/admission/take-proof.ts';
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

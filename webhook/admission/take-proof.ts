// Takes the caller proof out of a request, which a MutatingAdmissionPolicy of the chart has added (docs/callers.md). Pure.
import { PROOF_ANNOTATION } from '../../contract/names.ts';
import type { AdmissionRequest, PatchOperation } from './review.ts';

const PROOF_PATH = `/metadata/annotations/${PROOF_ANNOTATION.replace('/', '~1')}`;

/** A request without its proof. */
export interface Unwrapped {
  readonly request: AdmissionRequest;
  readonly proof: string | undefined;
  /** Removes the proof from the Secret; the other operations of a patch follow it. */
  readonly removal: readonly PatchOperation[];
}

/** Takes the proof out of a request, so that no decision depends on it. Every webhook does so, also where none is required. */
export function takeProof(request: AdmissionRequest): Unwrapped {
  const { [PROOF_ANNOTATION]: proof, ...annotations } = request.object.metadata.annotations ?? {};
  if (proof === undefined) return { request, proof, removal: [] };
  const { object, raw } = request;
  return {
    request: {
      ...request,
      object: { ...object, metadata: { ...object.metadata, annotations } },
      raw: { ...raw, object: withoutProof(raw.object) },
    },
    proof,
    removal: [{ op: 'remove', path: PROOF_PATH }],
  };
}

function withoutProof(object: unknown): unknown {
  const { metadata, ...rest } = object as { metadata: { annotations: Record<string, unknown> } };
  const { [PROOF_ANNOTATION]: _, ...annotations } = metadata.annotations;
  return { ...rest, metadata: { ...metadata, annotations } };
}

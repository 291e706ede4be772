// How the tests are found and how many files run at the same time.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 180_000,
    // Most files run control planes of their own: more at once would only take turns on the processors.
    maxWorkers: 2,
  },
});

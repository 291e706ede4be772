// The chart and the documentation claim the Kubernetes versions that the test bed has, and no others.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { KUBERNETES } from '../bed/toolchain.ts';

const textOf = (path: string) => readFileSync(join(import.meta.dirname, '../..', path), 'utf8');
const [, oldestMinor = ''] = /^v(1\.\d+)\./.exec(KUBERNETES.oldest) ?? [];

test('the chart supports the minor version of the oldest tested one, and newer ones', () => {
  expect(parse(textOf('webhook/chart/Chart.yaml')).kubeVersion).toBe(`>=${oldestMinor}.0-0`);
});

test('docs/platforms.md names the tested versions', () => {
  const rows = textOf('docs/platforms.md').matchAll(/^\| (1\.\d+\.\d+), the (newest|published|oldest)\b/gm);
  expect(Object.fromEntries(Array.from(rows, ([, version, which]) => [which, `v${version}`]))).toEqual(
    KUBERNETES,
  );
});

test.each(['README.md', 'docs/design.md'])('%s names the oldest minor version', (page) => {
  expect(textOf(page)).toContain(`any Kubernetes cluster ≥ ${oldestMinor}\n`);
});

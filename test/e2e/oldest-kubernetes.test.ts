// The oldest Kubernetes version that the chart supports, with the deployed function, the command line and the webhook bundle.
// vitest.config.ts names the other files that run on it too.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ANNOTATION, SECRET_KEY } from '../../contract/names.ts';
import { CHART, helm } from '../bed/helm.ts';
import { KUBERNETES } from '../bed/toolchain.ts';
import { NAMESPACE, RELEASE } from '../bed/webhook.ts';
import { DoctorBed } from '../cli/commands/doctor/doctor-bed.ts';

let on: DoctorBed;
beforeAll(async () => {
  on = await DoctorBed.start();
});
afterAll(() => on?.[Symbol.asyncDispose]());

interface Secret {
  readonly metadata: { readonly annotations: Readonly<Record<string, string>> };
  readonly data: Readonly<Record<string, string>>;
}

async function readSecret(): Promise<{ password: string; requestedAt: string | undefined }> {
  const { stdout } = await on.kubectl('get', 'secret', 'pull', '--namespace', 'team-a', '-o', 'json');
  const { metadata, data } = JSON.parse(stdout) as Secret;
  const { auths } = JSON.parse(Buffer.from(data[SECRET_KEY] ?? '', 'base64').toString());
  return {
    password: auths[on.bed.ecr.host].password,
    requestedAt: metadata.annotations[ANNOTATION.requestedAt],
  };
}

test('the API server has the oldest version, and no MutatingAdmissionPolicies', async () => {
  const { stdout } = await on.kubectl('get', '--raw', '/version');
  expect(JSON.parse(stdout)).toMatchObject({ gitVersion: KUBERNETES.oldest });
  expect((await on.kubectl('api-resources', '--output', 'name')).stdout).not.toContain('mutatingadmission');
});

test('doctor finds nothing wrong, and says that any pod gets an answer from the webhook', async () => {
  await on.expectPassed(10_000);
  const { findings } = (await on.doctor()).report;
  expect(findings).toContainEqual(
    expect.objectContaining({ check: 'callers', message: expect.stringContaining('any pod') }),
  );
});

test('the deployed function has the webhook replace the credentials', async () => {
  const before = await readSecret();
  expect(before.password).toMatch(/./);
  await on.run(['refresh', 'alpha', '--force']);
  const after = await readSecret();
  expect(after.password).not.toBe(before.password);
  expect(after.requestedAt).not.toBe(before.requestedAt);
});

test.each([3, 4] as const)('Helm %i refuses attach.enabled, and names the alternative', async (version) => {
  const { code, stderr } = await helm(
    [
      ...['upgrade', RELEASE, CHART, '--namespace', NAMESPACE, '--reset-then-reuse-values'],
      ...['--set', 'attach.enabled=true'],
    ],
    { cluster: on.controlPlane, mayFail: true, version },
  );
  expect(code).not.toBe(0);
  expect(stderr).toMatch(
    /attach\.enabled: this cluster has no MutatingAdmissionPolicies.*docs\/managed-secrets\.md/,
  );
});

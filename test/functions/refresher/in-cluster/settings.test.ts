// The settings of the refresher in the cluster: environment variables, and the files that the kubelet mounts.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ENVIRONMENT, podAccess, readSettings } from '../../../../functions/refresher/in-cluster/settings.ts';
import { createAuthority } from '../../../bed/certificates.ts';

const IN_A_POD = { KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '443' };

test('needs nothing but what Kubernetes sets in every Pod', () => {
  expect(readSettings(IN_A_POD)).toEqual({
    server: 'https://10.96.0.1:443',
    serviceAccountDir: '/var/run/secrets/kubernetes.io/serviceaccount',
    deadlineMs: 600_000,
  });
});

test('puts an IPv6 address of the API server into brackets', () => {
  const { server } = readSettings({ ...IN_A_POD, KUBERNETES_SERVICE_HOST: 'fd00::1' });
  expect(server).toBe('https://[fd00::1]:443');
});

test('accepts a name of the API server, which some platforms set', () => {
  const { server } = readSettings({ ...IN_A_POD, KUBERNETES_SERVICE_HOST: 'x.hcp.eu.azmk8s.io' });
  expect(server).toBe('https://x.hcp.eu.azmk8s.io:443');
});

test.each([
  ['outside of a Pod', {}, [ENVIRONMENT.kubernetesHost, ENVIRONMENT.kubernetesPort]],
  [
    'with a port that is a URL',
    { ...IN_A_POD, KUBERNETES_SERVICE_PORT: 'tcp://x' },
    [ENVIRONMENT.kubernetesPort],
  ],
  ['with an empty deadline', { ...IN_A_POD, DEADLINE_SECONDS: '' }, [ENVIRONMENT.deadline]],
  [
    'with two wrong settings',
    { ...IN_A_POD, DEADLINE_SECONDS: 'soon', SERVICE_ACCOUNT_DIR: '' },
    [ENVIRONMENT.deadline, ENVIRONMENT.serviceAccountDir],
  ],
])('%s, names every invalid variable in one error', (_, env, names) => {
  for (const name of names) expect(() => readSettings(env)).toThrow(name);
});

describe('the credential', () => {
  let dir: string;
  let caPem: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-settings-'));
    ({ caPem } = await createAuthority('test'));
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  const access = async (token: string, ca: string) => {
    await Promise.all([writeFile(join(dir, 'token'), token), writeFile(join(dir, 'ca.crt'), ca)]);
    return podAccess(readSettings({ ...IN_A_POD, SERVICE_ACCOUNT_DIR: dir }));
  };

  test('is the mounted token, for the server that the mounted authority signed', async () => {
    expect(await access('a.b.c\n', caPem)).toMatchObject({
      server: 'https://10.96.0.1:443',
      ca: caPem.trim(),
      identity: { token: 'a.b.c' },
    });
  });

  test.each([
    ['an empty token', '\n', 'valid'],
    ['a token of two lines', 'a.b.c\nhost: x', 'valid'],
    ['an authority without a certificate', 'a.b.c', 'none'],
  ])('%s is refused, without the content in the message', async (_, token, ca) => {
    const refusal = access(token, ca === 'valid' ? caPem : ca);
    await expect(refusal).rejects.toThrow(/cannot use the credential of its Pod .*upgrade the release/);
    await expect(refusal).rejects.not.toThrow(/a\.b\.c/);
  });

  test('that is not mounted is refused with the path', async () => {
    const settings = readSettings({ ...IN_A_POD, SERVICE_ACCOUNT_DIR: join(dir, 'missing') });
    await expect(podAccess(settings)).rejects.toThrow(join(dir, 'missing'));
  });
});

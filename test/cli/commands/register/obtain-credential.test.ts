// Which server is registered, and which contexts are rejected because the refresher could not verify the server.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { serverToRegister } from '../../../../cli/commands/register/obtain-credential.ts';
import { Kubernetes } from '../../../../cli/kubernetes/client.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import { createAuthority } from '../../../bed/certificates.ts';

const URL_OF_CONTEXT = 'https://10.0.0.1:6443';
const OTHER_URL = 'https://k8s.example:6443';
const { caPem } = await createAuthority('ca');
const CA = { 'certificate-authority-data': Buffer.from(caPem).toString('base64') };
const PROXY = { 'proxy-url': 'http://proxy.example:3128' };

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-server-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** The server to register for a context whose cluster has these fields. */
async function serverFor(cluster: object, server?: string) {
  const kubeconfig = join(dir, 'kubeconfig');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'bed',
    contexts: [{ name: 'bed', context: { cluster: 'bed', user: 'me' } }],
    clusters: [{ name: 'bed', cluster: { server: URL_OF_CONTEXT, ...cluster } }],
    users: [{ name: 'me', user: { token: 'a-token-of-mine' } }],
  };
  await writeFile(kubeconfig, stringify(config), { mode: 0o600 });
  const kubernetes = Kubernetes.load({ kubeconfig }, new AbortController().signal);
  const commands = new ShellCommands({ kubeconfig }, { context: 'bed' });
  return serverToRegister({ ...(server !== undefined && { server }) }, kubernetes, commands);
}

describe('serverToRegister', () => {
  test.each<{ title: string; cluster: object; server?: string; expected: object }>([
    {
      title: 'the server of the context, with its proxy',
      cluster: { ...CA, ...PROXY },
      expected: { url: URL_OF_CONTEXT, ca: caPem, proxyUrl: PROXY['proxy-url'] },
    },
    {
      title: 'the address of --server, without the proxy, which is for the operator',
      cluster: { ...CA, ...PROXY },
      server: OTHER_URL,
      expected: { url: OTHER_URL, ca: caPem },
    },
    {
      title: 'the address of the context without a certificate authority, even if --server repeats it',
      cluster: {},
      server: URL_OF_CONTEXT,
      expected: { url: URL_OF_CONTEXT },
    },
    {
      title: 'the TLS server name with the address of --server',
      cluster: { ...CA, 'tls-server-name': 'internal.example' },
      server: OTHER_URL,
      expected: { url: OTHER_URL, ca: caPem, serverName: 'internal.example' },
    },
  ])('returns $title', async ({ cluster, server, expected }) => {
    expect(await serverFor(cluster, server)).toEqual(expected);
  });

  test.each<{ title: string; cluster: object; server?: string; message: string; hint: RegExp }>([
    {
      title: 'a context that does not verify the certificate',
      cluster: { 'insecure-skip-tls-verify': true },
      message: 'insecure-skip-tls-verify',
      hint: /^kubectl --kubeconfig \S+ --context bed config set-cluster CLUSTER --insecure-skip-tls-verify=false /,
    },
    {
      title: 'another address if the context has no certificate authority, since any server could answer',
      cluster: {},
      server: OTHER_URL,
      message: 'k8s.example',
      hint: /: kubectl .* config set-cluster CLUSTER --certificate-authority=FILE --embed-certs$/,
    },
  ])('rejects $title', async ({ cluster, server, message, hint }) => {
    await expect(serverFor(cluster, server)).rejects.toMatchObject({
      code: 'server-not-verifiable',
      exitCode: 2,
      message: expect.stringContaining(message),
      hint: expect.stringMatching(hint),
    });
  });
});

// The kubeconfig that register stores: exactly one server and one identity, in a form that the refresher accepts.
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { type RegisteredUser, registeredKubeconfig } from '../../../../cli/commands/register/kubeconfig.ts';
import type { Server } from '../../../../cli/kubernetes/client.ts';
import { createAuthority } from '../../../bed/certificates.ts';

const { caPem } = await createAuthority('ca');
const SERVER: Server = { url: 'https://k8s.example:6443' };
const TOKEN: RegisteredUser = { token: 'some-token' };

describe('registeredKubeconfig', () => {
  test.each<{ title: string; server: Server; cluster: object }>([
    { title: 'an address alone', server: SERVER, cluster: { server: SERVER.url } },
    {
      title: 'a certificate authority',
      server: { ...SERVER, ca: caPem },
      cluster: {
        server: SERVER.url,
        'certificate-authority-data': Buffer.from(caPem).toString('base64'),
      },
    },
    {
      title: 'a TLS server name and a proxy',
      server: { ...SERVER, serverName: 'internal.example', proxyUrl: 'http://proxy.example:3128' },
      cluster: {
        server: SERVER.url,
        'tls-server-name': 'internal.example',
        'proxy-url': 'http://proxy.example:3128',
      },
    },
  ])('holds $title', ({ server, cluster }) => {
    expect(parse(registeredKubeconfig('alpha', server, TOKEN))).toEqual({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'alpha',
      contexts: [{ name: 'alpha', context: { cluster: 'alpha', user: 'ecr-anywhere' } }],
      clusters: [{ name: 'alpha', cluster }],
      users: [{ name: 'ecr-anywhere', user: { token: 'some-token' } }],
    });
  });

  test.each([
    { command: 'aws', args: ['eks', 'get-token', '--cluster-name', 'alpha'], hint: /^docs\/registering\.md/ },
    { command: 'ecr-anywhere', args: ['get-token', '--cluster', 'alpha'], hint: /^Use --server / },
  ])('the hint names --server only if register accepts it: $command', ({ hint, ...exec }) => {
    expect(() => registeredKubeconfig('alpha', { url: 'http://k8s.example' }, { exec })).toThrow(
      expect.objectContaining({ hint: expect.stringMatching(hint) }),
    );
  });

  test('completes an exec entry with the fields that Kubernetes requires', () => {
    const exec = { command: 'ecr-anywhere', args: ['get-token', '--cluster', 'alpha'] };
    const { users } = parse(registeredKubeconfig('alpha', SERVER, { exec }));
    expect(users[0].user.exec).toEqual({
      apiVersion: 'client.authentication.k8s.io/v1',
      interactiveMode: 'Never',
      ...exec,
    });
  });

  test.each<{ title: string; server: Server }>([
    { title: 'an http address', server: { url: 'http://k8s.example' } },
    { title: 'a SOCKS proxy', server: { ...SERVER, proxyUrl: 'socks5://proxy.example:1080' } },
  ])('rejects $title, as the refresher would', ({ server }) => {
    expect(() => registeredKubeconfig('alpha', server, TOKEN)).toThrow(
      expect.objectContaining({
        code: 'kubeconfig-unsupported',
        exitCode: 10,
        hint: expect.stringContaining('--server'),
      }),
    );
  });
});

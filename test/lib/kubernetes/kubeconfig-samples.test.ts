// Tests every file in test/functions/kubeconfigs, and hostile kubeconfigs: the access that the refresher makes of each, or
// the refusal, which quotes no value. The first line of a file names the tool that writes it.

import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { parse } from 'yaml';
import { usableAccess } from '../../../functions/refresher/access/access.ts';
import { eksAccess } from '../../../functions/refresher/access/eks.ts';
import type { UsableAccess } from '../../../functions/refresher/kubernetes/client.ts';
import { KubernetesApi } from '../../../functions/refresher/kubernetes/client.ts';
import { readKubeconfig } from '../../../lib/kubernetes/kubeconfig.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { json, page, startApiServer } from '../../functions/api-server.ts';
import { type EksDouble, startEks } from '../../functions/eks.ts';
import { NO_KEYLESS } from '../../functions/real-cluster.ts';

const DIRECTORY = new URL('../../functions/kubeconfigs/', import.meta.url);
const file = (name: string) => readFileSync(new URL(name, DIRECTORY), 'utf8');

const ROLE = 'arn:aws:iam::123456789012:role/clusters';
const OWN_KEY = 'AKIAIOSFODNN7EXAMPLE';
const EKS = 'https://0123456789ABCDEF0123456789ABCDEF';

let stack: AsyncDisposableStack;
let aws: AwsEndpoint;
let eks: EksDouble;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  [aws, eks] = await Promise.all([startAwsEndpoint(), startEks()]);
  stack.use(aws);
  stack.use(eks);
  for (const [name, value] of Object.entries({
    ...aws.env,
    AWS_ENDPOINT_URL_EKS: eks.url,
    AWS_ACCESS_KEY_ID: OWN_KEY,
    AWS_SECRET_ACCESS_KEY: 'canary',
  }))
    vi.stubEnv(name, value);
  const ca = '-----BEGIN CERTIFICATE-----';
  for (const [name, endpoint, region] of [
    ['prod', `${EKS}.gr7.eu-central-1.eks.amazonaws.com`, 'eu-central-1'],
    ['west', `${EKS}.yl4.us-west-2.eks.amazonaws.com`, 'us-west-2'],
  ] as const)
    eks.clusters.set(name, { endpoint, ca, region });
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await stack.disposeAsync();
});

/** The access that the refresher makes of a kubeconfig. */
function read(text: string, context?: string): Promise<UsableAccess> {
  const signers = {
    eks: eksAccess({ region: 'eu-west-1', assumableRoles: [ROLE], clusterDeadlineMs: 20_000 }),
    keyless: NO_KEYLESS,
  };
  const settings = { region: 'eu-west-1', allowLocalServers: false };
  // Promise.try, because readKubeconfig throws and usableAccess rejects.
  return Promise.try(() =>
    usableAccess('a', readKubeconfig(text, context), signers, settings, AbortSignal.timeout(10_000)),
  );
}

async function refusalOf(text: string): Promise<string> {
  const access = await read(text).catch((error: Error) => error);
  if (!(access instanceof Error)) throw new Error('it was accepted');
  // Values in plain text, and in base64 as in the files.
  expect(access.message).not.toMatch(/canary|BEGIN|LS0tLS1|Y2FuYXJ5/);
  // The message goes to logs, alarms and callers of the function.
  expect(access.message).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
  expect(access.message.length).toBeLessThan(700);
  return access.message;
}

/** The cluster, region and role of an EKS token. */
interface Signed {
  readonly cluster: string;
  readonly region: string;
  readonly role?: string;
}
interface Accepted {
  readonly server: string;
  readonly identity: object | { readonly eks: Signed };
  readonly ca?: false;
}

const PEMS = { cert: 'pem', key: 'pem' };
const ACCEPTED: Readonly<Record<string, Accepted>> = {
  'eks-aws-cli-v1.yaml': {
    server: `${EKS}.gr7.eu-central-1.eks.amazonaws.com`,
    identity: { eks: { cluster: 'prod', region: 'eu-central-1' } },
  },
  'eks-aws-cli.yaml': {
    server: `${EKS}.gr7.eu-central-1.eks.amazonaws.com`,
    identity: { eks: { cluster: 'prod', region: 'eu-central-1', role: ROLE } },
  },
  'eks-eksctl.yaml': {
    server: `${EKS}.yl4.us-west-2.eks.amazonaws.com`,
    identity: { eks: { cluster: 'west', region: 'us-west-2' } },
  },
  'eks-eksctl-aws.yaml': {
    server: `${EKS}.yl4.us-west-2.eks.amazonaws.com`,
    identity: { eks: { cluster: 'west', region: 'us-west-2' } },
  },
  'k3s.yaml': { server: 'https://k3s.example.com:6443', identity: PEMS },
  'kubeadm.yaml': { server: 'https://10.0.0.10:6443', identity: PEMS },
  // The file also has a certificate; the token can be revoked.
  'aks.yaml': {
    server: 'https://prod-dns-0a1b2c3d.hcp.westeurope.azmk8s.io:443',
    identity: { token: 'canary-aks-token' },
  },
  'aks-user.yaml': {
    server: 'https://prod-dns-0a1b2c3d.hcp.westeurope.azmk8s.io:443',
    identity: { token: 'canary-aks-user-token' },
  },
  'rancher.yaml': {
    server: 'https://rancher.example.com/k8s/clusters/c-m-abcd1234',
    identity: { token: 'kubeconfig-user-abcde:canary-rancher-token' },
    ca: false,
  },
  'rancher-private-ca.yaml': {
    server: 'https://rancher.example.com/k8s/clusters/c-m-abcd1234',
    identity: { token: 'kubeconfig-user-abcde:canary-rancher-token' },
  },
  'openshift.yaml': {
    server: 'https://api.prod.example.com:6443',
    identity: { token: 'sha256~canary-openshift-token' },
  },
  'openshift-installer.yaml': { server: 'https://api.prod.example.com:6443', identity: PEMS },
  'microk8s.yaml': { server: 'https://192.168.64.2:16443', identity: { token: 'canary-microk8s-token' } },
  'several-contexts.yaml': { server: 'https://10.0.0.12:6443', identity: { token: 'canary-own-token' } },
};

const REFUSED: Readonly<Record<string, RegExp>> = {
  'gke.yaml':
    /^user "gke_project_europe-west3_prod": "exec" would run a command: register a token or a client certificate/,
  'gke-legacy.yaml': /"auth-provider" would run a plugin: register a token or a client certificate/,
  'aks-kubelogin.yaml': /"exec" would run a command: register a token or a client certificate/,
  'k3s-as-it-is.yaml':
    /^server: 127\.0\.0\.1 is a loopback or link-local address: give the address by which AWS/,
  'kind.yaml': /^server: 127\.0\.0\.1 is a loopback or link-local address/,
  'kubeadm-kubelet.yaml':
    /"client-certificate" names a file: embed it.*"client-key" names a file: embed it.*flatten/,
  'minikube.yaml':
    /"certificate-authority" names a file: embed it as certificate-authority-data \(kubectl config view --flatten/,
  'openshift-insecure.yaml': /"insecure-skip-tls-verify" would send the credentials to any server/,
  'hostile-exec.yaml': /^user "u": "exec" would run a command: register a token or a client certificate/,
  'hostile-endpoint.yaml': /^user "u": "exec" has the option --endpoint-url, which is not supported/,
  'hostile-files.yaml':
    /^user "u": "tokenFile" names a file.*"client-certificate" names a file.*"client-key" names a file/,
  'hostile-runtime.yaml': /^server: 127\.0\.0\.1 is a loopback or link-local address/,
  'hostile-foreign-server.yaml':
    /^the server is not the endpoint that EKS returns for the cluster prod, so the refresher sends it no token/,
  'hostile-foreign-role.yaml': /^the refresher may not assume arn:aws:iam::123456789012:role\/admin/,
  'hostile-types.yaml': /^cluster "c": server: must be an https URL$/,
  'hostile-impersonation.yaml': /^user "u": "as" impersonates: register the identity itself$/,
  'hostile-aliases.yaml': /^it is not YAML$/,
  'basic-auth.yaml': /"username" is basic authentication.*register a token or a client certificate/,
};

test('the two tables cover every file of the directory', () => {
  expect([...Object.keys(ACCEPTED), ...Object.keys(REFUSED)].sort()).toEqual(readdirSync(DIRECTORY).sort());
});

describe('a file is accepted', () => {
  const inPem = (access: UsableAccess): UsableAccess =>
    JSON.parse(JSON.stringify(access), (_, value) =>
      typeof value === 'string' && value.startsWith('-----BEGIN ') ? 'pem' : value,
    );

  for (const [name, { server, identity, ca }] of Object.entries(ACCEPTED)) {
    for (const form of ['as it is written', 'as JSON', 'with CRLF']) {
      test(`${name}, ${form}`, async () => {
        const yaml = file(name);
        const text = { 'as JSON': JSON.stringify(parse(yaml)), 'with CRLF': yaml.replaceAll('\n', '\r\n') }[
          form
        ];
        const { isLocalAllowed: _, ...access } = inPem(await read(text ?? yaml));
        const { identity: shown } = access;
        const identityRead = 'eks' in identity ? { eks: 'token' in shown && signed(shown.token) } : shown;
        expect({ ...access, identity: identityRead }).toEqual({
          server,
          identity,
          ...(ca !== false && { ca: 'pem' }),
          ...('eks' in identity && { registeredAs: 'eks' }),
        });
      });
    }
  }

  /** The cluster of the last EKS call, and the region and role in the token. */
  function signed(token: string): Signed {
    const url = new URL(Buffer.from(token.replace(/^k8s-aws-v1\./, ''), 'base64url').toString());
    const [key, , region = ''] = url.searchParams.get('X-Amz-Credential')?.split('/') ?? [];
    const call = eks.calls.at(-1);
    expect([url.hostname, call?.accessKeyId, call?.region]).toEqual([
      `sts.${region}.amazonaws.com`,
      key,
      region,
    ]);
    const role = key === OWN_KEY ? undefined : aws.stsCalls.at(-1)?.role;
    return { cluster: call?.cluster ?? '', region, ...(role !== undefined && { role }) };
  }

  test('the context that a tag names is read instead of the current one', async () => {
    expect(await read(file('rancher.yaml'), 'prod-node-1')).toMatchObject({
      server: 'https://10.0.0.11:6443',
      identity: { token: 'kubeconfig-user-abcde:canary-rancher-token' },
    });
  });
});

describe('a file is refused', () => {
  for (const [name, says] of Object.entries(REFUSED)) {
    test(name, async () => {
      const roles = aws.stsCalls.length;
      expect(await refusalOf(file(name))).toMatch(says);
      // The refresher assumed no role.
      expect(aws.stsCalls).toHaveLength(roles);
    });
  }
});

describe('a hostile kubeconfig', () => {
  const CA = parse(file('microk8s.yaml')).clusters[0].cluster['certificate-authority-data'];
  const config = (cluster: object, user: object = { token: 'canary' }) =>
    JSON.stringify({
      'current-context': 'c',
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
      clusters: [
        { name: 'c', cluster: { server: 'https://c.example', 'certificate-authority-data': CA, ...cluster } },
      ],
      users: [{ name: 'u', user }],
    });
  const exec = (command: string, ...args: string[]) => ({ exec: { command, args } });

  test.each([
    'https://2130706433/',
    'https://0177.0.0.1',
    'https://0x7f.1',
    'https://127.1',
    'https://127.0.0.1.',
    'https://１２７。0。0。1',
    'https://0',
    'https://0.0.0.0',
    'https://2852039166',
    'https://0xa9fea9fe',
    'https://0251.0376.0251.0376',
    'https://169.254.169.254',
    'https://169.254.170.2',
    'https://[::1]:6443',
    'https://[::]',
    'https://[0:0:0:0:0:0:0:1]',
    'https://[::ffff:127.0.0.1]',
    'https://[::ffff:7f00:1]',
    'https://[::ffff:169.254.169.254]',
    'https://[fd00:ec2::254]',
    'https://[fe80::1]',
  ])('with the server or the proxy %s is refused as local', async (server) => {
    expect(await refusalOf(config({ server }))).toMatch(/^server: .* is a loopback or link-local address/);
    expect(await refusalOf(config({ 'proxy-url': server }))).toMatch(
      /^proxy-url: .* is a loopback or link-local address/,
    );
  });

  test.each([
    { name: 'localhost', says: /localhost is \S+, which is a loopback or link-local address/ },
    { name: 'LOCALHOST', says: /localhost is \S+, which is a loopback or link-local address/ },
    // Not every resolver has this name.
    {
      name: 'localhost.',
      says: /localhost\. is \S+, which is a loopback or link-local address|ENOTFOUND|EAI_AGAIN/,
    },
  ])('with the server $name is refused when the name is resolved', async ({ name, says }) => {
    await using here = await startApiServer((_, response) => json(response, page([])));
    const { port } = new URL(here.url);
    const access = await read(config({ server: `https://${name}:${port}` }));
    await using api = new KubernetesApi(access, 1, AbortSignal.timeout(10_000));
    await expect(api.check()).rejects.toThrow(says);
    expect(here.connections).toBe(0);
  });

  test('with a query in the server URL does not change the query of requests', async () => {
    await using here = await startApiServer((_, response) => json(response, page([])));
    const server = `${here.url}/x/../base/?canary=1&x=#canary`;
    const ca = Buffer.from(here.caPem).toString('base64');
    const access = readKubeconfig(config({ server, 'certificate-authority-data': ca }));
    await using api = new KubernetesApi(
      { ...access, identity: { token: 'canary' }, isLocalAllowed: true },
      1,
      AbortSignal.timeout(10_000),
    );
    await api.enabledNamespaces();
    expect(here.requests.map(({ path, query }) => [path, [...query.keys()]])).toEqual([
      ['/base/api/v1/namespaces', ['labelSelector', 'limit']],
    ]);
  });

  test.each([
    { server: 'https://me:canary@c.example', says: /must not hold a user or a password/ },
    ...[
      'https:/me:canary@c',
      'https:me:canary@c',
      'https:///me:canary@c',
      'HTTPS://:canary@c',
      ' https:\\\\me@c',
    ].map((server) => ({ server, says: /must not hold a user or a password/ })),
    { server: 'http://c.example', says: /must be an https URL/ },
    { server: 'https://c.example:99999', says: /must be an https URL/ },
    { server: 'https://[fe80::1%25eth0]', says: /must be an https URL/ },
    { server: 'file:///etc/passwd', says: /must be an https URL/ },
    { server: 'c.example', says: /must be an https URL/ },
    { server: ['https://c.example'], says: /server: / },
    { server: '', says: /must be an https URL/ },
  ])('with the server $server is refused', async ({ server, says }) => {
    expect(await refusalOf(config({ server }))).toMatch(says);
  });

  test('with an invalid tls-server-name is refused, because TLS errors quote it', async () => {
    for (const name of [
      'canary\nERROR forged',
      'canary\0',
      'canary/',
      'a canary',
      'x'.repeat(254),
      'ä.example',
    ])
      expect(await refusalOf(config({ 'tls-server-name': name }))).toBe(
        'cluster "c": tls-server-name: is not a host name',
      );
    for (const name of ['kubernetes.default.svc', '_x.example.', '10.0.0.1', '::1'])
      expect(await read(config({ 'tls-server-name': name }))).toMatchObject({ serverName: name });
  });

  test.each([
    'http://%zz:canary@proxy.example:3128',
    'http://u:canary%e4@proxy.example',
    'http://proxy.example/canary',
    'https://proxy.example?canary',
    'https://proxy.example/#canary',
  ])('with the proxy %s is refused', async (url) => {
    expect(await refusalOf(config({ 'proxy-url': url }))).toBe(
      'cluster "c": proxy-url: must not hold more than a user, a password, a host and a port',
    );
  });

  test('with a password in the proxy URL keeps it out of errors', async () => {
    await using here = await startApiServer((_, response) => json(response, page([])));
    const access = readKubeconfig(
      config({ server: here.url, 'proxy-url': 'http://u:canary%20%25@127.0.0.1:1/' }),
    );
    const usable = { ...access, identity: { token: 'canary' }, isLocalAllowed: true };
    await using api = new KubernetesApi(usable, 1, AbortSignal.timeout(10_000));
    await expect(api.check()).rejects.toThrow(
      /^GET \/api\/v1\/namespaces: connection refused: connect ECONNREFUSED 127\.0\.0\.1:1$/,
    );
    expect(here.connections).toBe(0);
  });

  test.each(['/tmp/aws', './aws', '../../aws', 'aws.exe', 'C:\\tmp\\aws.exe', '/tmp/a b;c/aws'])(
    'with the exec command %s is accepted without running it',
    async (command) => {
      const server = `${EKS}.gr7.eu-central-1.eks.amazonaws.com`;
      const access = await read(
        config({ server }, exec(command, 'eks', 'get-token', '--cluster-name', 'prod')),
      );
      expect(access).toMatchObject({ server, identity: { token: expect.stringMatching(/^k8s-aws-v1\./) } });
    },
  );

  test.each([
    '',
    'aws ',
    'AWS',
    'aws.cmd',
    'aws.exe.exe',
    'aws/',
    '/tmp/aws/sh',
    'aws;canary',
    '$(canary)',
    'aws\n',
    'aws\0',
    'constructor',
    '__proto__',
    '/usr/bin/toString',
  ])('with the exec command %j is refused', async (command) => {
    expect(await refusalOf(config({}, exec(command, 'eks', 'get-token', '--cluster-name', 'prod')))).toMatch(
      /^user "u": "exec" would run a command/,
    );
  });

  test.each([
    { title: 'a shell as the command', user: exec('sh', '-c', 'aws eks get-token --cluster-name prod') },
    {
      title: 'a command whose name ends in aws',
      user: exec('/tmp/not-aws', 'eks', 'get-token', '--cluster-name', 'prod'),
    },
    { title: 'arguments in the command', user: exec('aws eks get-token', '--cluster-name', 'prod') },
    {
      title: 'an option that is a property of Object',
      user: exec('aws', 'eks', 'get-token', '--__proto__', 'x'),
    },
    { title: 'another service', user: exec('aws', 's3', 'cp', '--cluster-name', 'prod') },
    { title: 'the subcommand in one argument', user: exec('aws', 'eks get-token', '--cluster-name', 'prod') },
    {
      title: 'a further positional argument',
      user: exec('aws', 'eks', 'get-token', 'canary', '--cluster-name', 'prod'),
    },
    {
      title: 'an endpoint URL',
      user: exec('aws', 'eks', 'get-token', '--cluster-name', 'p', '--endpoint-url', 'https://canary'),
    },
    {
      title: 'a cluster with a path in it',
      user: exec('aws', 'eks', 'get-token', '--cluster-name', '../canary'),
    },
    {
      title: 'a cluster with shell in it',
      user: exec('aws', 'eks', 'get-token', '--cluster-name', '$(canary)'),
    },
    {
      title: 'a host name as the region',
      user: exec('aws', 'eks', 'get-token', '--cluster-name', 'p', '--region', 'x.canary.example/'),
    },
    {
      title: 'an invalid role ARN',
      user: exec('aws', 'eks', 'get-token', '--cluster-name', 'p', '--role-arn', 'canary'),
    },
    {
      title: 'two roles',
      user: exec(
        'aws',
        'eks',
        'get-token',
        '--cluster-name',
        'p',
        '--role',
        'arn:aws:iam::123456789012:role/a',
        '--role-arn',
        'arn:aws:iam::123456789012:role/b',
      ),
    },
    {
      title: 'a variable that loads code',
      user: {
        exec: {
          command: 'aws',
          args: ['eks', 'get-token', '--cluster-name', 'p'],
          env: [{ name: 'LD_PRELOAD', value: '/canary' }],
        },
      },
    },
    {
      title: 'a token beside it',
      user: { ...exec('aws', 'eks', 'get-token', '--cluster-name', 'p'), token: 'canary' },
    },
    { title: 'a string in its place', user: { exec: 'aws eks get-token' } },
    { title: 'arguments that are not strings', user: { exec: { command: 'aws', args: [['canary']] } } },
  ])('with an exec entry with $title is refused', async ({ user }) => {
    expect(await refusalOf(config({}, user))).toMatch(/^user "u": "exec" /);
  });

  const NOT_STRINGS: unknown[] = [null, 1, true, [], ['canary'], {}, { canary: 1 }, [null], [{}]];
  const withField = (field: string) => (value: unknown) =>
    JSON.stringify({ ...JSON.parse(config({})), [field]: value });
  const noKubeconfig = /^(it is not a kubeconfig|there is no)/;
  test.each<{ field: string; values: unknown[]; text: (value: unknown) => string; says: RegExp }>([
    ...['contexts', 'clusters', 'users'].map((field) => ({
      field,
      values: [...NOT_STRINGS, 'canary'],
      text: withField(field),
      says: noKubeconfig,
    })),
    {
      field: 'current-context',
      values: NOT_STRINGS,
      text: withField('current-context'),
      says: noKubeconfig,
    },
    ...['token', 'client-certificate-data', 'client-key-data'].map((field) => ({
      field,
      values: NOT_STRINGS,
      text: (value: unknown) => config({}, { [field]: value }),
      says: /^user "u"/,
    })),
    ...['certificate-authority-data', 'tls-server-name', 'proxy-url'].map((field) => ({
      field,
      values: NOT_STRINGS,
      text: (value: unknown) => config({ [field]: value }),
      says: /^cluster "c"/,
    })),
  ])('with $field of another type is refused', async ({ values, text, says }) => {
    for (const value of values) expect(await refusalOf(text(value))).toMatch(says);
  });

  test('of any other text is refused', async () => {
    for (const text of [
      '',
      ' ',
      'canary',
      '[]',
      '42',
      'null',
      '{',
      '\0',
      '- - -',
      '\t- canary',
      '%YAML 9',
      '---\na: 1\n---\nb: 2',
    ])
      expect(await refusalOf(text)).toMatch(/^it is not (YAML|a kubeconfig)/);
  });

  test('may begin with a byte order mark', async () => {
    expect(await read(`\uFEFF${config({})}`)).toMatchObject({ server: 'https://c.example' });
  });

  test.each([
    { tag: '!!js/function "canary"', token: 'canary' },
    { tag: '!canary "canary"', token: 'canary' },
    { tag: '!!str 42', token: '42' },
  ])('with the YAML tag $tag has a string as its token', async ({ tag, token }) => {
    expect((await read(config({}).replace('"canary"', tag))).identity).toEqual({ token });
  });

  test.each([
    '!!python/object/apply:os.system ["canary"]',
    '!!binary Y2FuYXJ5',
    '!!set {canary}',
    '!!int "42"',
    '!!timestamp 2026-11-24',
  ])('with the YAML tag %s is refused, because its token is not a string', async (tag) => {
    expect(await refusalOf(config({}).replace('"canary"', tag))).toMatch(
      /^user "u": token: Invalid input: expected string/,
    );
  });

  test('has merge keys only in YAML 1.1, as in kubectl', async () => {
    const text = `---\n${config({}, {})}`.replace('"user":{}', '"user":{<<: {token: canary}}');
    expect((await read(`%YAML 1.1\n${text}`)).identity).toEqual({ token: 'canary' });
    expect(await refusalOf(text)).toMatch(/^user "u" has neither a token nor/);
  });

  test('with NUL in a token, in PEM or in a host name is refused', async () => {
    expect(await refusalOf(config({}, { token: 'canary\0x' }))).toMatch(
      /contains characters that a token cannot contain/,
    );
    expect(await refusalOf(config({}).replace('"canary"', '"canary\0"'))).toMatch(
      /contains characters that a token cannot contain/,
    );
    expect(await refusalOf(config({ 'certificate-authority-data': `${CA}\0` }))).toMatch(/base64/);
    expect(await refusalOf(config({ server: 'https://c\0.example' }))).toMatch(/must be an https URL/);
  });

  test('may be indented with tabs in JSON, and not in YAML', async () => {
    const indented = JSON.stringify(JSON.parse(config({})), null, '\t');
    expect((await read(indented)).identity).toEqual({ token: 'canary' });
    expect(await refusalOf('current-context: c\ncontexts:\n\t- name: c')).toBe('it is not YAML');
  });

  test('with keys such as __proto__ changes no object', async () => {
    const access = await read(
      config({}).replace('{"token"', '{"__proto__": {"exec": {}}, "constructor": 1, "token"'),
    );
    expect(access.identity).toEqual({ token: 'canary' });
    expect(({} as Record<string, unknown>).exec).toBeUndefined();
  });

  test('with thousands of keys is parsed fast, and a duplicate key is found', async () => {
    const keys = Array.from({ length: 12_000 }, (_, i) => `k${i.toString(36)}`).join(',');
    const text = (more: string) => config({}).replace('{"token"', `{${keys},${more}"token"`);
    const duration = async (work: () => unknown) => {
      const startedAt = performance.now();
      await work();
      return performance.now() - startedAt;
    };
    const ours = await duration(async () =>
      expect((await read(text(''))).identity).toEqual({ token: 'canary' }),
    );
    // The parser's own check compares each key with each other: two seconds.
    expect(ours).toBeLessThan((await duration(() => parse(text('')))) / 3);
    expect(await refusalOf(text('"k1": 2, '))).toBe('it is not YAML');
    expect(await refusalOf(config({}).replace('{"token"', '{"token": "canary-2", "token"'))).toBe(
      'it is not YAML',
    );
  });

  describe('is parsed in linear time with', () => {
    const getToken = ['eks', 'get-token', '--cluster-name', 'p'];
    const numbers = (count: number) => Array.from({ length: count }, (_, i) => i.toString(36));
    /** CPU time of this process, because the machine may be busy. */
    const cpuMs = async (work: () => unknown) => {
      const before = process.cpuUsage();
      await work();
      const { user, system } = process.cpuUsage(before);
      return (user + system) / 1000;
    };

    test.each([
      {
        title: 'many slashes in the server URL',
        text: config({ server: `https://c.example${'/'.repeat(60_000)}x` }),
        says: undefined,
      },
      {
        title: 'a very long command that ends in a slash',
        text: config({}, exec(`${'a'.repeat(60_000)}/`, ...getToken)),
        says: /would run a command/,
      },
      {
        title: 'an alias for each of many anchors',
        text: `a: [${numbers(5_000).map((name) => `&${name} 1`)}]\nb: [${numbers(5_000).map((name) => `*${name}`)}]`,
        says: /^it is not YAML$/,
      },
      {
        title: 'an alias to a list of many aliases',
        text: `a: [${numbers(3_000).map((name) => `&${name} 1`)}]\nb: &b [${numbers(3_000).map((name) => `*${name}`)}]\nc: *b`,
        says: /^it is not YAML$/,
      },
    ])('$title', async ({ text, says }) => {
      const work = () => (says ? refusalOf(text) : read(text));
      const ms = await cpuMs(work);
      if (says) expect(await refusalOf(text)).toMatch(says);
      // Quadratic time would be two to ten seconds, and all clusters would wait.
      expect(ms).toBeLessThan(1_000);
    });
  });

  test('may have 100 aliases and no more', async () => {
    // To two anchors, because the parser itself limits the aliases to one.
    const aliases = (count: number) =>
      config({}).replace(
        '{"token"',
        `{"x":[&a 1,&b 2],"y":[${Array.from({ length: count }, (_, i) => (i % 2 ? '*a' : '*b'))}],"token"`,
      );
    expect((await read(aliases(100))).identity).toEqual({ token: 'canary' });
    expect(await refusalOf(aliases(101))).toBe('it is not YAML');
  });

  test('with aliases that expand without end is refused', async () => {
    const levels = 'abcdefghijkl'.split('');
    const bomb = levels.map((name, i) => {
      const before = levels[i - 1];
      const item = before ? `*${before}` : '"canary"';
      return `${name}: &${name} [${Array(10).fill(item).join(', ')}]`;
    });
    const before = process.memoryUsage().heapUsed;
    const startedAt = performance.now();
    expect(await refusalOf(bomb.join('\n'))).toMatch(/^it is not (YAML|a kubeconfig)/);
    // Expanded, it would have 10¹² items.
    expect(performance.now() - startedAt).toBeLessThan(5_000);
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(200e6);
  });

  test('with an alias to itself is refused', async () => {
    expect(await refusalOf('contexts: &a [*a]\nclusters: *a\nusers: *a\ncurrent-context: c')).toMatch(
      /^it is not/,
    );
  });

  test('with very deep nesting is refused', async () => {
    for (const text of [
      '['.repeat(65_536),
      '['.repeat(32_768) + ']'.repeat(32_768),
      `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`,
      '- '.repeat(32_768),
    ])
      expect(await refusalOf(text)).toBe('it is not YAML');
    expect(await refusalOf('['.repeat(100_000))).toBe('it is larger than 65536 bytes');
  });

  test('with many errors or long names is refused with a short message on one line', async () => {
    const long = 'x'.repeat(30_000);
    const getToken = ['eks', 'get-token'];
    for (const text of [
      config({}).replace('"contexts":[', `"contexts":[${'{},'.repeat(20_000)}`),
      config({}).replace('"current-context":"c"', `"current-context":"${long}"`),
      config({}, {}).replaceAll('"u"', `"${long}"`),
      config({ server: 'http://c.example' }).replaceAll('"c"', `"${long}"`),
      config({}, exec('aws', ...getToken, `--${long}`)),
      config({}, exec('aws', ...getToken, '--x\nERROR forged')),
      config({}, { exec: { command: 'aws', args: getToken, env: [{ name: `${long}\n`, value: '' }] } }),
      config({}, {}).replaceAll('"u"', '"u\\r\\nERROR forged"'),
      config({}, {}).replaceAll('"u"', '"u\u2028ERROR \u202edegrof\u2029"'),
    ])
      expect(await refusalOf(text)).not.toBe('');
    const role = `arn:aws:iam::123456789012:role/${long}`;
    expect(
      await refusalOf(config({}, exec('aws', ...getToken, '--cluster-name', 'p', '--role-arn', role))),
    ).toMatch(/is not the ARN of a role/);
  });

  test('with a very long host name fails with a short message', async () => {
    const access = await read(
      config({ server: `https://${'x.'.repeat(20_000)}example` }, { token: 'canary' }),
    );
    await using api = new KubernetesApi(access, 1, AbortSignal.timeout(10_000));
    const error: Error = await api.check().then(
      () => new Error('it was reached'),
      (reason) => reason,
    );
    expect(error.message).toMatch(/^GET .*: getaddrinfo/);
    expect(error.message.length).toBeLessThan(700);
  });

  test('above the size limit of Secrets Manager is refused', async () => {
    expect(await refusalOf(`${config({})}\n# ${'canary '.repeat(800_000)}`)).toMatch(
      /larger than 65536 bytes/,
    );
  });

  test.each(['contexts', 'clusters', 'users'])('with two %s of the same name is refused', async (field) => {
    const text = JSON.parse(config({}));
    text[field].push(text[field][0]);
    expect(await refusalOf(JSON.stringify(text))).toMatch(
      /^there is more than one (context|cluster|user) named/,
    );
  });
});

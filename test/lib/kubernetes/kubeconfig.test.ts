// Tests the parser with kubeconfigs in the form that common tools write: it reads each, or its refusal names the field at
// fault and quotes no value.
import { expect, test } from 'vitest';
import { type RegisteredAccess, readKubeconfig } from '../../../lib/kubernetes/kubeconfig.ts';

/** Values that no message may contain. */
const TOKEN = 'canary-token-3f9b';
const PASSWORD = 'canary-password-77aa';
const pem = (kind: string) => `-----BEGIN ${kind}-----\nY2FuYXJ5${kind.length}\n-----END ${kind}-----\n`;
const CA = pem('CERTIFICATE');
const CERT = pem('CERTIFICATE');
const KEY = pem('EC PRIVATE KEY');
const base64 = (text: string) => Buffer.from(text).toString('base64');
const CANARIES = [TOKEN, PASSWORD, 'Y2FuYXJ5', base64(CA), base64(KEY), base64(CA).slice(20, 60)];

interface Parts {
  server?: string;
  ca?: string;
  cluster?: string;
  user?: string;
  name?: string;
}

/** A kubeconfig with one context, in YAML's flow style. It is valid with the defaults. */
function kubeconfig({
  server = 'https://cluster.example:6443',
  ca = base64(CA),
  cluster = '',
  user = `token: ${TOKEN}`,
  name = 'main',
}: Parts = {}): string {
  return `apiVersion: v1
kind: Config
preferences: {}
current-context: ${name}
contexts: [{name: ${name}, context: {cluster: ${name}, user: ${name}, namespace: default}}]
clusters: [{name: ${name}, cluster: {server: "${server}", certificate-authority-data: ${ca}${cluster}}}]
users: [{name: ${name}, user: {${user}}}]
`;
}

const clientCertificate = `client-certificate-data: ${base64(CERT)}, client-key-data: ${base64(KEY)}`;

const accepted: { title: string; text: string; access: RegisteredAccess }[] = [
  {
    title: 'a bearer token',
    text: kubeconfig(),
    access: { server: 'https://cluster.example:6443', ca: CA, identity: { token: TOKEN } },
  },
  {
    title: 'admin.conf of kubeadm',
    text: kubeconfig({ name: 'kubernetes-admin@kubernetes', user: clientCertificate }),
    access: { server: 'https://cluster.example:6443', ca: CA, identity: { cert: CERT, key: KEY } },
  },
  {
    title: 'k3s.yaml of k3s, with the address of the server',
    text: kubeconfig({ name: 'default', server: 'https://10.0.0.7:6443', user: clientCertificate }),
    access: { server: 'https://10.0.0.7:6443', ca: CA, identity: { cert: CERT, key: KEY } },
  },
  {
    title: 'the kubeconfig of kind',
    text: kubeconfig({ name: 'kind-dev', server: 'https://127.0.0.1:45921', user: clientCertificate }),
    access: { server: 'https://127.0.0.1:45921', ca: CA, identity: { cert: CERT, key: KEY } },
  },
  {
    title: 'an admin of AKS with a certificate and a token, as the token',
    text: kubeconfig({ name: 'clusterAdmin_rg_aks', user: `${clientCertificate}, token: ${TOKEN}` }),
    access: { server: 'https://cluster.example:6443', ca: CA, identity: { token: TOKEN } },
  },
  {
    title: 'a token of Rancher with a path in the URL of the server',
    text: kubeconfig({ server: 'https://rancher.example/k8s/clusters/c-m-abc/' }),
    access: { server: 'https://rancher.example/k8s/clusters/c-m-abc', ca: CA, identity: { token: TOKEN } },
  },
  {
    title: 'a token of OpenShift without a certificate authority',
    text: `apiVersion: v1
clusters:
- cluster:
    server: https://api.prod.example:6443
  name: api-prod-example:6443
contexts:
- context:
    cluster: api-prod-example:6443
    namespace: default
    user: kube:admin/api-prod-example:6443
  name: default/api-prod-example:6443/kube:admin
current-context: default/api-prod-example:6443/kube:admin
kind: Config
preferences: {}
users:
- name: kube:admin/api-prod-example:6443
  user:
    token: ${TOKEN}
`,
    access: { server: 'https://api.prod.example:6443', identity: { token: TOKEN } },
  },
  {
    title: 'the second of two contexts',
    text: `current-context: b
contexts:
- {name: a, context: {cluster: a, user: a}}
- {name: b, context: {cluster: b, user: b}}
clusters:
- {name: a, cluster: {server: "http://a.example", insecure-skip-tls-verify: true}}
- {name: b, cluster: {server: "https://b.example"}}
users:
- {name: a, user: {exec: {command: aws}}}
- {name: b, user: {token: ${TOKEN}}}
`,
    access: { server: 'https://b.example', identity: { token: TOKEN } },
  },
  {
    title: 'JSON',
    text: JSON.stringify({
      'current-context': 'main',
      contexts: [{ name: 'main', context: { cluster: 'main', user: 'main' } }],
      clusters: [{ name: 'main', cluster: { server: 'https://cluster.example' } }],
      users: [{ name: 'main', user: { token: TOKEN } }],
    }),
    access: { server: 'https://cluster.example', identity: { token: TOKEN } },
  },
  {
    title: 'insecure-skip-tls-verify: false',
    text: kubeconfig({ cluster: ', insecure-skip-tls-verify: false' }),
    access: { server: 'https://cluster.example:6443', ca: CA, identity: { token: TOKEN } },
  },
  {
    title: 'tls-server-name',
    text: kubeconfig({ cluster: ', tls-server-name: kubernetes.default.svc' }),
    access: {
      server: 'https://cluster.example:6443',
      ca: CA,
      serverName: 'kubernetes.default.svc',
      identity: { token: TOKEN },
    },
  },
  {
    title: 'an HTTP proxy with a password',
    text: kubeconfig({ cluster: `, proxy-url: "http://u:${PASSWORD}@proxy:3128"` }),
    access: {
      server: 'https://cluster.example:6443',
      ca: CA,
      proxyUrl: `http://u:${PASSWORD}@proxy:3128`,
      identity: { token: TOKEN },
    },
  },
  {
    title: 'EKS as "aws eks update-kubeconfig" writes it',
    text: kubeconfig({
      name: 'arn:aws:eks:eu-central-1:123456789012:cluster/prod',
      user: 'exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: aws, args: [--region, eu-central-1, eks, get-token, --cluster-name, prod, --output, json], env: null, interactiveMode: IfAvailable, provideClusterInfo: false}',
    }),
    access: {
      server: 'https://cluster.example:6443',
      ca: CA,
      identity: { eks: { cluster: 'prod', region: 'eu-central-1' } },
    },
  },
  {
    title: 'empty fields as absent ones',
    text: kubeconfig({
      cluster: ', tls-server-name: "", proxy-url: "", certificate-authority: ""',
      user: `${clientCertificate}, token: "", tokenFile: "", username: ""`,
    }),
    access: { server: 'https://cluster.example:6443', ca: CA, identity: { cert: CERT, key: KEY } },
  },
  {
    title: 'base64 in lines of 64, as base64(1) writes it',
    text: kubeconfig({ ca: `"${(base64(CA).match(/.{1,64}/g) ?? []).join('\\n')}\\n"` }),
    access: { server: 'https://cluster.example:6443', ca: CA, identity: { token: TOKEN } },
  },
  {
    title: 'a token with a trailing line break',
    text: kubeconfig({ user: `token: "${TOKEN}\\n"` }),
    access: { server: 'https://cluster.example:6443', ca: CA, identity: { token: TOKEN } },
  },
];

test.each(accepted)('reads $title', ({ text, access }) => {
  expect(readKubeconfig(text)).toEqual(access);
});

test('reads the named context instead of the current one', () => {
  const text = `current-context: b
contexts: [{name: a, context: {cluster: c, user: a}}, {name: b, context: {cluster: c, user: b}}]
clusters: [{name: c, cluster: {server: "https://c.example"}}]
users: [{name: a, user: {token: ${TOKEN}}}, {name: b, user: {exec: {command: x}}}]
`;
  expect(readKubeconfig(text, 'a').identity).toEqual({ token: TOKEN });
  expect(readKubeconfig(text.replace(/^current.*\n/, ''), 'a').identity).toEqual({ token: TOKEN });
  expect(() => readKubeconfig(text)).toThrow('user "b": "exec" would run a command');
  expect(() => readKubeconfig(text, 'c')).toThrow('there is no context named "c"');
});

const aliasBomb = [
  `a: &a [${TOKEN},${TOKEN}]`,
  ...'bcdefghijklmnopq'
    .split('')
    .map((letter, i) => `${letter}: &${letter} [${Array(9).fill(`*${'abcdefghijklmnopq'[i]}`)}]`),
].join('\n');

const refused: { title: string; text: string; named: string[] }[] = [
  {
    title: 'an EKS exec entry with an access key in its environment',
    text: kubeconfig({
      name: 'arn:aws:eks:eu-central-1:123456789012:cluster/prod',
      user: `exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: aws, args: [eks, get-token, --cluster-name, prod], env: [{name: AWS_SECRET_ACCESS_KEY, value: ${PASSWORD}}]}`,
    }),
    named: [
      'user "arn:aws:eks:eu-central-1:123456789012:cluster/prod"',
      '"exec"',
      'AWS_SECRET_ACCESS_KEY',
      'remove it',
    ],
  },
  {
    title: 'the exec plugin of GKE',
    text: kubeconfig({
      name: 'gke_p_r_c',
      user: 'exec: {command: gke-gcloud-auth-plugin, provideClusterInfo: true}',
    }),
    named: ['user "gke_p_r_c"', '"exec"'],
  },
  {
    title: 'an exec entry beside a token',
    text: kubeconfig({ user: `token: ${TOKEN}, exec: {command: aws}` }),
    named: ['"exec"', 'together with another credential'],
  },
  {
    title: 'an auth-provider',
    text: kubeconfig({ user: `auth-provider: {name: gcp, config: {access-token: ${TOKEN}}}` }),
    named: ['"auth-provider"', 'register a token'],
  },
  {
    title: 'basic authentication',
    text: kubeconfig({ user: `username: admin, password: ${PASSWORD}` }),
    named: ['"username"', '"password"', 'basic authentication'],
  },
  {
    title: 'impersonation',
    text: kubeconfig({ user: `token: ${TOKEN}, as: admin` }),
    named: ['"as"'],
  },
  {
    title: 'files for certificate and key, as minikube writes them',
    text: kubeconfig({ user: 'client-certificate: /home/me/client.crt, client-key: /home/me/client.key' }),
    named: ['"client-certificate"', '"client-key"', '--flatten'],
  },
  {
    title: 'a file for the authority',
    text: kubeconfig({ cluster: ', certificate-authority: /etc/ca.crt' }),
    named: ['cluster "main"', '"certificate-authority"', '--flatten'],
  },
  {
    title: 'a file for the token',
    text: kubeconfig({ user: 'tokenFile: /var/run/token' }),
    named: ['"tokenFile"'],
  },
  {
    title: 'insecure-skip-tls-verify: true',
    text: kubeconfig({ cluster: ', insecure-skip-tls-verify: true' }),
    named: ['cluster "main"', '"insecure-skip-tls-verify"', 'certificate-authority-data'],
  },
  {
    title: 'a SOCKS proxy',
    text: kubeconfig({ cluster: `, proxy-url: "socks5://u:${PASSWORD}@proxy"` }),
    named: ['proxy-url', 'http', 'SOCKS'],
  },
  {
    title: 'an http URL of the server',
    text: kubeconfig({ server: 'http://cluster.example:8080' }),
    named: ['cluster "main"', 'server', 'https'],
  },
  {
    title: 'a server without a scheme',
    text: kubeconfig({ server: 'cluster.example:6443' }),
    named: ['server', 'https'],
  },
  {
    title: 'a password in the server',
    text: kubeconfig({ server: `https://admin:${PASSWORD}@cluster.example` }),
    named: ['cluster "main"', 'server'],
  },
  {
    title: 'a user without a credential',
    text: kubeconfig({ user: '' }),
    named: ['user "main"', 'neither a token'],
  },
  {
    title: 'a certificate without its key',
    text: kubeconfig({ user: `client-certificate-data: ${base64(CERT)}` }),
    named: ['user "main"', 'client-key-data'],
  },
  {
    title: 'the output of "kubectl config view" without --raw',
    text: kubeconfig({ ca: 'DATA+OMITTED', user: 'token: REDACTED' }),
    named: ['cluster "main"', 'certificate-authority-data', '--raw'],
  },
  {
    title: 'a token that "kubectl config view" replaced',
    text: kubeconfig({ user: 'token: REDACTED' }),
    named: ['user "main"', 'token', '--raw'],
  },
  {
    title: 'a token in several lines',
    text: kubeconfig({ user: `token: "${TOKEN}\\nx-other: header"` }),
    named: ['user "main"', 'token'],
  },
  {
    title: 'broken base64',
    text: kubeconfig({ user: `client-certificate-data: "%${TOKEN}", client-key-data: ${base64(KEY)}` }),
    named: ['user "main"', 'client-certificate-data', 'base64'],
  },
  {
    title: 'base64 of other text than PEM',
    text: kubeconfig({ ca: base64(TOKEN) }),
    named: ['cluster "main"', 'certificate-authority-data', 'PEM'],
  },
  {
    title: 'no current-context',
    text: kubeconfig().replace(/^current-context.*\n/m, ''),
    named: ['not a kubeconfig', 'current-context'],
  },
  {
    title: 'an empty current-context',
    text: kubeconfig().replace(/^current-context.*$/m, 'current-context: ""'),
    named: ['current-context'],
  },
  {
    title: 'a current context that does not exist',
    text: kubeconfig().replace(/^current-context.*$/m, 'current-context: other'),
    named: ['no context named "other"'],
  },
  {
    title: 'a cluster that does not exist',
    text: kubeconfig().replace('cluster: main,', 'cluster: other,'),
    named: ['no cluster named "other"'],
  },
  {
    title: 'a user that does not exist',
    text: kubeconfig().replace('user: main,', 'user: other,'),
    named: ['no user named "other"'],
  },
  {
    title: 'users that are not a list',
    text: kubeconfig().replace(/^users.*$/m, `users: {main: {token: ${TOKEN}}}`),
    named: ['users', 'array'],
  },
  {
    title: 'a number for a token',
    text: kubeconfig({ user: 'token: 123456' }),
    named: ['user "main"', 'token', 'string'],
  },
  { title: 'a token alone', text: TOKEN, named: ['not a kubeconfig'] },
  { title: 'a private key alone', text: KEY, named: ['not a kubeconfig'] },
  { title: 'text that is not YAML', text: `{${TOKEN}: [`, named: ['not YAML'] },
  { title: 'a truncated kubeconfig', text: kubeconfig().slice(0, -5), named: ['not YAML'] },
  { title: 'a key twice', text: `${kubeconfig()}users: []\n`, named: ['not YAML'] },
  { title: 'two documents', text: `${kubeconfig()}---\n${kubeconfig()}`, named: ['not YAML'] },
  { title: 'an alias bomb', text: aliasBomb, named: ['not YAML'] },
  { title: 'only spaces', text: ' \n', named: ['not a kubeconfig'] },
  {
    title: 'other text of the size limit of Secrets Manager',
    text: TOKEN.repeat(3_800),
    named: ['not a kubeconfig'],
  },
];

test.each(refused)('refuses $title', ({ text, named }) => {
  const message = refusalOf(text);
  for (const name of named) expect(message).toContain(name);
  for (const canary of CANARIES) expect(message).not.toContain(canary);
  expect(message.length).toBeLessThan(500);
});

function refusalOf(text: string): string {
  try {
    readKubeconfig(text);
  } catch (error) {
    expect(error).toMatchObject({ name: 'KubeconfigError' });
    return String(error);
  }
  return 'it was accepted';
}

test('no message quotes a value of a kubeconfig that is damaged at any position', () => {
  const whole = kubeconfig({ user: `token: ${TOKEN}, ${clientCertificate}, password: ${PASSWORD}` });
  const cuts = Array.from({ length: Math.floor(whole.length / 7) }, (_, i) => whole.slice(0, i * 7));
  const damaged = cuts.flatMap((head) => [head, `${head}\u0000:${whole.slice(head.length)}`]);
  const messages = damaged.map(refusalOf);
  expect(messages.filter((message) => message.includes('KubeconfigError')).length).toBeGreaterThan(100);
  for (const canary of CANARIES) expect(messages.join('\n')).not.toContain(canary);
});

// A real Kubernetes control plane without nodes: etcd and kube-apiserver on loopback. Services get loopback
// addresses, so the API server reaches a webhook that listens on its Service's ClusterIP as it would in a cluster.
import { execFile } from 'node:child_process';
import { generateKeyPairSync, randomBytes, randomInt } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { trust } from '../../lib/kubernetes/trust.ts';
import { type Authority, createAuthority } from './certificates.ts';
import { keepEvidence } from './evidence.ts';
import { freePorts, type Program, startProgram } from './process.ts';
import { tools } from './toolchain.ts';

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ControlPlane extends AsyncDisposable {
  readonly name: string;
  readonly dir: string;
  readonly server: string;
  readonly caPem: string;
  /** The authority of its serving certificate, and of accepted client certificates. */
  readonly authority: Authority;
  readonly adminKubeconfigPath: string;
  /** Runs kubectl as the administrator. @throws Error with kubectl's output, unless `mayFail` */
  kubectl(
    args: readonly string[],
    options?: { input?: string; mayFail?: boolean; kubeconfig?: string },
  ): Promise<CommandResult>;
  /** A kubeconfig (YAML) for a client certificate of this user. */
  kubeconfigFor(user: string, groups?: readonly string[]): Promise<string>;
  /** A kubeconfig (YAML) for a bearer token. */
  kubeconfigForToken(token: string): string;
  /** Restarts kube-apiserver at the same address. etcd stays. */
  restartApiServer(): Promise<void>;
  stop(): Promise<void>;
}

export interface ControlPlaneOptions {
  readonly name: string;
  /** Directory for everything it writes. */
  readonly dir: string;
  /** An AuthenticationConfiguration (YAML), written to authentication.yaml in `dir`; the API server reloads that file. */
  readonly authentication?: string;
  /** A kubeconfig (YAML) of the webhook that authenticates bearer tokens (TokenReview). */
  readonly tokenWebhook?: string;
  /** Another control plane's authority, so that certificates cannot tell the two apart. Default: a new one. */
  readonly authority?: Authority;
  /** For a cluster with a node (test/node): where Pods reach the API server. Default: loopback, and Services on loopback. */
  readonly network?: {
    /** An address of this machine that is not on loopback. */
    readonly address: string;
    /** The range of Services, and its first address: that of the Service `kubernetes`. */
    readonly serviceCidr: string;
    readonly kubernetesService: string;
  };
  /** Whether Pods need a ServiceAccount, which no controller creates here, and get its imagePullSecrets. Default: no. */
  readonly podsNeedServiceAccount?: true;
  /** Additional arguments of kube-apiserver. */
  readonly extraArgs?: readonly string[];
}

/** Starts a control plane. @throws Error with the end of a log if it does not become ready */
export async function startControlPlane({
  name,
  dir,
  authentication,
  tokenWebhook,
  authority: given,
  network,
  podsNeedServiceAccount,
  extraArgs = [],
}: ControlPlaneOptions): Promise<ControlPlane> {
  await mkdir(dir, { recursive: true });
  const { etcd: etcdPath, kubeApiserver, kubectl } = tools();
  const [etcdPort = 0, peerPort = 0, apiPort = 0] = await freePorts(3);
  const path = (file: string) => join(dir, file);
  const authority = given ?? (await createAuthority(`${name} control plane`));
  const serving = await authority.serving([
    ...['127.0.0.1', 'localhost', 'kubernetes.default.svc'],
    ...(network ? [network.address, network.kubernetesService] : []),
  ]);
  // Two test beds may race for a port: etcd requires certificates of this control plane's own authority, so that no
  // other API server can write to it.
  const etcdClient = await authority.client('kube-apiserver', []);
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const adminToken = randomBytes(24).toString('hex');
  await Promise.all([
    writeFile(path('ca.crt'), authority.caPem),
    writeFile(path('serving.crt'), serving.certPem),
    writeFile(path('serving.key'), serving.keyPem, { mode: 0o600 }),
    writeFile(path('etcd-client.crt'), etcdClient.certPem),
    writeFile(path('etcd-client.key'), etcdClient.keyPem, { mode: 0o600 }),
    writeFile(path('service-accounts.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }), {
      mode: 0o600,
    }),
    writeFile(path('authentication.yaml'), authentication ?? ''),
    writeFile(path('token-webhook.kubeconfig'), tokenWebhook ?? '', { mode: 0o600 }),
    writeFile(path('tokens.csv'), `${adminToken},admin,admin,system:masters\n`, { mode: 0o600 }),
  ]);

  const etcd = await startProgram(
    `etcd of ${name}`,
    etcdPath,
    [
      `--name=${name}`,
      `--data-dir=${path('etcd')}`,
      `--listen-client-urls=https://127.0.0.1:${etcdPort}`,
      `--advertise-client-urls=https://127.0.0.1:${etcdPort}`,
      `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
      `--initial-advertise-peer-urls=http://127.0.0.1:${peerPort}`,
      `--initial-cluster=${name}=http://127.0.0.1:${peerPort}`,
      `--cert-file=${path('serving.crt')}`,
      `--key-file=${path('serving.key')}`,
      `--trusted-ca-file=${path('ca.crt')}`,
      '--client-cert-auth',
      '--unsafe-no-fsync',
      '--log-level=warn',
    ],
    {
      env: {},
      logPath: path('etcd.log'),
      isReady: () =>
        answers(`https://127.0.0.1:${etcdPort}/health`, {
          ca: authority.caPem,
          cert: etcdClient.certPem,
          key: etcdClient.keyPem,
        }),
    },
  );

  // A random second byte within loopback: test beds that run side by side rarely share one, and a webhook whose
  // address is taken fails with an error.
  const serviceCidr = network?.serviceCidr ?? `127.${randomInt(16, 255)}.0.0/16`;
  const server = `https://127.0.0.1:${apiPort}`;
  const startApiServer = () =>
    startProgram(
      `kube-apiserver of ${name}`,
      kubeApiserver,
      [
        `--etcd-servers=https://127.0.0.1:${etcdPort}`,
        `--etcd-cafile=${path('ca.crt')}`,
        `--etcd-certfile=${path('etcd-client.crt')}`,
        `--etcd-keyfile=${path('etcd-client.key')}`,
        ...(network
          ? [
              '--bind-address=0.0.0.0',
              `--advertise-address=${network.address}`,
              '--kubelet-preferred-address-types=InternalIP',
            ]
          : [
              '--bind-address=127.0.0.1',
              // Kubernetes refuses to advertise a loopback address; no client uses this one.
              '--advertise-address=192.0.2.1',
              '--endpoint-reconciler-type=none',
              ...(podsNeedServiceAccount ? [] : ['--disable-admission-plugins=ServiceAccount']),
            ]),
        `--secure-port=${apiPort}`,
        `--tls-cert-file=${path('serving.crt')}`,
        `--tls-private-key-file=${path('serving.key')}`,
        `--client-ca-file=${path('ca.crt')}`,
        `--token-auth-file=${path('tokens.csv')}`,
        ...(authentication === undefined ? [] : [`--authentication-config=${path('authentication.yaml')}`]),
        ...(tokenWebhook === undefined
          ? []
          : [
              `--authentication-token-webhook-config-file=${path('token-webhook.kubeconfig')}`,
              '--authentication-token-webhook-version=v1',
            ]),
        '--authorization-mode=RBAC',
        `--service-cluster-ip-range=${serviceCidr}`,
        '--service-account-issuer=https://kubernetes.default.svc',
        `--service-account-key-file=${path('service-accounts.key')}`,
        `--service-account-signing-key-file=${path('service-accounts.key')}`,
        '--profiling=false',
        ...extraArgs,
      ],
      {
        env: {},
        logPath: path('kube-apiserver.log'),
        isReady: () => answers(`${server}/readyz`, { ca: authority.caPem, token: adminToken }),
      },
    );
  let apiServer: Program = await startApiServer().catch(async (error) => {
    await etcd.stop();
    throw error;
  });

  const kubeconfigForToken = (token: string) => kubeconfig(server, authority, { token });
  const adminKubeconfigPath = path('admin.kubeconfig');
  await writeFile(adminKubeconfigPath, kubeconfigForToken(adminToken), { mode: 0o600 });
  const stop = async () => {
    await apiServer.stop();
    await etcd.stop();
  };
  return {
    name,
    dir,
    server,
    caPem: authority.caPem,
    authority,
    adminKubeconfigPath,
    async kubectl(args, { input, mayFail = false, kubeconfig: as = adminKubeconfigPath } = {}) {
      const result = await runCommand(
        kubectl,
        args,
        { PATH: process.env.PATH ?? '', HOME: dir, KUBECONFIG: as },
        input,
      );
      keepEvidence('warnings', 'kubectl', result.stderr);
      if (result.code !== 0 && !mayFail)
        throw new Error(`kubectl ${args.join(' ')}: ${result.stderr.trim()}`);
      return result;
    },
    async kubeconfigFor(user, groups = []) {
      return kubeconfig(server, authority, await authority.client(user, groups));
    },
    kubeconfigForToken,
    async restartApiServer() {
      await apiServer.stop();
      apiServer = await startApiServer();
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Runs a program to completion with exactly the given environment. */
export function runCommand(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  input?: string,
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = execFile(command, args, { env, maxBuffer: 256 * 1024 * 1024 }, (error, stdout, stderr) => {
      const code = error ? error.code : 0;
      if (error && typeof code !== 'number') reject(new Error(`${command} cannot be run: ${error.message}`));
      else resolve({ code: Number(code), stdout, stderr });
    });
    // A program may end before it reads its input; its own output explains why.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input ?? '');
  });
}

function kubeconfig(
  server: string,
  { caPem }: Authority,
  identity: { token: string } | { certPem: string; keyPem: string },
): string {
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const user =
    'token' in identity
      ? `token: ${identity.token}`
      : `client-certificate-data: ${base64(identity.certPem)}\n    client-key-data: ${base64(identity.keyPem)}`;
  return `apiVersion: v1
kind: Config
current-context: bed
contexts:
- name: bed
  context:
    cluster: bed
    user: bed
clusters:
- name: bed
  cluster:
    server: ${server}
    certificate-authority-data: ${base64(caPem)}
users:
- name: bed
  user:
    ${user}
`;
}

/** Whether a server with a certificate of this authority answers a GET with 200. */
function answers(
  url: string,
  { token, ca, ...tls }: { ca: string; cert?: string; key?: string; token?: string },
): Promise<boolean> {
  return new Promise((resolve) => {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const asked = request(
      url,
      { ...trust(ca), ...tls, headers, timeout: 2_000, agent: false },
      (response) => {
        response.resume();
        resolve(response.statusCode === 200);
      },
    );
    asked.on('timeout', () => asked.destroy());
    asked.on('error', () => resolve(false));
    asked.end();
  });
}

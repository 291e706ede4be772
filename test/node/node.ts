// A whole Kubernetes node on a control plane of the test bed: containerd, kubelet, kube-proxy and DNS, with the scheduler and
// the controllers that make Deployments, Services and tokens the real thing. Runs in the machine that enter.sh makes.
import { mkdir, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { join } from 'node:path';
import { type ControlPlane, runCommand, startControlPlane } from '../bed/control-plane.ts';
import { startProgram } from '../bed/process.ts';
import { nodeTools } from '../bed/toolchain.ts';
import { ADDRESS, CGROUP, SERVICES } from './settings.ts';

const PODS = '10.87.0.0/16';
/** containerd's socket. */
export const CONTAINERD = '/run/containerd/containerd.sock';
const NAME = 'node';
/** All programs find Debian's packages here: enter.sh lays them over /usr. */
export const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

export interface NodeOptions {
  /** Directory for everything that it writes. */
  readonly dir: string;
  /** The image of the container that holds a Pod's network. */
  readonly pauseImage: string;
}

/** Starts a control plane with one node. @throws Error with the end of a log if a part does not become ready */
export async function startNode({ dir, pauseImage }: NodeOptions): Promise<ControlPlane & AsyncDisposable> {
  const cgroup = process.env[CGROUP];
  if (cgroup === undefined) throw new Error('a node would change this machine: run "npm run test:node"');
  const programs = nodeTools();
  await using undo = new AsyncDisposableStack();
  const cluster = undo.use(
    await startControlPlane({
      name: NAME,
      dir: join(dir, 'control-plane'),
      network: { address: ADDRESS, serviceCidr: SERVICES, kubernetesService: '10.96.0.1' },
    }),
  );
  const { adminKubeconfigPath: kubeconfig } = cluster;
  const path = (file: string) => join(dir, file);
  const start = async (name: string, command: string, args: string[], isReady: () => Promise<boolean>) =>
    undo.use(
      await startProgram(name, command, args, {
        env: { PATH, HOME: dir },
        logPath: path(`${name}.log`),
        isReady,
      }),
    );

  await write('/etc/cni/net.d/10-node.conflist', JSON.stringify(CNI));
  await write(path('containerd.toml'), containerd(dir, pauseImage));
  await start('containerd', '/usr/bin/containerd', ['--config', path('containerd.toml')], async () => {
    const { code } = await runCommand('/usr/bin/ctr', ['--address', CONTAINERD, 'version'], { PATH });
    return code === 0;
  });
  await Promise.all([
    start(
      'kube-controller-manager',
      programs.kubeControllerManager,
      [
        `--kubeconfig=${kubeconfig}`,
        `--service-account-private-key-file=${join(cluster.dir, 'service-accounts.key')}`,
        `--root-ca-file=${join(cluster.dir, 'ca.crt')}`,
        ...['--use-service-account-credentials', '--leader-elect=false', '--bind-address=127.0.0.1'],
        '--secure-port=0',
      ],
      async () => true,
    ),
    start(
      'kube-scheduler',
      programs.kubeScheduler,
      [`--kubeconfig=${kubeconfig}`, '--leader-elect=false', '--secure-port=0'],
      async () => true,
    ),
  ]);
  await write(path('kubelet.json'), JSON.stringify(kubelet(dir, cgroup)));
  await start(
    'kubelet',
    programs.kubelet,
    [
      `--config=${path('kubelet.json')}`,
      `--kubeconfig=${kubeconfig}`,
      `--root-dir=${path('kubelet')}`,
      `--node-ip=${ADDRESS}`,
      `--hostname-override=${NAME}`,
    ],
    () => isHealthy(KUBELET_HEALTH_PORT),
  );
  await write(path('kube-proxy.json'), JSON.stringify(kubeProxy(kubeconfig)));
  await start('kube-proxy', programs.kubeProxy, [`--config=${path('kube-proxy.json')}`], () =>
    isHealthy(PROXY_HEALTH_PORT),
  );
  await write(path('Corefile'), corefile(kubeconfig));
  await start('coredns', programs.coredns, ['-conf', path('Corefile')], async () => true);
  await cluster.kubectl(['wait', '--for=condition=Ready', `node/${NAME}`, '--timeout=60s']);

  const parts = undo.move();
  const stop = () => parts.disposeAsync();
  return { ...cluster, stop, [Symbol.asyncDispose]: stop };
}

async function write(path: string, text: string): Promise<void> {
  await mkdir(join(path, '..'), { recursive: true });
  await writeFile(path, text);
}

const CNI = {
  cniVersion: '0.4.0',
  name: 'pods',
  plugins: [
    {
      type: 'bridge',
      bridge: 'pods0',
      isGateway: true,
      // A Pod may reach itself through its Service.
      hairpinMode: true,
      ipam: {
        type: 'host-local',
        dataDir: '/run/node/cni',
        ranges: [[{ subnet: PODS }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
  ],
};

function containerd(dir: string, pauseImage: string): string {
  return `version = 2
root = "${join(dir, 'containerd')}"
state = "/run/containerd"
[grpc]
address = "${CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "${pauseImage}"
# A profile would stay loaded in the machine's kernel.
disable_apparmor = true
# runc fails where it may not lower the score.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
`;
}

const KUBELET_HEALTH_PORT = 10248;
const PROXY_HEALTH_PORT = 10256;

function kubelet(dir: string, cgroup: string): object {
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    address: ADDRESS,
    healthzBindAddress: '127.0.0.1',
    healthzPort: KUBELET_HEALTH_PORT,
    // Only this machine reaches it.
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    containerRuntimeEndpoint: `unix://${CONTAINERD}`,
    cgroupDriver: 'cgroupfs',
    cgroupRoot: `/${cgroup}`,
    clusterDNS: [ADDRESS],
    clusterDomain: 'cluster.local',
    resolvConf: '',
    volumePluginDir: join(dir, 'volume-plugins'),
    // Tests run on machines of every kind.
    failSwapOn: false,
    failCgroupV1: false,
    // A full disk of the machine must not evict Pods or delete images.
    evictionHard: {},
    imageGCHighThresholdPercent: 100,
  };
}

function kubeProxy(kubeconfig: string): object {
  return {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode: 'nftables',
    clientConnection: { kubeconfig },
    clusterCIDR: PODS,
    hostnameOverride: NAME,
    healthzBindAddress: `127.0.0.1:${PROXY_HEALTH_PORT}`,
    metricsBindAddress: '127.0.0.1:10249',
    // These settings belong to the whole machine.
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
  };
}

function corefile(kubeconfig: string): string {
  return `.:53 {
  bind ${ADDRESS}
  errors
  kubernetes cluster.local {
    kubeconfig ${kubeconfig}
  }
}
`;
}

function isHealthy(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    get({ host: '127.0.0.1', port, path: '/healthz', agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    }).on('error', () => resolve(false));
  });
}

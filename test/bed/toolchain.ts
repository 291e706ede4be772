// The test bed's programs that npm does not have: kube-apiserver, etcd, kubectl, helm 3 and 4, aws-iam-authenticator's
// token verifier, a Python with the local AWS, cfn-lint, and CustomResourceDefinitions of other projects. They are built
// once into a cache outside the checkout; the name of a cache entry is derived from its sources.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const SOURCES = fileURLToPath(new URL('toolchain', import.meta.url));

/** The Kubernetes versions of the test bed: that of nearly all tests, and the oldest that the chart supports. */
export const KUBERNETES = { newest: versionIn('kubernetes'), oldest: versionIn('kubernetes-oldest') };

/** Whether the control planes of this process have the oldest version: in the test project of that name (vitest.config.ts). */
export const IS_OLDEST_KUBERNETES = process.env.BED_KUBERNETES === 'oldest';
export const KUBERNETES_VERSION = IS_OLDEST_KUBERNETES ? KUBERNETES.oldest : KUBERNETES.newest;

/** The cache directory. */
export const CACHE =
  process.env.ECR_ANYWHERE_CACHE ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'ecr-anywhere');

export interface Tools {
  readonly kubeApiserver: string;
  readonly etcd: string;
  readonly kubectl: string;
  readonly helm: string;
  readonly helm4: string;
  /** aws-iam-authenticator's verifier of EKS bearer tokens; test/bed/toolchain/eks-token-verifier/main.go says how it
   * is asked. */
  readonly eksTokenVerifier: string;
  /** A folder of CustomResourceDefinitions, one in each *.yaml: cert-manager's, and those of prometheus-operator and Cilium for
   * what an application brings along. */
  readonly crds: string;
  /** A Python that has the local AWS. */
  readonly python: string;
  /** The linter of CloudFormation templates. */
  readonly cfnLint: string;
}

/** What a whole node needs in addition (test/node). */
export interface NodeTools {
  readonly kubelet: string;
  readonly kubeProxy: string;
  readonly kubeScheduler: string;
  readonly kubeControllerManager: string;
  readonly coredns: string;
  /** A static program that waits. */
  readonly pause: string;
  /** A folder with Debian's containerd, runc, buildah and so on, as they lie below /. */
  readonly packages: string;
}

interface Build {
  readonly title: string;
  /** The sources; their content determines the cache entry's name. */
  readonly inputs: readonly string[];
  /** A file of the result, whose existence shows that it was built. */
  readonly result: string;
  /** Whether it is built where it stays, because it contains its own path. Then the result must be written last. */
  readonly inPlace?: boolean;
  readonly commands: (target: string) => readonly { command: string; args: readonly string[]; cwd: string }[];
}

function goBuild(
  title: string,
  folder: string,
  result: string,
  packages: readonly string[],
  ldflags: string,
  sources: readonly string[] = [],
): Build {
  const cwd = join(SOURCES, folder);
  return {
    title,
    inputs: ['go.mod', 'go.sum', ...sources].map((file) => join(cwd, file)),
    result,
    commands: (target) =>
      packages.map((path) => ({
        command: 'go',
        // The program is named after the last element of its package path, except for etcd.
        args: [
          'build',
          '-mod=readonly',
          '-trimpath',
          // Go would read the state of the git checkout, which fails if another user owns it.
          '-buildvcs=false',
          '-ldflags',
          `-s -w ${ldflags}`,
          '-o',
          join(target, nameOf(path)),
          path,
        ],
        cwd,
      })),
  };
}

function nameOf(path: string): string {
  return path.startsWith('go.etcd.io/etcd') ? 'etcd' : path.slice(path.lastIndexOf('/') + 1);
}

/** The version of Kubernetes that a folder's go.mod requires, such as v1.37.2. */
function versionIn(folder: string): string {
  const [, version] =
    /^\s*(?:require )?k8s\.io\/kubernetes (v\S+)/m.exec(
      readFileSync(join(SOURCES, folder, 'go.mod'), 'utf8'),
    ) ?? [];
  if (version === undefined) throw new Error(`${folder}/go.mod requires no k8s.io/kubernetes`);
  return version;
}

/** Kubernetes learns its version from the linker. */
function linkVersion(version: string): string {
  return `-X k8s.io/component-base/version.gitVersion=${version}`;
}

const CONTROL_PLANE = goBuild(
  `kube-apiserver ${KUBERNETES.newest} and etcd`,
  'kubernetes',
  'etcd',
  ['k8s.io/kubernetes/cmd/kube-apiserver', 'go.etcd.io/etcd/server/v3'],
  linkVersion(KUBERNETES.newest),
);
const OLDEST_API_SERVER = goBuild(
  `kube-apiserver ${KUBERNETES.oldest}`,
  'kubernetes-oldest',
  'kube-apiserver',
  ['k8s.io/kubernetes/cmd/kube-apiserver'],
  linkVersion(KUBERNETES.oldest),
);
const KUBECTL = goBuild(
  `kubectl ${KUBERNETES.newest}`,
  'kubernetes',
  'kubectl',
  ['k8s.io/kubernetes/cmd/kubectl'],
  linkVersion(KUBERNETES.newest),
);
const HELM = goBuild('helm', 'helm', 'helm', ['helm.sh/helm/v3/cmd/helm'], '');
const HELM4 = goBuild('helm 4', 'helm4', 'helm', ['helm.sh/helm/v4/cmd/helm'], '');
const EKS_TOKEN_VERIFIER = goBuild(
  "aws-iam-authenticator's verifier",
  'eks-token-verifier',
  'eks-token-verifier',
  ['ecr-anywhere.test/toolchain/eks-token-verifier'],
  '',
  ['main.go'],
);
const CRDS: Build = {
  title: 'CustomResourceDefinitions of cert-manager, Cilium and prometheus-operator',
  inputs: ['go.mod', 'go.sum', 'copy.ts'].map((file) => join(SOURCES, 'crds', file)),
  result: 'cert-manager.io_certificates.yaml',
  commands: (target) => [
    { command: process.execPath, args: ['copy.ts', target], cwd: join(SOURCES, 'crds') },
  ],
};

const NODE_PROGRAMS = goBuild(
  `kubelet, kube-proxy, kube-scheduler and kube-controller-manager ${KUBERNETES.newest}`,
  'kubernetes',
  'kubelet',
  ['kubelet', 'kube-proxy', 'kube-scheduler', 'kube-controller-manager'].map(
    (name) => `k8s.io/kubernetes/cmd/${name}`,
  ),
  linkVersion(KUBERNETES.newest),
);
const COREDNS = goBuild(
  'CoreDNS',
  'coredns',
  'coredns',
  ['ecr-anywhere.test/toolchain/coredns', 'ecr-anywhere.test/toolchain/coredns/pause'],
  '',
  ['main.go', 'pause/main.go'],
);
const DEBIAN_PACKAGES: Build = {
  title: "Debian's containerd, runc and buildah",
  inputs: [
    ...['packages.txt', 'unpack.sh'].map((file) => join(SOURCES, 'debian', file)),
    // Another release has other libraries.
    '/etc/os-release',
  ],
  result: 'packages.txt',
  commands: (target) => [
    { command: 'sh', args: [join(SOURCES, 'debian/unpack.sh'), target], cwd: join(SOURCES, 'debian') },
  ],
};

/** A virtual environment with pinned packages. @param folder of its requirements.txt */
function pythonBuild(title: string, folder: string, result: string): Build {
  const cwd = join(SOURCES, folder);
  return {
    title,
    inputs: [join(cwd, 'requirements.txt')],
    result,
    inPlace: true,
    commands: (target) => [
      { command: 'python3', args: ['-m', 'venv', target], cwd },
      {
        command: join(target, 'bin/python'),
        args: ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', 'requirements.txt'],
        cwd,
      },
    ],
  };
}

const LOCAL_AWS = pythonBuild('the local AWS (MiniStack)', '.', 'bin/ministack');
const CFN_LINT = pythonBuild('cfn-lint', 'cfn-lint', 'bin/cfn-lint');

function inCache(build: Build, file = build.result, command = 'node test/bed/setup.mjs'): string {
  const path = join(folderOf(build), file);
  if (!existsSync(path)) throw new Error(`${build.title} is not built yet: run "${command}"`);
  return path;
}

/** Returns the programs' paths. @throws Error with the command that builds a missing one */
export function tools(): Tools {
  const assets = kubebuilderAssets();
  return {
    kubeApiserver: kubeApiserver(assets),
    etcd: assets ? join(assets, 'etcd') : inCache(CONTROL_PLANE, 'etcd'),
    kubectl: isKubectlOnPath() ? 'kubectl' : inCache(KUBECTL),
    helm: inCache(HELM),
    helm4: inCache(HELM4),
    eksTokenVerifier: inCache(EKS_TOKEN_VERIFIER),
    crds: dirname(inCache(CRDS)),
    python: inCache(LOCAL_AWS, 'bin/python'),
    cfnLint: inCache(CFN_LINT),
  };
}

function kubeApiserver(assets: string | undefined): string {
  if (IS_OLDEST_KUBERNETES) return inCache(OLDEST_API_SERVER);
  return assets ? join(assets, 'kube-apiserver') : inCache(CONTROL_PLANE, 'kube-apiserver');
}

/** Returns the paths of a node's programs. @throws Error with the command that builds a missing one */
export function nodeTools(): NodeTools {
  const program = (build: Build, file: string) => inCache(build, file, 'npm run test:node');
  return {
    kubelet: program(NODE_PROGRAMS, 'kubelet'),
    kubeProxy: program(NODE_PROGRAMS, 'kube-proxy'),
    kubeScheduler: program(NODE_PROGRAMS, 'kube-scheduler'),
    kubeControllerManager: program(NODE_PROGRAMS, 'kube-controller-manager'),
    coredns: program(COREDNS, 'coredns'),
    pause: program(COREDNS, 'pause'),
    packages: dirname(program(DEBIAN_PACKAGES, 'packages.txt')),
  };
}

/** Builds what `nodeTools` returns, unless the cache has it. */
export async function buildNodeTools(): Promise<void> {
  for (const build of [DEBIAN_PACKAGES, NODE_PROGRAMS, COREDNS]) await ensure(build);
}

/** Returns $KUBEBUILDER_ASSETS if it contains an API server and etcd. */
function kubebuilderAssets(): string | undefined {
  const assets = process.env.KUBEBUILDER_ASSETS;
  return assets && existsSync(join(assets, 'kube-apiserver')) && existsSync(join(assets, 'etcd'))
    ? assets
    : undefined;
}

let kubectlOnPath: boolean | undefined;
function isKubectlOnPath(): boolean {
  kubectlOnPath ??= spawnSync('kubectl', ['version', '--client'], { stdio: 'ignore' }).status === 0;
  return kubectlOnPath;
}

function folderOf(build: Build): string {
  const hash = createHash('sha256');
  for (const input of build.inputs) hash.update(readFileSync(input));
  return join(CACHE, `${build.title.replace(/[^A-Za-z0-9.]+/g, '-')}-${hash.digest('hex').slice(0, 12)}`);
}

async function ensure(build: Build): Promise<void> {
  const folder = folderOf(build);
  if (existsSync(join(folder, build.result))) return;
  mkdirSync(CACHE, { recursive: true });
  await using _ = await lock(`${folder}.lock`, build.title);
  if (existsSync(join(folder, build.result))) return;
  const { inPlace = false } = build;
  const target = inPlace ? folder : `${folder}.${process.pid}`;
  // This process has the lock: what another one has left was interrupted.
  for (const left of [target, ...globSync(`${folder}.+([0-9])`)])
    rmSync(left, { recursive: true, force: true });
  const startedAt = performance.now();
  const elapsed = () => `${Math.round((performance.now() - startedAt) / 1000)} s`;
  console.log(`• ${build.title}: building (once; kept in ${CACHE})`);
  const alive = setInterval(() => console.log(`  … ${build.title}: ${elapsed()}`), 20_000);
  try {
    for (const { command, args, cwd } of build.commands(target)) await run(command, args, cwd);
    if (!inPlace) renameSync(target, folder);
    console.log(`  ${build.title}: done in ${elapsed()}`);
  } catch (error) {
    rmSync(target, { recursive: true, force: true });
    throw error;
  } finally {
    clearInterval(alive);
  }
}

function run(command: string, args: readonly string[], cwd: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, GOFLAGS: '' },
    });
    child.on('error', reject);
    child.on('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`${command} ${args.join(' ')}: exit code ${code}`)),
    );
  });
}

/** Locks a path against a concurrent set-up; takes over the lock of a process that has ended. */
async function lock(path: string, title: string): Promise<AsyncDisposable> {
  for (let isReported = false; ; isReported = true) {
    try {
      mkdirSync(path);
      writeFileSync(join(path, 'pid'), String(process.pid));
      return { [Symbol.asyncDispose]: async () => rmSync(path, { recursive: true, force: true }) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    if (isAbandoned(path)) rmSync(path, { recursive: true, force: true });
    else if (!isReported) console.log(`• ${title}: another process is building it; waiting`);
    await sleep(500);
  }
}

function isAbandoned(path: string): boolean {
  try {
    process.kill(Number(readFileSync(join(path, 'pid'), 'utf8')), 0);
    return false;
  } catch (error) {
    // The process has ended, or has not written its pid yet, which takes milliseconds.
    const noPid = (error as NodeJS.ErrnoException).code === 'ENOENT';
    return !noPid || (existsSync(path) && Date.now() - statSync(path).mtimeMs > 5_000);
  }
}

if (import.meta.main) {
  const builds = [
    ...(kubebuilderAssets() ? [] : [CONTROL_PLANE]),
    OLDEST_API_SERVER,
    ...(isKubectlOnPath() ? [] : [KUBECTL]),
    HELM,
    HELM4,
    EKS_TOKEN_VERIFIER,
    CRDS,
    LOCAL_AWS,
    CFN_LINT,
  ];
  for (const build of builds) await ensure(build);
}

// The test bed's programs that npm does not have: kube-apiserver, etcd, kubectl, helm 3 and 4, aws-iam-authenticator's
// token verifier, a Python with the local AWS, cfn-lint, actionlint, crane, and CustomResourceDefinitions of other projects.
// They are built once into a cache outside the checkout, or the control plane is downloaded; a cache entry's name is derived
// from its sources.
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
import { setGlobalProxyFromEnv } from 'node:http';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { unpackArchive } from './published-archive.ts';
import envtest from './toolchain/envtest.json' with { type: 'json' };

const SOURCES = fileURLToPath(new URL('toolchain', import.meta.url));

/** The Kubernetes versions of the test bed: that of nearly all tests, built or downloaded, and the oldest that the chart
 * supports. */
export const KUBERNETES = {
  newest: versionIn('kubernetes'),
  published: envtest.version,
  oldest: versionIn('kubernetes-oldest'),
};

/** Whether the control planes of this process have the oldest version: in the test project of that name (vitest.config.ts). */
export const IS_OLDEST_KUBERNETES = process.env.BED_KUBERNETES === 'oldest';
const ENVTEST_URL = 'https://github.com/kubernetes-sigs/controller-tools/releases/download';
/** As $ECR_ANYWHERE_ENVTEST_URL: no published control plane is used, in place of a mirror's address. */
const BUILD_ONLY = 'none';

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
  /** The linter of GitHub workflows. */
  readonly actionlint: string;
  /** `crane registry serve` is an OCI registry. */
  readonly crane: string;
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
  /** What the progress calls it. Default: building. */
  readonly verb?: string;
  /** The sources; their content determines the cache entry's name. */
  readonly inputs: readonly string[];
  /** A file of the result, whose existence shows that it was built. */
  readonly result: string;
  /** Whether it is built where it stays, because it contains its own path. Then the result must be written last. */
  readonly inPlace?: boolean;
  /** What makes it: commands, or a function. */
  readonly commands?: (
    target: string,
  ) => readonly { command: string; args: readonly string[]; cwd: string }[];
  readonly make?: (target: string) => Promise<void>;
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
/** The archive that the envtest project publishes; undefined on a platform without one. */
const PUBLISHED_CONTROL_PLANE = publishedControlPlane();
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
const ACTIONLINT = goBuild(
  'actionlint',
  'actionlint',
  'actionlint',
  ['github.com/rhysd/actionlint/cmd/actionlint'],
  '',
);
const CRANE = goBuild('crane', 'crane', 'crane', ['github.com/google/go-containerregistry/cmd/crane'], '');
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

function publishedControlPlane(): Build | undefined {
  const base = process.env.ECR_ANYWHERE_ENVTEST_URL ?? ENVTEST_URL;
  const archives: Readonly<Record<string, { path: string; sha512: string }>> = envtest.archives;
  const pinned = archives[`${process.platform}-${process.arch}`];
  if (pinned === undefined || base === BUILD_ONLY) return undefined;
  const url = `${base.replace(/\/$/, '')}/${pinned.path}`;
  return {
    title: `kube-apiserver ${KUBERNETES.published} and etcd of envtest`,
    verb: `downloading ${url}`,
    inputs: [join(SOURCES, 'envtest.json')],
    result: 'etcd',
    make: (target) => unpackArchive({ url, sha512: pinned.sha512, depth: 2 }, target),
  };
}

interface ControlPlaneSource {
  /** The folder of its programs. */
  readonly folder: string;
  readonly version: string;
}

/** Decided once: a build that ends meanwhile must not change the version within a test. */
let controlPlaneSource: ControlPlaneSource | undefined;

/** The control plane to use: $KUBEBUILDER_ASSETS, a built one, a downloaded one. */
function controlPlane(): ControlPlaneSource | undefined {
  const assets = kubebuilderAssets();
  if (assets) controlPlaneSource ??= { folder: assets, version: versionOf(join(assets, 'kube-apiserver')) };
  else if (isCached(CONTROL_PLANE))
    controlPlaneSource ??= { folder: folderOf(CONTROL_PLANE), version: KUBERNETES.newest };
  else if (PUBLISHED_CONTROL_PLANE && isCached(PUBLISHED_CONTROL_PLANE))
    controlPlaneSource ??= { folder: folderOf(PUBLISHED_CONTROL_PLANE), version: KUBERNETES.published };
  return controlPlaneSource;
}

/** @throws Error if the program does not say its version */
function versionOf(kubeApiserver: string): string {
  const { stdout, error } = spawnSync(kubeApiserver, ['--version'], { encoding: 'utf8' });
  const [version] = /v\d+\.\d+\.\d+\S*/.exec(stdout ?? '') ?? [];
  if (version === undefined)
    throw new Error(`${kubeApiserver} --version does not work: ${error?.message ?? 'unexpected output'}`);
  return version;
}

/** The version of the API server that `tools` returns. */
export const KUBERNETES_VERSION = IS_OLDEST_KUBERNETES
  ? KUBERNETES.oldest
  : (controlPlane()?.version ?? KUBERNETES.newest);

function inCache(build: Build, file = build.result, command = 'node test/bed/setup.mjs'): string {
  const path = join(folderOf(build), file);
  if (!existsSync(path)) throw new Error(`${build.title} is not built yet: run "${command}"`);
  return path;
}

/** Returns the programs' paths. Reading a path throws an Error with the command that builds the program, if it is missing. */
export function tools(): Tools {
  return {
    get kubeApiserver() {
      return IS_OLDEST_KUBERNETES ? inCache(OLDEST_API_SERVER) : fromControlPlane('kube-apiserver');
    },
    get etcd() {
      return fromControlPlane('etcd');
    },
    get kubectl() {
      return isKubectlOnPath() ? 'kubectl' : (kubectlOfControlPlane() ?? inCache(KUBECTL));
    },
    get helm() {
      return inCache(HELM);
    },
    get helm4() {
      return inCache(HELM4);
    },
    get eksTokenVerifier() {
      return inCache(EKS_TOKEN_VERIFIER);
    },
    get crds() {
      return dirname(inCache(CRDS));
    },
    get python() {
      return inCache(LOCAL_AWS, 'bin/python');
    },
    get cfnLint() {
      return inCache(CFN_LINT);
    },
    get actionlint() {
      return inCache(ACTIONLINT);
    },
    get crane() {
      return inCache(CRANE);
    },
  };
}

function fromControlPlane(program: 'kube-apiserver' | 'etcd'): string {
  const source = controlPlane();
  return source ? join(source.folder, program) : inCache(CONTROL_PLANE, program);
}

/** The kubectl beside the control plane, which a built one lacks. */
function kubectlOfControlPlane(): string | undefined {
  const path = join(controlPlane()?.folder ?? CACHE, 'kubectl');
  return existsSync(path) ? path : undefined;
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
  // A kubelet must not be newer than the API server, and the published one may be older.
  const apiServer = kubebuilderAssets() ? [] : [CONTROL_PLANE];
  for (const build of [DEBIAN_PACKAGES, ...apiServer, NODE_PROGRAMS, COREDNS]) await ensure(build);
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

function isCached(build: Build): boolean {
  return existsSync(join(folderOf(build), build.result));
}

/** Downloads the published control plane, or builds one, unless there is one. */
async function ensureControlPlane(): Promise<void> {
  if (controlPlane()) return;
  if (PUBLISHED_CONTROL_PLANE) {
    try {
      return await ensure(PUBLISHED_CONTROL_PLANE);
    } catch (error) {
      console.log(`✖ ${(error as Error).message}. The set-up builds Kubernetes instead.`);
    }
  }
  await ensure(CONTROL_PLANE);
}

async function ensure(build: Build): Promise<void> {
  const folder = folderOf(build);
  if (isCached(build)) return;
  mkdirSync(CACHE, { recursive: true });
  await using _ = await lock(`${folder}.lock`, build.title);
  if (isCached(build)) return;
  const { inPlace = false, verb = 'building', commands, make } = build;
  const target = inPlace ? folder : `${folder}.${process.pid}`;
  // This process has the lock: what another one has left was interrupted.
  for (const left of [target, ...globSync(`${folder}.+([0-9])`)])
    rmSync(left, { recursive: true, force: true });
  const startedAt = performance.now();
  const elapsed = () => `${Math.round((performance.now() - startedAt) / 1000)} s`;
  console.log(`• ${build.title}: ${verb} (once; kept in ${CACHE})`);
  const alive = setInterval(() => console.log(`  … ${build.title}: ${elapsed()}`), 20_000);
  try {
    await make?.(target);
    for (const { command, args, cwd } of commands?.(target) ?? []) await run(command, args, cwd);
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
    else if (!isReported) console.log(`• ${title}: another process makes it; waiting`);
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
  setGlobalProxyFromEnv();
  await ensureControlPlane();
  const builds = [
    ...(isKubectlOnPath() || kubectlOfControlPlane() ? [] : [KUBECTL]),
    HELM,
    LOCAL_AWS,
    ...(process.argv.includes('--demo-only')
      ? []
      : [OLDEST_API_SERVER, HELM4, EKS_TOKEN_VERIFIER, CRDS, CFN_LINT, ACTIONLINT, CRANE]),
  ];
  for (const build of builds) await ensure(build);
}

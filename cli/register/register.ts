// ecr-anywhere register: from a context of the operator's to a registered cluster that is proved to work, or to nothing.
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { REFRESHER_GROUP } from '../../contract/names.ts';
import { regionOfEndpoint } from '../../functions/refresher/eks.ts';
import { localHost } from '../../functions/refresher/local-addresses.ts';
import type { ClusterSummary } from '../../functions/refresher/report.ts';
import { Aws, type AwsOptions } from '../aws.ts';
import {
  brokenFence,
  clusterUidOf,
  findInstallation,
  type Installation,
  refresherUsername,
} from '../chart.ts';
import { CliError, EXIT, type ExitCode } from '../errors.ts';
import {
  type Identity,
  isAdministrator,
  isFenced,
  type Reach,
  reachInWords,
  reachOf,
  whoIs,
} from '../identity.ts';
import type { Io, IoOptions } from '../io.ts';
import { type KubeOptions, Kubernetes, type Server } from '../kubernetes.ts';
import { outcomeInWords, problemsOf } from '../outcomes.ts';
import { Refresher } from '../refresher.ts';
import {
  alreadyRegistered,
  checkName,
  createRegistration,
  replaceRegistration,
  type Undo,
} from '../registration.ts';
import { Repairs } from '../repairs.ts';
import {
  type Credential,
  givenCredential,
  isUnauthorized,
  keyless,
  mintToken,
  planToken,
  serviceAccountIdentity,
} from './credential.ts';
import { admitToEks, type EksTarget } from './eks-entry.ts';
import { kubeconfigOf, minimalKubeconfig, type RegisteredUser } from './kubeconfig.ts';

export interface RegisterOptions extends AwsOptions, KubeOptions, IoOptions {
  readonly server?: string;
  /** Hours. */
  readonly duration?: number;
  /** Path of a kubeconfig. */
  readonly credential?: string;
  /** The cluster's name in EKS, or that of the context. */
  readonly eks?: string | true;
  readonly keyless?: true;
  readonly issuer?: string;
  /** Seconds. */
  readonly wait: number;
  readonly replace?: true;
  readonly dryRun?: true;
}

/** What came of it. */
interface Registered {
  readonly cluster: string;
  readonly isRegistered: boolean;
  readonly server: string;
  /** Of a dry run, who it would be. */
  readonly identity: Identity;
  readonly canRead: Reach;
  /** Of the credential; absent where it does not say, or there is none. */
  readonly expiresAt?: string;
  readonly isRenewed: boolean;
  /** Of a keyless cluster: what its API server needs, YAML. */
  readonly authenticationConfig?: string;
  /** Of an EKS cluster: what was done to its access entry, or would be. */
  readonly accessEntry?: string;
  /** Absent of a dry run. */
  readonly run?: ClusterSummary;
}

/** Of an access entry, or a new authentication configuration, until the API server knows it. */
const KNOWN_WITHIN_MS = 60_000;
const ASK_AGAIN_MS = 3_000;
const UNDO_WITHIN_MS = 20_000;

/** Registers a cluster. @throws CliError; nothing is left of what was begun */
export async function register(
  name: string,
  options: RegisterOptions,
  io: Io,
): Promise<ExitCode | undefined> {
  checkName(name);
  checkOptions(options);
  const undos: Undo[] = [];
  try {
    return await attempt(name, options, io, (undo) => undos.unshift(undo));
  } catch (error) {
    await takeBack(options, undos);
    throw error;
  }
}

async function attempt(
  name: string,
  options: RegisterOptions,
  io: Io,
  onAttempt: (undo: Undo) => void,
): Promise<ExitCode | undefined> {
  const { signal } = io;
  const aws = new Aws(options, signal);
  const kubernetes = Kubernetes.load(options, signal);
  const stack = await io.step('the deployed refresher', () => aws.stack());
  const refresher = new Refresher(aws, stack);

  const uid = await io.step(`the cluster of the context ${kubernetes.context}`, () =>
    clusterUidOf(kubernetes),
  );
  const others = await io.step('the registered clusters', () => refresher.status());
  const isReplaced = checkFree(name, uid, others, options);
  const installation = await io.step('what the chart has installed', () =>
    checkInstallation(kubernetes, options),
  );
  const { context } = kubernetes;
  const repairs = new Repairs(options, { context, release: installation, roleArn: stack.roleArn });

  const target = options.eks === undefined ? undefined : await eksTarget(options, kubernetes, aws);
  const isDry = options.dryRun === true;
  const obtained = await io.step('a credential', () =>
    obtain({ name, options, aws, kubernetes, installation, target, isDry, onAttempt, stack, repairs }),
  );
  const { credential, server, identity, expected, note } = obtained;
  if (note !== undefined) io.note(note);
  const kubeconfig = minimalKubeconfig(name, server, credential.user);
  /** What the identity can read. @throws CliError where it is outside the fence */
  const checkIdentity = (who: Identity) =>
    io.step('what it can read', async () => {
      if (!isFenced(who, refresherUsername(installation))) throw unfenced(who);
      if (await isAdministrator(kubernetes, who)) throw unfenced(who, ', and an administrator');
      return reachOf(kubernetes, who);
    });
  const { expiresAt, isRenewed } = credential;
  const registered = {
    ...{ cluster: name, server: server.url },
    ...{ ...(expiresAt !== undefined && { expiresAt }), isRenewed, ...obtained.more },
  };
  const known = identity && (await checkIdentity(identity));
  if (isDry) {
    const who = identity ?? expected;
    const canRead = known ?? (await checkIdentity(who));
    const result: Registered = { ...registered, isRegistered: false, identity: who, canRead };
    const local = localHost(server.url);
    io.print(result, () =>
      [
        inWords(result, 'dry run: nothing was stored, and nothing changed'),
        `  Not tried: whether AWS reaches ${server.url}.`,
        // What kubeconfigs of k3s and kind have.
        ...(local === undefined ? [] : [`  AWS does not: ${local}. Give --server.`]),
      ].join('\n'),
    );
    return undefined;
  }

  await io.step('storing it in Secrets Manager', () =>
    (isReplaced ? replaceRegistration : createRegistration)(aws, name, kubeconfig, uid, onAttempt),
  );
  const patience = options.keyless ? options.wait * 1000 : target ? KNOWN_WITHIN_MS : 0;
  const outcome = isReplaced ? `${name} keeps the credential that it had` : `${name} is not registered`;
  const hintOf = hints(target, obtained, repairs);
  const who = await io.step('trying it from AWS', (say) =>
    prove({ name, refresher, uid, outcome, hintOf, signal }, patience, say),
  );
  const canRead = known && isDeepStrictEqual(who, identity) ? known : await checkIdentity(who);
  const run = await io.step('a run limited to this cluster', async () => {
    const { clusters } = await refresher.refresh({ clusters: [name] });
    return clusters[0];
  });
  // A paused cluster is looked at by its name, and left alone by a run.
  if (!run?.served && !run?.isPaused) throw notServed(outcome, run, hintOf);
  const result: Registered = { ...registered, isRegistered: true, identity: who, canRead, run };
  io.print(result, () => inWords(result, `${name} is registered`));
  return run.failed ? EXIT.unwell : undefined;
}

/** Undoes what was begun, newest first, whatever ended it. */
async function takeBack(options: AwsOptions, undos: readonly Undo[]): Promise<void> {
  for (const { run, byHand } of undos) {
    await run(new Aws(options, AbortSignal.timeout(UNDO_WITHIN_MS))).catch((error: Error) => {
      // Also where it was asked to be quiet: something is left that nobody else will find.
      process.stderr.write(
        `ecr-anywhere: what was begun could not be taken back: ${error.message}\n  → ${byHand}\n`,
      );
    });
  }
}

/** What commander cannot say of options. @throws CliError */
function checkOptions(options: RegisterOptions): void {
  const { server, eks, keyless: isKeyless, issuer, wait, credential, duration } = options;
  const usage = (message: string) => new CliError(EXIT.usage, message);
  if (server !== undefined && eks !== undefined)
    throw usage(
      '--server cannot be used with --eks: EKS itself names the endpoint, and no other is shown its tokens',
    );
  if (duration !== undefined && credential !== undefined)
    throw usage('--duration cannot be used with --credential: that lives as long as it does');
  if (!isKeyless && (issuer !== undefined || wait > 0))
    throw usage(`--${issuer === undefined ? 'wait' : 'issuer'} is for --keyless`);
  if (server === undefined) return;
  const url = URL.canParse(server) ? new URL(server) : undefined;
  if (url?.protocol !== 'https:') throw usage('--server must be an https URL');
  // It would be in the shell's history, and in the process list.
  if (url.username || url.password) throw usage('--server must not hold a user or a password');
}

/** Whether the name is to be given another credential. @throws CliError where it, or the cluster, is registered */
function checkFree(
  name: string,
  uid: string,
  known: Awaited<ReturnType<Refresher['status']>>,
  options: RegisterOptions,
): boolean {
  const { replace = false } = options;
  const repairs = new Repairs(options, {});
  const registered = known.filter(({ source }) => source === 'registered');
  const same = registered.find((cluster) => cluster.name === name);
  if (same && !replace) throw alreadyRegistered(name);
  if (!same && replace)
    throw new CliError(
      EXIT.notFound,
      `${name} is not registered: there is nothing to replace`,
      'leave --replace out',
    );
  if (same?.clusterUid && same.clusterUid !== uid)
    throw new CliError(
      EXIT.conflict,
      `${name} is another cluster than the one of this context`,
      `is --context right? If the cluster was made anew: ${repairs.own(['unregister', name, '--keep-token'])}, then register it again`,
    );
  // They would share the Secret that their tokens are bound to: ending one would end the other.
  const twin = registered.find((cluster) => cluster.name !== name && cluster.clusterUid === uid);
  if (twin)
    throw new CliError(
      EXIT.conflict,
      `this cluster is registered already, as ${twin.name}`,
      `${repairs.own(['unregister', twin.name])}, then register it as ${name}`,
    );
  return same !== undefined;
}

async function checkInstallation(kubernetes: Kubernetes, options: RegisterOptions): Promise<Installation> {
  const { installation, originals, release } = await findInstallation(kubernetes);
  const repairs = new Repairs(options, { context: kubernetes.context, release });
  if (!installation && release)
    throw new CliError(
      EXIT.notFound,
      `the chart’s MutatingWebhookConfiguration is gone (release ${release.release} in the namespace ${release.namespace})`,
      repairs.upgrade(),
    );
  if (!installation)
    throw new CliError(
      EXIT.notFound,
      originals.length > 0
        ? `the chart is not installed in this cluster; CentML/ecr-anywhere is (${originals.join(', ')})`
        : 'the chart is not installed in this cluster',
      // Helm would take another release of this name for the same.
      repairs.install(originals.includes('ecr-anywhere') ? 'ecr-anywhere-keeper' : 'ecr-anywhere'),
    );
  const broken = await brokenFence(kubernetes, installation);
  if (broken.length > 0)
    throw new CliError(
      EXIT.conflict,
      `the fence around the refresher is not in force: ${broken.join('; ')}`,
      `${repairs.own(['doctor'], true)} names what repairs each`,
    );
  return installation;
}

interface Obtaining {
  readonly name: string;
  readonly options: RegisterOptions;
  readonly aws: Aws;
  readonly kubernetes: Kubernetes;
  readonly installation: Installation;
  readonly target: EksTarget | undefined;
  readonly isDry: boolean;
  readonly onAttempt: (undo: Undo) => void;
  readonly stack: Awaited<ReturnType<Aws['stack']>>;
  readonly repairs: Repairs;
}

interface Obtained {
  readonly credential: Credential;
  readonly server: Server;
  /** Absent where only the API server can tell, asked from AWS. */
  readonly identity?: Identity;
  /** Who it should be. */
  readonly expected: Identity;
  /** For people. */
  readonly note?: string;
  readonly more?: Pick<Registered, 'authenticationConfig' | 'accessEntry'>;
  /** What to do where the API server does not know it. */
  readonly whenUnknown: string;
}

async function obtain(given: Obtaining): Promise<Obtained> {
  const { name, options, aws, kubernetes, installation, target, isDry, onAttempt, stack, repairs } = given;
  if (target) {
    const { user, server, entry, groups } = await admitToEks(
      aws,
      target,
      stack.roleArn,
      isDry,
      onAttempt,
      repairs,
    );
    return {
      credential: { user, isRenewed: false },
      server,
      expected: { username: stack.roleArn, groups: [...groups, 'system:authenticated'] },
      more: { accessEntry: entry },
      whenUnknown: repairs.aws(
        ['eks', 'describe-access-entry', '--cluster-name', target.name, '--principal-arn', stack.roleArn],
        target.region,
      ),
    };
  }
  const server = await serverFor(options, kubernetes);
  if (options.keyless) {
    const minor = await minorVersion(kubernetes);
    const made = await keyless(aws, stack, name, options.issuer, minor);
    const { user, authenticationConfig, command, identity: expected } = made;
    return {
      ...{ credential: { user, isRenewed: false }, server, expected },
      note: `What its kube-apiserver needs, as --authentication-config:\n\n${authenticationConfig}\n`,
      more: { authenticationConfig },
      whenUnknown: `${command} prints what its kube-apiserver needs; then register it again, with --wait 120`,
    };
  }
  const whenUnknown = `does the address lead to this cluster? ${repairs.kubectl(['cluster-info'])}`;
  /** By the server that the operator knows to be this cluster's. */
  const whoWith = async (user: RegisteredUser) =>
    whoIs(Kubernetes.of(kubeconfigOf(name, await kubernetes.server(), user), kubernetes.signal));
  if (options.credential !== undefined) {
    const credential = await givenCredential(options.credential);
    const identity = await whoWith(credential.user).catch((error: unknown) => {
      throw isUnauthorized(error)
        ? new CliError(
            EXIT.denied,
            `--credential ${options.credential}: the API server of the context ${kubernetes.context} does not take it`,
            'is it of this cluster, and still valid? Without --credential a token is made',
          )
        : error;
    });
    return { credential, server, identity, expected: identity, whenUnknown };
  }
  const expected = serviceAccountIdentity(installation);
  const seconds = options.duration === undefined ? undefined : options.duration * 3600;
  const plan = await planToken(kubernetes, installation, seconds, repairs);
  // Nothing is made in a dry run, so the token is one in name only.
  if (isDry)
    return { credential: { user: { token: 'dry-run' }, isRenewed: true }, server, expected, whenUnknown };
  const credential = await mintToken(kubernetes, plan);
  return { credential, server, identity: await whoWith(credential.user), expected, whenUnknown };
}

async function serverFor(options: RegisterOptions, kubernetes: Kubernetes): Promise<Server> {
  const server = await kubernetes.server();
  if (server.isInsecure)
    throw new CliError(
      EXIT.usage,
      `the context ${kubernetes.context} does not look at the API server's certificate (insecure-skip-tls-verify), and the refresher does`,
      'kubectl config set-cluster CLUSTER --insecure-skip-tls-verify=false --certificate-authority=FILE --embed-certs',
    );
  if (options.server === undefined) return server;
  // A proxy is the operator's way to the other address.
  const { proxyUrl: _, ...rest } = server;
  return { ...rest, url: options.server };
}

async function minorVersion(kubernetes: Kubernetes): Promise<number> {
  const { body } = await kubernetes.get<{ minor?: string }>('/version');
  return Number.parseInt(body.minor ?? '', 10) || 0;
}

async function eksTarget({ eks }: RegisterOptions, kubernetes: Kubernetes, aws: Aws): Promise<EksTarget> {
  const ofContext = kubernetes.eks();
  const name = typeof eks === 'string' ? eks : ofContext?.cluster;
  if (name === undefined)
    throw new CliError(EXIT.usage, 'the context does not say which EKS cluster it is', 'name it: --eks NAME');
  const { url, proxyUrl } = await kubernetes.server();
  const region = ofContext?.region ?? regionOfEndpoint(url) ?? (await aws.region());
  return { name, region, ...(proxyUrl !== undefined && { proxyUrl }) };
}

type HintOf = (reason: string) => string;

/** The way out, by what the refresher says. */
function hints(target: EksTarget | undefined, { whenUnknown, more }: Obtained, repairs: Repairs): HintOf {
  return (reason) => {
    if (/CDK setting/.test(reason))
      return `deploy it with that setting, beside those that it has: ${repairs.deploy(
        more?.authenticationConfig === undefined
          ? { eksRegions: target?.region ?? 'REGIONS' }
          : { keyless: 'true' },
      )}`;
    if (/HTTP 401/.test(reason)) return whenUnknown;
    if (/HTTP \d|STS gives/.test(reason)) return 'docs/operations.md says what a registered cluster needs';
    if (/^proxy-url/.test(reason))
      return 'the context’s proxy-url is for this machine: take a context without it; or --server https://…, which leaves it out';
    if (/certificate|altnames|_CERT_/i.test(reason))
      return `the certificate at that address must be of the context’s certificate-authority-data: ${repairs.kubectl(['config', 'view', '--minify', '--raw'])}`;
    if (target !== undefined)
      return `who may reach it: ${repairs.aws(
        ['eks', 'describe-cluster', '--name', target.name, '--query', 'cluster.resourcesVpcConfig'],
        target.region,
      )}`;
    return '--server https://… names the address by which AWS reaches the cluster';
  };
}

interface Proving {
  readonly name: string;
  readonly refresher: Refresher;
  readonly uid: string;
  /** What becomes of the name where it fails. */
  readonly outcome: string;
  readonly hintOf: HintOf;
  readonly signal: AbortSignal;
}

/** Has the refresher look at the cluster. @returns whom the API server takes it for. @throws CliError */
async function prove(
  { name, refresher, uid, outcome, hintOf, signal }: Proving,
  patienceMs: number,
  say: (text: string) => void,
): Promise<Identity> {
  const until = Date.now() + patienceMs;
  for (;;) {
    const { clusters } = await refresher.inspect([name]);
    const [summary] = clusters;
    if (summary?.served) {
      const { username, groups = [], clusterUid } = summary.inspection ?? {};
      if (username === undefined || clusterUid === undefined)
        throw new CliError(
          EXIT.unwell,
          `the API server does not tell the refresher who it is (SelfSubjectReview), or which cluster this is, so ${outcome}`,
          'kubectl get clusterrolebinding system:basic-user',
        );
      if (clusterUid !== uid)
        throw new CliError(
          EXIT.conflict,
          'the address leads the refresher to another cluster than the one of this context',
          'is --context right, and the address (--server, or the name after --eks)?',
        );
      return { username, groups };
    }
    if (!/HTTP 401/.test(summary?.reason ?? '') || Date.now() >= until)
      throw notServed(outcome, summary, hintOf);
    say('the API server does not know it yet');
    await sleep(ASK_AGAIN_MS, undefined, { signal });
  }
}

function unfenced({ username, groups }: Identity, more = ''): CliError {
  return new CliError(
    EXIT.denied,
    `${username} (groups: ${groups.join(', ') || 'none'}) is outside the fence${more}: nothing would hold whoever steals this credential`,
    `register the chart’s ServiceAccount (leave --credential out), or a member of the group ${REFRESHER_GROUP} that is nothing else`,
  );
}

function notServed(outcome: string, summary: ClusterSummary | undefined, hintOf: HintOf): CliError {
  const reason = summary?.reason ?? 'no reason given';
  return new CliError(EXIT.unwell, `the refresher cannot use it, so ${outcome}: ${reason}`, hintOf(reason));
}

function inWords(result: Registered, headline: string): string {
  const { identity, canRead, expiresAt, isRenewed, accessEntry, isRegistered, run } = result;
  const renewed = isRenewed ? 'and is renewed from half of its life on' : 'and nothing renews it';
  return [
    headline,
    `  as ${identity.username}`,
    ...(accessEntry === undefined
      ? []
      : [`  Its access entry${isRegistered ? '' : ' would be'}: ${accessEntry}`]),
    `  ${reachInWords(canRead)}`,
    ...(expiresAt === undefined ? [] : [`  The credential expires at ${expiresAt}, ${renewed}.`]),
    ...(run ? [`  ${outcomeInWords(run)}`, ...problemsOf(run).map((problem) => `  ${problem}`)] : []),
  ].join('\n');
}

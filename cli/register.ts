// ecr-anywhere register: from a context of the operator's to a registered cluster that is proved to work, or to nothing.
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterSummary } from '../functions/refresher/report.ts';
import { Aws, type AwsOptions } from './aws.ts';
import {
  brokenFence,
  clusterUidOf,
  findInstallation,
  type Installation,
  refresherUsername,
} from './chart.ts';
import { givenCredential, isUnauthorized, keyless, mintToken, serviceAccountIdentity } from './credential.ts';
import { admitToEks, type EksTarget } from './eks-entry.ts';
import { CliError, EXIT, type ExitCode } from './errors.ts';
import { type Identity, isFenced, type Reach, reachInWords, reachOf, whoIs } from './identity.ts';
import type { Io, IoOptions } from './io.ts';
import { minimalKubeconfig, type RegisteredUser } from './kubeconfig.ts';
import { type KubeOptions, Kubernetes, type Server } from './kubernetes.ts';
import { outcomeInWords, problemsOf } from './outcomes.ts';
import { Refresher } from './refresher.ts';
import {
  alreadyRegistered,
  checkName,
  createRegistration,
  replaceRegistration,
  type Undo,
} from './registration.ts';

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
  readonly identity: Identity | undefined;
  readonly canRead: Reach | undefined;
  /** Of the token; it renews itself. */
  readonly expiresAt: string | undefined;
  readonly run: ClusterSummary | undefined;
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
  checkServer(options.server);
  const undos: Undo[] = [];
  try {
    return await attempt(name, options, io, (undo) => undos.unshift(undo));
  } catch (error) {
    await takeBack(name, options, io, undos);
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
  const known = await io.step('the registered clusters', () => refresher.status());
  const isReplaced = checkFree(name, uid, known, options.replace === true);
  const installation = await io.step('what the chart has installed', () => checkInstallation(kubernetes));

  const target = options.eks === undefined ? undefined : eksTarget(options, kubernetes, await aws.region());
  const isDry = options.dryRun === true;
  const { user, server, identity, expiresAt, note } = await io.step('a credential', () =>
    obtain({ name, options, aws, kubernetes, installation, target, isDry, onAttempt, stack }),
  );
  if (note !== undefined) io.note(note);
  const refuseUnfenced = (who: Identity) => {
    if (!isFenced(who, refresherUsername(installation))) throw unfenced(who);
  };
  if (identity) refuseUnfenced(identity);
  const readable = async (who: Identity | undefined) =>
    who && (await io.step('what it can read', () => reachOf(kubernetes, who)));

  const kubeconfig = minimalKubeconfig(name, server, user);
  const registered = { cluster: name, server: server.url, expiresAt };
  if (isDry) {
    const canRead = await readable(identity);
    const result: Registered = { ...registered, isRegistered: false, identity, canRead, run: undefined };
    io.print(result, () => inWords(result, 'dry run: nothing was stored'));
    return undefined;
  }

  await io.step(`storing it in Secrets Manager`, () =>
    (isReplaced ? replaceRegistration : createRegistration)(aws, name, kubeconfig, uid, onAttempt),
  );
  const patience = options.keyless ? options.wait * 1000 : target ? KNOWN_WITHIN_MS : 0;
  const who = await io.step('trying it from AWS', (say) =>
    prove(name, refresher, uid, patience, say, io.signal),
  );
  if (who) refuseUnfenced(who);
  const canRead = await readable(identity ?? who);
  const run = await io.step('a run limited to this cluster', async () => {
    const { clusters } = await refresher.refresh({ clusters: [name] });
    return clusters[0];
  });
  if (!run?.served) throw notServed(name, run);
  const result: Registered = { ...registered, isRegistered: true, identity: identity ?? who, canRead, run };
  io.print(result, () => inWords(result, `${name} is registered`));
  return run.failed ? EXIT.unwell : undefined;
}

/** Undoes what was begun, newest first, whatever ended it. */
async function takeBack(name: string, options: AwsOptions, io: Io, undos: readonly Undo[]): Promise<void> {
  for (const undo of undos) {
    const aws = new Aws(options, AbortSignal.timeout(UNDO_WITHIN_MS));
    await undo(aws).catch((error: Error) => {
      io.note(
        `What was begun could not be taken back: ${error.message}\n  → ecr-anywhere unregister ${name} --keep-token`,
      );
    });
  }
}

function checkServer(server: string | undefined): void {
  if (server === undefined) return;
  const url = URL.canParse(server) ? new URL(server) : undefined;
  if (url?.protocol !== 'https:') throw new CliError(EXIT.usage, '--server must be an https URL');
  // It would be in the shell's history, and in the process list.
  if (url.username || url.password)
    throw new CliError(EXIT.usage, '--server must not hold a user or a password');
}

/** Whether the name is to be given another credential. @throws CliError where it, or the cluster, is registered */
function checkFree(
  name: string,
  uid: string,
  known: Awaited<ReturnType<Refresher['status']>>,
  replace: boolean,
): boolean {
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
      `is --context right? If the cluster was made anew: ecr-anywhere unregister ${name}, then register`,
    );
  // They would share the Secret that their tokens are bound to: ending one would end the other.
  const twin = registered.find((cluster) => cluster.name !== name && cluster.clusterUid === uid);
  if (twin)
    throw new CliError(
      EXIT.conflict,
      `this cluster is registered already, as ${twin.name}`,
      `ecr-anywhere unregister ${twin.name}, then register it as ${name}`,
    );
  return same !== undefined;
}

async function checkInstallation(kubernetes: Kubernetes): Promise<Installation> {
  const { installation, originals } = await findInstallation(kubernetes);
  if (!installation)
    throw new CliError(
      EXIT.notFound,
      originals.length > 0
        ? `the chart is not installed in this cluster; CentML/ecr-anywhere is (${originals.join(', ')})`
        : 'the chart is not installed in this cluster',
      'helm install ecr-anywhere webhook/chart --namespace ecr-anywhere --create-namespace --wait --atomic … (README.md)',
    );
  const broken = await brokenFence(kubernetes, installation);
  if (broken.length > 0)
    throw new CliError(
      EXIT.conflict,
      `the fence around the refresher is not in force: ${broken.join('; ')}`,
      `helm upgrade brings it back (release in the namespace ${installation.namespace})`,
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
}

interface Obtained {
  readonly user: RegisteredUser;
  readonly server: Server;
  /** Absent where only the API server can tell, asked from AWS. */
  readonly identity?: Identity;
  readonly expiresAt?: string;
  /** For people. */
  readonly note?: string;
}

async function obtain(given: Obtaining): Promise<Obtained> {
  const { name, options, aws, kubernetes, installation, target, isDry, onAttempt, stack } = given;
  if (target) {
    const { user, server, entry } = await admitToEks(aws, target, stack.roleArn, isDry, onAttempt);
    return { user, server, note: `access entry of ${stack.roleArn}: ${entry}` };
  }
  const server = await serverFor(options, kubernetes);
  if (options.keyless) {
    const minor = await minorVersion(kubernetes);
    const { user, authenticationConfig } = await keyless(aws, stack, name, options.issuer, minor);
    return {
      user,
      server,
      note: `What its kube-apiserver needs, as --authentication-config:\n\n${authenticationConfig}\n`,
    };
  }
  if (options.credential !== undefined) {
    const { user, kubeconfig, expiresAt } = await givenCredential(options.credential);
    const identity = await whoIs(Kubernetes.of(kubeconfig, given.kubernetes.signal)).catch(
      (error: unknown) => {
        throw isUnauthorized(error)
          ? new CliError(EXIT.signIn, `--credential ${options.credential}: the API server does not take it`)
          : error;
      },
    );
    return { user, server, identity, ...(expiresAt !== undefined && { expiresAt }) };
  }
  const seconds = options.duration === undefined ? undefined : options.duration * 3600;
  if (isDry) {
    // Nothing is made, so the token is one in name only; it says who it would be.
    return { user: { token: 'dry-run' }, server, identity: serviceAccountIdentity(installation) };
  }
  const { user, expiresAt } = await mintToken(kubernetes, installation, seconds);
  const minted = Kubernetes.of(minimalKubeconfig(name, await kubernetes.server(), user), kubernetes.signal);
  return { user, server, expiresAt, identity: await whoIs(minted) };
}

async function serverFor(options: RegisterOptions, kubernetes: Kubernetes): Promise<Server> {
  const server = await kubernetes.server();
  return options.server === undefined ? server : { ...server, url: options.server };
}

async function minorVersion(kubernetes: Kubernetes): Promise<number> {
  const { body } = await kubernetes.get<{ minor?: string }>('/version');
  return Number.parseInt(body.minor ?? '', 10) || 0;
}

function eksTarget({ eks }: RegisterOptions, kubernetes: Kubernetes, region: string): EksTarget {
  const ofContext = kubernetes.eks();
  const name = typeof eks === 'string' ? eks : ofContext?.cluster;
  if (name === undefined)
    throw new CliError(EXIT.usage, 'the context does not say which EKS cluster it is', 'name it: --eks NAME');
  return { name, region: ofContext?.region ?? region };
}

/** Has the refresher look at the cluster. @returns whom the API server takes it for, if it says so */
async function prove(
  name: string,
  refresher: Refresher,
  uid: string,
  patienceMs: number,
  say: (text: string) => void,
  signal: AbortSignal,
): Promise<Identity | undefined> {
  const until = Date.now() + patienceMs;
  for (;;) {
    const { clusters } = await refresher.inspect([name]);
    const [summary] = clusters;
    if (summary?.served) {
      const { inspection } = summary;
      if (inspection?.clusterUid !== undefined && inspection.clusterUid !== uid)
        throw new CliError(
          EXIT.conflict,
          `the address leads the refresher to another cluster than the one of this context`,
          '--server names the address by which AWS reaches this one',
        );
      const { username, groups } = inspection ?? {};
      return username === undefined ? undefined : { username, groups: groups ?? [] };
    }
    if (!/HTTP 401/.test(summary?.reason ?? '') || Date.now() >= until) throw notServed(name, summary);
    say('the API server does not know it yet');
    await sleep(ASK_AGAIN_MS, undefined, { signal });
  }
}

function unfenced({ username, groups }: Identity): CliError {
  return new CliError(
    EXIT.denied,
    `${username} (groups: ${groups.join(', ') || 'none'}) is outside the fence: nothing would hold whoever steals this credential`,
    'register the chart’s ServiceAccount (leave --credential out), or a member of the group ecr-anywhere:refreshers',
  );
}

function notServed(name: string, summary: ClusterSummary | undefined): CliError {
  return new CliError(
    EXIT.unwell,
    `the refresher cannot use it, so ${name} is not registered: ${summary?.reason ?? 'no reason given'}`,
    /address of this machine/.test(summary?.reason ?? '')
      ? '--server names the address by which AWS reaches the cluster'
      : 'docs/operations.md says what a registered cluster needs',
  );
}

function inWords({ identity, canRead, expiresAt, run }: Registered, headline: string): string {
  return [
    headline,
    ...(identity ? [`  as ${identity.username}`] : []),
    ...(canRead ? [`  ${reachInWords(canRead)}`] : []),
    ...(expiresAt === undefined ? [] : [`  Its token expires at ${expiresAt}, and renews itself half-way.`]),
    ...(run ? [`  ${outcomeInWords(run)}`, ...problemsOf(run).map((problem) => `  ${problem}`)] : []),
  ].join('\n');
}

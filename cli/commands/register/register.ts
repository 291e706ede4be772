// ecr-anywhere register: from a context of the operator's to a registered cluster that is proved to work, or to nothing.

import { isDeepStrictEqual } from 'node:util';
import type { ClusterSummary } from '../../../contract/refresher-api.ts';
import { localAddressProblem } from '../../../lib/kubernetes/local-addresses.ts';
import { Aws } from '../../aws/aws.ts';
import { Refresher } from '../../aws/refresher.ts';
import { checkName, createRegistration, replaceRegistration } from '../../aws/registration.ts';
import { Rollback } from '../../aws/rollback.ts';
import { clusterUidOf } from '../../kubernetes/chart.ts';
import { Kubernetes } from '../../kubernetes/client.ts';
import { formatReach, type Identity, type Reach } from '../../kubernetes/identity.ts';
import { EXIT, type ExitCode } from '../../output/errors.ts';
import { formatOutcome, formatProblems } from '../../output/format-outcome.ts';
import type { Io } from '../../output/io.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { minimalKubeconfig } from './kubeconfig.ts';
import { eksTarget, type Obtained, obtain } from './obtain-credential.ts';
import { checkOptions, type RegisterOptions } from './options.ts';
import { checkFenced, checkFree, checkInstallation } from './prechecks.ts';
import { learnUids } from './same-cluster.ts';
import { notServed, prove } from './verify.ts';

export type { RegisterOptions };

/** What came of it. */
interface Registered extends NonNullable<Obtained['more']> {
  readonly cluster: string;
  readonly isRegistered: boolean;
  readonly server: string;
  /** Of a dry run, who it would be. */
  readonly identity: Identity;
  readonly canRead: Reach;
  /** Of the credential; absent where it does not say, or there is none. */
  readonly expiresAt?: string;
  readonly isRenewed: boolean;
  /** Absent of a dry run. */
  readonly run?: ClusterSummary;
}

/** Of an access entry, until the API server knows it. */
const KNOWN_WITHIN_MS = 60_000;

/** Registers a cluster. @throws CliError; nothing is left of what was begun, or it says what */
export async function register(
  name: string,
  options: RegisterOptions,
  io: Io,
): Promise<ExitCode | undefined> {
  checkName(name);
  checkOptions(options);
  const begun = new Rollback();
  try {
    return await attempt(name, options, io, begun);
  } catch (error) {
    throw await begun.run(options, error);
  }
}

async function attempt(
  name: string,
  options: RegisterOptions,
  io: Io,
  begun: Rollback,
): Promise<ExitCode | undefined> {
  const { signal } = io;
  const aws = new Aws(options, signal);
  const kubernetes = Kubernetes.load(options, signal);
  const { context } = kubernetes;
  const stack = await io.step('the deployed refresher', () => aws.stack());
  const refresher = new Refresher(aws, stack);

  const uid = await io.step(`the cluster of the context ${context}`, () => clusterUidOf(kubernetes));
  const { clusters: others, note: untold } = await io.step('the registered clusters', async () =>
    learnUids(refresher, await refresher.status(), name),
  );
  const isReplaced = checkFree(name, uid, others, options, new ShellCommands(options, { context }));
  if (untold !== undefined) io.note(untold);
  const installation = await io.step('what the chart has installed', () =>
    checkInstallation(kubernetes, options),
  );
  const commands = new ShellCommands(options, { context, release: installation, roleArn: stack.roleArn });

  const target = await eksTarget(options, kubernetes, aws);
  const isDry = options.dryRun === true;
  const obtained = await io.step('a credential', () =>
    obtain({ name, options, aws, kubernetes, installation, target, isDry, begun, stack, commands }),
  );
  const { credential, server, identity, expected, note } = obtained;
  if (note !== undefined) io.note(note);
  const kubeconfig = minimalKubeconfig(name, server, credential.user);
  const checkIdentity = (who: Identity) =>
    io.step('what it can read', () => checkFenced(kubernetes, installation, who));
  const { expiresAt, isRenewed } = credential;
  const registered = {
    ...{ cluster: name, server: server.url },
    ...{ ...(expiresAt !== undefined && { expiresAt }), isRenewed, ...obtained.more },
  };
  const known = identity && (await checkIdentity(identity));
  if (isDry) {
    const who = identity ?? expected;
    const canRead = known ?? (await checkIdentity(who));
    printDry({ ...registered, isRegistered: false, identity: who, canRead }, io);
    return undefined;
  }

  await io.step('storing it in Secrets Manager', () => {
    const registration = { name, kubeconfig, clusterUid: uid };
    return (isReplaced ? replaceRegistration : createRegistration)(aws, registration, begun);
  });
  const patience = options.keyless ? options.wait * 1000 : target ? KNOWN_WITHIN_MS : 0;
  const outcome = isReplaced ? `${name} keeps the credential that it had` : `${name} is not registered`;
  const proving = { name, refresher, uid, outcome, target, obtained, commands, signal };
  const who = await io.step('trying it from AWS', (say) => prove(proving, patience, say));
  const canRead = known && isDeepStrictEqual(who, identity) ? known : await checkIdentity(who);
  const run = await io.step('a run limited to this cluster', async () => {
    const { clusters } = await refresher.refresh({ clusters: [name] });
    return clusters[0];
  });
  // A paused cluster is looked at by its name, and left alone by a run.
  if (!run?.served && !run?.isPaused) throw notServed(proving, run);
  const result: Registered = { ...registered, isRegistered: true, identity: who, canRead, run };
  io.print(result, () => inWords(result, `${name} is registered`));
  return run.failed ? EXIT.unhealthy : undefined;
}

function printDry(result: Registered, io: Io): void {
  const local = localAddressProblem(result.server);
  io.print(result, () =>
    [
      inWords(result, 'dry run: nothing was stored, and nothing changed'),
      `  Not tried: whether AWS reaches ${result.server}.`,
      // What kubeconfigs of k3s and kind have.
      ...(local === undefined ? [] : [`  AWS does not: ${local}. Give --server.`]),
    ].join('\n'),
  );
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
    `  ${formatReach(canRead)}`,
    ...(expiresAt === undefined ? [] : [`  The credential expires at ${expiresAt}, ${renewed}.`]),
    ...(run ? [`  ${formatOutcome(run)}`, ...formatProblems(run).map((problem) => `  ${problem}`)] : []),
  ].join('\n');
}

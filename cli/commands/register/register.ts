// ecr-anywhere register: registers the cluster of a context. No run uses the registration before it is verified, so the
// command can end at any point, and the same command completes it.

import { isDeepStrictEqual } from 'node:util';
import { Aws } from '../../aws/aws.ts';
import { Refresher } from '../../aws/refresher.ts';
import {
  checkName,
  checkNameLength,
  incompleteHint,
  PendingRegistration,
  withCurrent,
} from '../../aws/registration.ts';
import { clusterUidOf } from '../../kubernetes/chart.ts';
import { Kubernetes } from '../../kubernetes/client.ts';
import type { Identity } from '../../kubernetes/identity.ts';
import { CliError, EXIT, type ExitCode, InterruptedError } from '../../output/errors.ts';
import type { Io } from '../../output/io.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import type { RegisterContext } from './context.ts';
import { checkNotRegistered, determineUids } from './duplicate-registration.ts';
import { formatDryRun, formatResult, type Result } from './format-result.ts';
import { registeredKubeconfig } from './kubeconfig.ts';
import { obtainCredential } from './obtain-credential.ts';
import { checkOptions, type RegisterOptions } from './options.ts';
import { checkIdentity, checkInstallation } from './prechecks.ts';
import { summaryOf, verify } from './verify.ts';

export type { RegisterOptions };

/** How long EKS may take to apply a new access entry. */
const ACCESS_ENTRY_TIMEOUT_MS = 60_000;

/** Registers a cluster. @throws CliError; its hint says how to complete a registration that is incomplete */
export async function register(
  name: string,
  options: RegisterOptions,
  io: Io,
): Promise<ExitCode | undefined> {
  checkName(name);
  checkOptions(options);
  const { signal } = io;
  const aws = new Aws(options, signal);
  const kubernetes = Kubernetes.load(options, signal);
  const { context } = kubernetes;
  const stack = await io.step('finding the deployed refresher', () => aws.stack());
  checkNameLength(name, stack.secretPrefix);
  const refresher = new Refresher(aws, stack);

  const uid = await io.step(`connecting to the cluster of the context ${context}`, () =>
    clusterUidOf(kubernetes),
  );
  const { clusters, note: uidNote } = await io.step('looking for an existing registration', async () =>
    determineUids(refresher, await withCurrent(aws, stack, name, await refresher.status()), name),
  );
  checkNotRegistered(name, uid, clusters, options.replace === true, new ShellCommands(options, { context }));
  if (uidNote !== undefined) io.note(uidNote);
  const installation = await io.step('checking the chart', () => checkInstallation(kubernetes, options));
  const commands = new ShellCommands(options, { context, release: installation, roleArn: stack.roleArn });
  const known = clusters.find((one) => one.name === name && one.source === 'registered');
  const registration = new PendingRegistration(aws, stack, name, uid, known);
  const registering: RegisterContext = {
    ...{ name, options, aws, stack, refresher, kubernetes, uid, installation, registration, commands },
  };
  try {
    return await obtainAndVerify(registering, refresher, io);
  } catch (error) {
    throw withNextStep(signal.aborted ? signal.reason : error, registering);
  }
}

async function obtainAndVerify(
  registering: RegisterContext,
  refresher: Refresher,
  io: Io,
): Promise<ExitCode | undefined> {
  const { name, options, kubernetes, installation, registration } = registering;
  const obtained = await io.step('obtaining a credential', () => obtainCredential(registering));
  const { user, expiresAt, isRenewed, server, identity, expectedIdentity, note } = obtained;
  if (note !== undefined) io.note(note);
  const kubeconfig = registeredKubeconfig(name, server, user);
  const determineReach = (who: Identity) =>
    io.step('checking what the credential can read', () =>
      checkIdentity(kubernetes, installation, who, options),
    );
  const reach = identity && (await determineReach(identity));
  const result = {
    cluster: name,
    server: server.url,
    ...(expiresAt !== undefined && { expiresAt }),
    isRenewed,
    ...obtained.details,
  };
  if (options.dryRun) {
    const who = identity ?? expectedIdentity;
    const canRead = reach ?? (await determineReach(who));
    const dryRun: Result = { ...result, isRegistered: false, identity: who, canRead };
    io.print(dryRun, () => formatDryRun(dryRun));
    return undefined;
  }

  const version = await io.step('storing the registration in Secrets Manager', () =>
    registration.stage(kubeconfig),
  );
  const timeoutMs = options.eks ? ACCESS_ENTRY_TIMEOUT_MS : options.wait * 1000;
  const verified = await io.step('verifying the registration from AWS', (report) =>
    verify(registering, obtained, version, timeoutMs, report),
  );
  const canRead = reach && isDeepStrictEqual(verified, identity) ? reach : await determineReach(verified);
  await io.step('completing the registration', () => registration.complete(version));
  const run = await io.step('running the refresher for this cluster only', () =>
    summaryOf(() => refresher.refresh({ clusters: [name] }), io.signal),
  );
  const registered: Result = {
    ...result,
    isRegistered: true,
    identity: verified,
    canRead,
    ...(run && { run }),
  };
  io.print(registered, () => formatResult(registered));
  // The inspection contacted a paused cluster, a run does not.
  return run?.failed === false ? undefined : EXIT.unhealthy;
}

/** Adds to the hint of a failure what it leaves behind. */
function withNextStep(failure: unknown, { name, registration, commands }: RegisterContext): unknown {
  const next = registration.isIncomplete
    ? incompleteHint(name, commands)
    : registration.isVerified
      ? `${name} is registered. To refresh it: ${commands.cli(['refresh', name])}`
      : undefined;
  if (!(failure instanceof CliError) || next === undefined) return failure;
  const { code, message, hint } = failure;
  const all = hint === undefined ? next : `${hint.replace(/\.$/, '')}; ${next}`;
  return code === 'interrupted'
    ? new InterruptedError(message, all)
    : new CliError(code, message, all, failure);
}

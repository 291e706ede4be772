// ecr-anywhere register: registers the cluster of a context and verifies the registration, or rolls everything back.

import { isDeepStrictEqual } from 'node:util';
import { Aws } from '../../aws/aws.ts';
import { Refresher } from '../../aws/refresher.ts';
import { checkName, createRegistration, replaceRegistration, withCurrent } from '../../aws/registration.ts';
import { Rollback } from '../../aws/rollback.ts';
import { clusterUidOf } from '../../kubernetes/chart.ts';
import { Kubernetes } from '../../kubernetes/client.ts';
import type { Identity } from '../../kubernetes/identity.ts';
import { EXIT, type ExitCode } from '../../output/errors.ts';
import type { Io } from '../../output/io.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import type { RegisterContext } from './context.ts';
import { checkNotRegistered, determineUids } from './duplicate-registration.ts';
import { formatDryRun, formatResult, type Result } from './format-result.ts';
import { registeredKubeconfig } from './kubeconfig.ts';
import { obtainCredential } from './obtain-credential.ts';
import { checkOptions, type RegisterOptions } from './options.ts';
import { checkIdentity, checkInstallation } from './prechecks.ts';
import { notServed, verify } from './verify.ts';

export type { RegisterOptions };

/** How long EKS may take to apply a new access entry. */
const ACCESS_ENTRY_TIMEOUT_MS = 60_000;

/** Registers a cluster. @throws CliError after a rollback; its hint names what could not be rolled back */
export async function register(
  name: string,
  options: RegisterOptions,
  io: Io,
): Promise<ExitCode | undefined> {
  checkName(name);
  checkOptions(options);
  const rollback = new Rollback();
  try {
    return await registerCluster(name, options, io, rollback);
  } catch (error) {
    throw await rollback.run(options, error);
  }
}

async function registerCluster(
  name: string,
  options: RegisterOptions,
  io: Io,
  rollback: Rollback,
): Promise<ExitCode | undefined> {
  const { signal } = io;
  const isReplacing = options.replace === true;
  const aws = new Aws(options, signal);
  const kubernetes = Kubernetes.load(options, signal);
  const { context } = kubernetes;
  const stack = await io.step('finding the deployed refresher', () => aws.stack());
  const refresher = new Refresher(aws, stack);

  const uid = await io.step(`connecting to the cluster of the context ${context}`, () =>
    clusterUidOf(kubernetes),
  );
  const { clusters, note: uidNote } = await io.step('looking for an existing registration', async () =>
    determineUids(refresher, await withCurrent(aws, name, await refresher.status()), name),
  );
  checkNotRegistered(name, uid, clusters, isReplacing, new ShellCommands(options, { context }));
  if (uidNote !== undefined) io.note(uidNote);
  const installation = await io.step('checking the chart', () => checkInstallation(kubernetes, options));
  const commands = new ShellCommands(options, { context, release: installation, roleArn: stack.roleArn });
  const registering: RegisterContext = {
    ...{ name, options, aws, stack, refresher, kubernetes, uid, installation, rollback, commands },
  };
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

  await io.step('storing the registration in Secrets Manager', () => {
    const store = isReplacing ? replaceRegistration : createRegistration;
    return store(aws, { name, kubeconfig, clusterUid: uid }, rollback);
  });
  const timeoutMs = options.eks ? ACCESS_ENTRY_TIMEOUT_MS : options.wait * 1000;
  const verified = await io.step('verifying the registration from AWS', (report) =>
    verify(registering, obtained, timeoutMs, report),
  );
  const canRead = reach && isDeepStrictEqual(verified, identity) ? reach : await determineReach(verified);
  const run = await io.step('running the refresher for this cluster only', async () => {
    const answer = await refresher.refresh({ clusters: [name] });
    return answer.clusters[0];
  });
  // An inspection contacts a paused cluster, a run does not.
  if (!run?.served && !run?.isPaused) throw notServed(registering, obtained, run);
  const registered: Result = { ...result, isRegistered: true, identity: verified, canRead, run };
  io.print(registered, () => formatResult(registered));
  return run.failed ? EXIT.unhealthy : undefined;
}

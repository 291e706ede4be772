// The refresher in its own cluster: one run, as a Job, with the ServiceAccount of its Pod and without AWS. Its log lines are those
// of the Lambda function. Exit codes: 0 if all that was due was refreshed, 1 if anything failed, 2 if it could not start.
import './stop-signal.ts';
import { writeFile } from 'node:fs/promises';
import { Logger } from '@aws-lambda-powertools/logger';
import { failedAtOf } from '../../../lib/cluster-error.ts';
import { KubernetesApi, type UsableAccess } from '../kubernetes/client.ts';
import { PATCHES_AT_ONCE, refreshCluster } from '../run/cluster.ts';
import { type ClusterReport, failureOf, notServed } from '../run/cluster-report.ts';
import { logReport } from '../run/log-report.ts';
import { summarizeAll } from '../run/summaries.ts';
import { ENVIRONMENT, podAccess, readSettings, SettingsError, TERMINATION_LOG } from './settings.ts';
import { stopSignal } from './stop-signal.ts';

const EXIT = { failed: 1, cannotStart: 2 } as const;
/** The cluster's name in the log. It has no registered one. */
const CLUSTER = 'in-cluster';
/** Kubernetes cuts longer termination messages (4,096 bytes for each container). */
const MESSAGE_BYTES = 4_000;

const logger = new Logger({ serviceName: 'ecr-anywhere-refresher' });

async function main(): Promise<number> {
  try {
    const settings = readSettings(process.env);
    const access = await podAccess(settings);
    logger.info('cluster started', { cluster: CLUSTER });
    const report = await run(access, AbortSignal.any([stopSignal, AbortSignal.timeout(settings.deadlineMs)]));
    logReport(logger, report);
    await leaveMessage(summarizeAll([report], MESSAGE_BYTES)[0]);
    return report.failed ? EXIT.failed : 0;
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    logger.error('not started', { reason: error.message });
    await leaveMessage({ reason: error.message.slice(0, MESSAGE_BYTES / 4) });
    return EXIT.cannotStart;
  }
}

async function run(access: UsableAccess, signal: AbortSignal): Promise<ClusterReport> {
  try {
    await using api = new KubernetesApi(access, PATCHES_AT_ONCE, signal);
    return await refreshCluster(CLUSTER, api, { dryRun: false, force: false }, Date.now(), signal);
  } catch (error) {
    return notServed(CLUSTER, [failureOf(error)], failedAtOf(error));
  }
}

/** Writes what `kubectl describe pod` shows of the ended container. */
async function leaveMessage(message: object | undefined): Promise<void> {
  // Not one of the settings: unusable settings leave a message too.
  const path = process.env[ENVIRONMENT.terminationLog] || TERMINATION_LOG;
  await writeFile(path, JSON.stringify(message)).catch((error: Error) =>
    logger.warn('termination message not written', { reason: error.message }),
  );
}

// The Job must end, whatever is still open.
process.exit(await main());

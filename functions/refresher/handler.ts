// The refresher's Lambda function. EventBridge Scheduler invokes it with an empty event, operators and the command line with
// an event of the function API. It logs every result, and writes metrics after a run over all clusters.

import { Logger } from '@aws-lambda-powertools/logger';
import { Metrics, MetricUnit } from '@aws-lambda-powertools/metrics';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { EventBridgeClient } from '@aws-sdk/client-eventbridge';
import { SNSClient } from '@aws-sdk/client-sns';
import type { Context } from 'aws-lambda';
import type {
  Answer,
  InvalidEventAnswer,
  NotRegisteredAnswer,
  RefreshAnswer,
  RevokeResult,
  StatusAnswer,
} from '../../contract/refresher-api.ts';
import { awsRequestMs, clientLimits } from '../../lib/aws/request-limits.ts';
import { VERSION } from '../../lib/version.ts';
import { eksAccess } from './access/eks.ts';
import { keylessTokens } from './access/keyless.ts';
import { revoke } from './actions/revoke.ts';
import { clusterStatuses } from './actions/status.ts';
import { subscribersOf } from './actions/subscribers.ts';
import { clusterStates, SAVE_WITHIN_MS } from './clusters/cluster-state.ts';
import { NotRegisteredError } from './clusters/clusters.ts';
import { readConfig } from './config.ts';
import { InvalidEventError, isWholeRun, type ParsedEvent, readEvent, requireOperatorAlias } from './event.ts';
import { announce } from './run/announcements.ts';
import type { ClusterReport } from './run/cluster-report.ts';
import { logReport } from './run/log-report.ts';
import { publisher } from './run/publisher.ts';
import { type RunObserver, run } from './run/run.ts';
import { summarizeAll, summarizeNamed } from './run/summaries.ts';
import { clusterMetricsOf, metricsOf, runFailure } from './run/whole-run.ts';
import { readStep, ScaleOutEventError, type ScaleOutStep } from './scale-out/event.ts';
import { runObjects } from './scale-out/run-objects.ts';
import { batch, collect, list } from './scale-out/steps.ts';
import { CLUSTER_DIMENSION, METRIC, METRICS_NAMESPACE, REPORTING_SECONDS } from './settings.ts';
import { ClusterSecretsClient } from './tokens/cluster-secrets.ts';

const config = readConfig(process.env);
const services = {
  secrets: new ClusterSecretsClient(
    config.secretPrefix,
    clientLimits(awsRequestMs(config.clusterDeadlineMs)),
  ),
  eks: eksAccess(config),
  keyless: keylessTokens(config),
  state: clusterStates(new DynamoDBClient(clientLimits(SAVE_WITHIN_MS, 3)), config.stateTable),
};
/** The time for one request of an announcement, in milliseconds. */
const ANNOUNCE_WITHIN_MS = 4_000;
const sns = new SNSClient(clientLimits(ANNOUNCE_WITHIN_MS, 3));
const announcements = publisher(
  { events: new EventBridgeClient(clientLimits(ANNOUNCE_WITHIN_MS, 3)), sns },
  config.topicArn,
);
const logger = new Logger({ serviceName: config.service });
const observer: RunObserver = {
  onStart: (cluster) => logger.info('cluster started', { cluster }),
  onOrderUnknown: (error) => logger.warn('cluster states not read', { reason: String(error) }),
};
const objectsOf = config.runsBucket === undefined ? undefined : runObjects(config.runsBucket);

/** To a step of a run in batches. */
type StepAnswer =
  | { readonly batches: readonly number[] }
  | Readonly<Record<string, never>>
  | { readonly clusters: number; readonly failed: number; readonly batchesEnded: number };

/** Performs the action of the event. A run over all clusters rejects if it failed as a whole. */
export async function handler(rawEvent: unknown, context: Context): Promise<Answer | StepAnswer> {
  // Keys stay for the next event of this process.
  logger.appendKeys({ function_request_id: context.awsRequestId, run: undefined });
  const timeoutMs = context.getRemainingTimeInMillis();
  const signal = AbortSignal.timeout(Math.max(timeoutMs - REPORTING_SECONDS * 1000, 1_000));
  try {
    const step = readStep(rawEvent, context.invokedFunctionArn);
    if (step) return await runStep(step, signal);
    const event = readEvent(rawEvent);
    requireOperatorAlias(event, context.invokedFunctionArn);
    switch (event.action) {
      case 'status':
        return await status(timeoutMs, signal);
      case 'revoke':
        return { revoked: await revoke(services, event.clusters ?? [], config, signal, logRevoked) };
      default:
        return await refresh(event, signal);
    }
  } catch (error) {
    if (error instanceof NotRegisteredError) return notRegistered(error);
    // An invocation that fails sets off an alarm, which a mistyped event must not.
    if (error instanceof InvalidEventError) return invalidEvent(error);
    throw error;
  }
}

async function status(timeoutMs: number, signal: AbortSignal): Promise<StatusAnswer> {
  const [clusters, subscribers] = await Promise.all([
    clusterStatuses(services, config, timeoutMs, Date.now(), signal),
    subscribersOf(sns, config.topicArn).catch((error: unknown) => {
      logger.warn('subscribers not read', { reason: String(error) });
      return undefined;
    }),
  ]);
  return { version: VERSION, clusters, ...(subscribers && { subscribers }) };
}

async function refresh(event: ParsedEvent, signal: AbortSignal): Promise<RefreshAnswer> {
  const reports = await run(services, event, config, Date.now, signal, log, observer);
  // Callers of any other event get the failures in the answer.
  if (isWholeRun(event)) await conclude(reports);
  const notEnabled = event.namespaces?.filter(
    (name) => !reports.some(({ namespaces }) => namespaces.includes(name)),
  );
  return {
    clusters: event.clusters ? summarizeNamed(reports) : summarizeAll(reports),
    ...(notEnabled?.length && { namespacesNotEnabled: notEnabled }),
  };
}

/** Ends a run over all clusters. @throws RunFailedError if it failed as a whole */
async function conclude(
  reports: readonly ClusterReport[],
  figures: Readonly<Record<string, number>> = {},
): Promise<void> {
  // First, because a run that is ended while it announces has metrics too.
  writeMetrics({ ...metricsOf(reports, Date.now()), ...figures });
  if (config.hasClusterMetrics) writeClusterMetrics(reports);
  writeMetrics({ [METRIC.transitionsNotAnnounced]: await announceTransitions(reports) });
  const failure = runFailure(reports);
  if (failure) throw failure;
}

/** Performs a step of a run in batches. Rejects where the execution must fail, or the batch. */
async function runStep(step: ScaleOutStep, signal: AbortSignal): Promise<StepAnswer> {
  if (!objectsOf)
    throw new ScaleOutEventError('The function has no bucket for runs in batches: deploy the stack again.');
  logger.appendKeys({ run: step.run });
  const objects = objectsOf(step.run, signal);
  switch (step.scaleOut) {
    case 'list': {
      const { batchClusters } = config;
      const times = { now: Date.now(), batchesUntil: Date.parse(step.started) + step.seconds * 1000 };
      return { batches: await list(services, objects, config, batchClusters, times, signal, observer) };
    }
    case 'batch':
      await batch(services, objects, step.batch, config, Date.now, signal, log, observer);
      return {};
    case 'summary': {
      const { reports, ended } = await collect(services, objects, signal, log);
      for (const one of ended) logger.error('batch ended', { ...one });
      await conclude(reports, { [METRIC.batchesEnded]: ended.length });
      const failed = reports.filter((report) => report.failed);
      return { clusters: reports.length, failed: failed.length, batchesEnded: ended.length };
    }
  }
}

function notRegistered({ names, registered, failures }: NotRegisteredError): NotRegisteredAnswer {
  const sentences = failures.map(({ target, reason }) => `${target}: ${reason}`);
  logger.warn('not registered', { names, failures: sentences, discoveryFailures: failures });
  return {
    clusters: [],
    notRegistered: {
      names,
      registered,
      ...(failures.length > 0 && { failures: sentences, discoveryFailures: failures }),
    },
  };
}

function invalidEvent({ message, fields }: InvalidEventError): InvalidEventAnswer {
  logger.warn('invalid event', { fields, reason: message });
  return { version: VERSION, invalidEvent: { message, fields } };
}

function log(report: ClusterReport): void {
  logReport(logger, report);
}

function logRevoked(result: RevokeResult): void {
  const { outcome } = result;
  const isProblem = outcome === 'failed' || outcome === 'refused-already';
  logger[isProblem ? 'error' : 'info']('revoke', { ...result });
}

/** @returns the number of clusters whose transition could not be announced */
async function announceTransitions(reports: readonly ClusterReport[]): Promise<number> {
  const { announced, failures } = await announce(reports, services.state, announcements, config, Date.now());
  for (const transition of announced) logger.info('announced', { ...transition });
  for (const failure of failures) logger.error('not announced', { ...failure });
  return failures.length;
}

/** What one Metrics Insights query returns (CloudWatch User Guide, "CloudWatch Metrics Insights quotas"). */
const METRICS_INSIGHTS_SERIES = 500;

function writeClusterMetrics(reports: readonly ClusterReport[]): void {
  for (const { cluster, failures } of clusterMetricsOf(reports))
    writeMetrics({ [METRIC.consecutiveFailures]: failures }, { [CLUSTER_DIMENSION]: cluster });
  if (reports.length > METRICS_INSIGHTS_SERIES)
    logger.warn('too many clusters for the alarm ClusterFailing', {
      clusters: reports.length,
      evaluated: METRICS_INSIGHTS_SERIES,
    });
}

function writeMetrics(
  figures: Readonly<Record<string, number>>,
  dimensions: Readonly<Record<string, string>> = {},
): void {
  const metrics = new Metrics({ namespace: METRICS_NAMESPACE, serviceName: config.service });
  metrics.addDimensions(dimensions);
  for (const [name, value] of Object.entries(figures)) {
    metrics.addMetric(name, name === METRIC.soonestExpiry ? MetricUnit.Seconds : MetricUnit.Count, value);
  }
  metrics.publishStoredMetrics();
}

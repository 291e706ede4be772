// The refresher's Lambda function: wiring only. Invoked by EventBridge Scheduler with an empty event, and by people
// with one that says what to do (event.ts). Logs every outcome; writes metrics after a run over all clusters.

import { Logger } from '@aws-lambda-powertools/logger';
import { Metrics, MetricUnit } from '@aws-lambda-powertools/metrics';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { Context } from 'aws-lambda';
import type {
  Answer,
  NotRegisteredAnswer,
  RefreshAnswer,
  RevokeResult,
} from '../../contract/refresher-api.ts';
import { eksAccess } from './access/eks.ts';
import { keylessTokens } from './access/keyless.ts';
import { revoke } from './actions/revoke.ts';
import { statusOf } from './actions/status.ts';
import { memoryIn } from './clusters/cluster-state.ts';
import { NotRegisteredError } from './clusters/clusters.ts';
import { readConfig } from './config.ts';
import { isWholeRun, type RefreshEvent, readEvent } from './event.ts';
import type { ClusterReport } from './run/cluster.ts';
import { failureOf, metricsOf, summarize, summarizeAll, summarizeNamed } from './run/report.ts';
import { run } from './run/run.ts';
import { METRIC, METRICS_NAMESPACE, REPORTING_SECONDS } from './settings.ts';

const config = readConfig(process.env);
const services = {
  secrets: new SecretsManagerClient({ maxAttempts: 5, retryMode: 'adaptive' }),
  eks: eksAccess(config),
  keyless: keylessTokens(config),
  memory: memoryIn(new DynamoDBClient(), config.memoryTable),
};
const logger = new Logger({ serviceName: config.service });

/** Does what the event says, and answers with what came of it. A whole run rejects where no cluster could be served. */
export async function handler(rawEvent: unknown, context: Context): Promise<Answer> {
  const event = readEvent(rawEvent);
  const timeoutMs = context.getRemainingTimeInMillis();
  const signal = AbortSignal.timeout(Math.max(timeoutMs - REPORTING_SECONDS * 1000, 1_000));
  try {
    switch (event.action) {
      case 'status':
        return { clusters: await statusOf(services, config, timeoutMs, signal) };
      case 'revoke':
        return { revoked: await revoke(services, event.clusters ?? [], config, signal, logRevoked) };
      default:
        return await refresh(event, signal);
    }
  } catch (error) {
    if (error instanceof NotRegisteredError) return notRegistered(error);
    throw error;
  }
}

async function refresh(event: RefreshEvent, signal: AbortSignal): Promise<RefreshAnswer> {
  const reports = await run(services, event, config, Date.now, signal, log);
  if (isWholeRun(event)) {
    writeMetrics(reports);
    // Anybody else has asked, and is told.
    const failure = failureOf(reports);
    if (failure !== undefined) throw new Error(failure);
  }
  const notEnabled = event.namespaces?.filter(
    (name) => !reports.some(({ namespaces }) => namespaces.includes(name)),
  );
  return {
    clusters: event.clusters ? summarizeNamed(reports) : summarizeAll(reports),
    ...(notEnabled?.length && { namespacesNotEnabled: notEnabled }),
  };
}

function notRegistered({ names, registered, failures }: NotRegisteredError): NotRegisteredAnswer {
  logger.warn('not registered', { names, failures });
  return {
    clusters: [],
    notRegistered: { names, registered, ...(failures.length > 0 && { failures }) },
  };
}

function log(report: ClusterReport): void {
  const { cluster, results } = report;
  for (const result of results) {
    const { outcome } = result;
    if (outcome === 'not-attempted') continue; // counted in the cluster's line
    logger[outcome === 'refreshed' || outcome === 'gone' ? 'info' : 'error']('secret', {
      cluster,
      ...result,
    });
  }
  const { problems: _, ...figures } = summarize(report);
  logger[report.failed || report.stateNotSaved !== undefined ? 'error' : 'info']('cluster', figures);
}

function logRevoked(result: RevokeResult): void {
  const { outcome } = result;
  const isLeft = outcome === 'failed' || outcome === 'refused-already';
  logger[isLeft ? 'error' : 'info']('revoke', { ...result });
}

function writeMetrics(reports: readonly ClusterReport[]): void {
  const metrics = new Metrics({ namespace: METRICS_NAMESPACE, serviceName: config.service });
  for (const [name, value] of Object.entries(metricsOf(reports, Date.now()))) {
    metrics.addMetric(name, name === METRIC.soonestExpiry ? MetricUnit.Seconds : MetricUnit.Count, value);
  }
  metrics.publishStoredMetrics();
}

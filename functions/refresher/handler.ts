// The refresher's Lambda function: wiring only. Invoked by EventBridge Scheduler with an empty event, and by people
// with one that says what to do (event.ts). Logs every outcome; writes metrics after a run over all clusters.
import { Logger } from '@aws-lambda-powertools/logger';
import { Metrics, MetricUnit } from '@aws-lambda-powertools/metrics';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { Context } from 'aws-lambda';
import type { ClusterReport } from './cluster.ts';
import { readConfig } from './config.ts';
import { eksAccess } from './eks.ts';
import { isWholeRun, readEvent } from './event.ts';
import { keylessTokens } from './keyless.ts';
import { memoryIn } from './memory.ts';
import { type ClusterSummary, failureOf, metricsOf, summarize } from './report.ts';
import { run } from './run.ts';
import { METRIC, METRICS_NAMESPACE, REPORTING_SECONDS } from './settings.ts';

const config = readConfig(process.env);
const services = {
  secrets: new SecretsManagerClient({ maxAttempts: 5, retryMode: 'adaptive' }),
  eks: eksAccess(config),
  keyless: keylessTokens(config),
  memory: memoryIn(new DynamoDBClient(), config.memoryTable),
};
const logger = new Logger({ serviceName: config.service });

export interface Answer {
  readonly clusters: readonly ClusterSummary[];
  /** Namespaces that the event named and that are enabled in none of the clusters. */
  readonly namespacesNotEnabled?: readonly string[];
}

/** Refreshes what is due, and answers with each cluster's outcome. Rejects where no cluster could be served. */
export async function handler(rawEvent: unknown, context: Context): Promise<Answer> {
  const event = readEvent(rawEvent);
  const remainingMs = context.getRemainingTimeInMillis() - REPORTING_SECONDS * 1000;
  const signal = AbortSignal.timeout(Math.max(remainingMs, 1_000));
  const reports = await run(services, event, config, Date.now, signal, log);
  if (isWholeRun(event)) writeMetrics(reports);
  const failure = failureOf(reports);
  if (failure !== undefined) throw new Error(failure);
  const notEnabled = event.namespaces?.filter(
    (name) => !reports.some(({ namespaces }) => namespaces.includes(name)),
  );
  return {
    clusters: reports.map(summarize),
    ...(notEnabled?.length && { namespacesNotEnabled: notEnabled }),
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
  logger[report.failed || report.notRemembered !== undefined ? 'error' : 'info']('cluster', figures);
}

function writeMetrics(reports: readonly ClusterReport[]): void {
  const metrics = new Metrics({ namespace: METRICS_NAMESPACE, serviceName: config.service });
  for (const [name, value] of Object.entries(metricsOf(reports, Date.now()))) {
    metrics.addMetric(name, name === METRIC.soonestExpiry ? MetricUnit.Seconds : MetricUnit.Count, value);
  }
  metrics.publishStoredMetrics();
}

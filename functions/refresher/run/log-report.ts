// Logs the report of a cluster run: one line for each Secret that was requested, one for its Events, one for the cluster.
import { OUTCOMES_WITHOUT_FAILURE, type Outcome } from '../../../contract/refresher-api.ts';
import type { ClusterReport } from './cluster-report.ts';
import { summarize } from './summaries.ts';

type Line = (message: string, fields: Readonly<Record<string, unknown>>) => void;

export function logReport(
  logger: { readonly info: Line; readonly warn: Line; readonly error: Line },
  report: ClusterReport,
): void {
  const { cluster, results, events } = report;
  for (const result of results) {
    const { outcome } = result;
    if (outcome === 'not-attempted') continue; // The cluster's line has their number.
    logger[levelOf(outcome)]('secret', { cluster, ...result });
  }
  if (events) logger[events.notWritten > 0 ? 'warn' : 'info']('events', { cluster, ...events });
  const { problems: _, ...summary } = summarize(report);
  logger[report.failed || report.stateNotSaved !== undefined ? 'error' : 'info']('cluster', summary);
}

function levelOf(outcome: Outcome): 'info' | 'warn' | 'error' {
  if (outcome === 'not-provisioned') return 'warn';
  return OUTCOMES_WITHOUT_FAILURE.has(outcome) ? 'info' : 'error';
}

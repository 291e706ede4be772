// What a fleet costs a month: list prices of us-east-1, without free tiers and data transfer.
import type { SimulationResult } from './simulation.ts';

/** US dollars, as of the date. AWS changes prices: compare them with the pricing page of each service. */
export const PRICES = {
  asOf: '2026-11',
  /** Arm, for a GB-second; for a million requests. */
  lambdaGbSecond: 0.0000133334,
  lambdaRequests: 0.2,
  /** On-demand, for a million units: a write of 1 KB, a consistent read of 4 KB. */
  dynamoDbWrites: 0.625,
  dynamoDbReads: 0.125,
  /** For a secret a month, and for 10,000 calls. */
  secret: 0.4,
  secretCalls: 0.05,
  /** For a million custom events, and for a million messages. */
  events: 1,
  messages: 0.5,
  /** For a GB that is written to a log group. */
  logGb: 0.5,
  /** For a custom metric, and for an alarm, a month. */
  metric: 0.3,
  alarm: 0.1,
} as const;

/** What the refresher writes and creates. */
const SIZES = {
  /** Of a cluster's state in the table. */
  stateBytes: 500,
  /** Of the lines "cluster started" and "cluster" together, and of the line "secret". */
  clusterLogBytes: 700,
  secretLogBytes: 350,
  /** With the default settings: others add `ConsecutiveFailures`, and the alarms ClusterFailing and Pager. */
  metrics: 14,
  alarms: 6,
} as const;

const HOURS_OF_A_MONTH = 730;
const BATCH = 20;
const PAGE = 100;

/** The items of the bill, in US dollars a month. */
export function monthlyCost(
  { runs, announcements, messages, tableWrites }: SimulationResult,
  { clusters, hours, memoryMb }: { clusters: number; hours: number; memoryMb: number },
): { readonly item: string; readonly amount: number }[] {
  const months = hours / HOURS_OF_A_MONTH;
  const sum = (figure: (run: SimulationResult['runs'][number]) => number) =>
    runs.reduce((total, run) => total + figure(run), 0);
  const gbSeconds = sum(({ functionMs }) => functionMs / 1000) * (memoryMb / 1024);
  const reads = runs.length * Math.ceil((clusters * SIZES.stateBytes) / 4096);
  const calls = runs.length * (Math.ceil(clusters / PAGE) + Math.ceil(clusters / BATCH));
  const logBytes = sum((run) => run.clusters * SIZES.clusterLogBytes + run.refreshed * SIZES.secretLogBytes);
  const aMonth = (item: string, amount: number) => ({ item, amount: amount / months });
  return [
    aMonth('Lambda', gbSeconds * PRICES.lambdaGbSecond + (runs.length / 1e6) * PRICES.lambdaRequests),
    aMonth('DynamoDB', (tableWrites / 1e6) * PRICES.dynamoDbWrites + (reads / 1e6) * PRICES.dynamoDbReads),
    aMonth('Secrets Manager calls', (calls / 10_000) * PRICES.secretCalls),
    aMonth(
      'EventBridge, SNS',
      (announcements.length / 1e6) * PRICES.events + (messages.length / 1e6) * PRICES.messages,
    ),
    aMonth('CloudWatch Logs', (logBytes / 1e9) * PRICES.logGb),
    {
      item: 'CloudWatch metrics and alarms',
      amount: SIZES.metrics * PRICES.metric + SIZES.alarms * PRICES.alarm,
    },
    { item: 'Registered secrets', amount: clusters * PRICES.secret },
  ];
}

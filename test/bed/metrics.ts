// Adds what the local AWS lacks of CloudWatch: turns embedded metrics in the function's log into metrics, and triggers the
// evaluation of alarms as time passes.
import { CloudWatchClient, PutMetricDataCommand } from '@aws-sdk/client-cloudwatch';
import { embeddedMetrics, type Metric } from './cloudwatch-alarms.ts';
import type { Deployment } from './deployment.ts';

const EVERY_MS = 1_000;

export interface MetricRelay extends AsyncDisposable {
  /** All metrics so far, oldest first. */
  readonly metrics: readonly Metric[];
}

/** Relays metrics every second until disposed. */
export function relayMetrics(deployment: Deployment): MetricRelay {
  const client = new CloudWatchClient(deployment.emulator.clientConfig);
  const metrics: Metric[] = [];
  let read = 0;
  let running = true;
  let wake = () => {};

  const relay = async () => {
    const found = embeddedMetrics((await deployment.logs()).map(({ message }) => message));
    for (const metric of found.slice(read)) {
      metrics.push(metric);
      await put(client, metric);
    }
    read = found.length;
    // Each metric that arrives makes the local AWS evaluate every alarm.
    await put(client, { namespace: 'Bed', name: 'Tick', dimensions: {}, time: Date.now(), value: 1 });
  };
  const loop = (async () => {
    while (running) {
      await relay();
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, EVERY_MS);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
        if (!running) wake();
      });
    }
    await relay();
  })();
  // Rethrown on disposal; until then it must not count as an unhandled rejection.
  loop.catch(() => {});

  return {
    metrics,
    async [Symbol.asyncDispose]() {
      running = false;
      wake();
      await loop;
    },
  };
}

async function put(
  client: CloudWatchClient,
  { namespace, name, dimensions, time, value }: Metric,
): Promise<void> {
  await client.send(
    new PutMetricDataCommand({
      Namespace: namespace,
      MetricData: [
        {
          MetricName: name,
          Dimensions: Object.entries(dimensions).map(([Name, Value]) => ({ Name, Value })),
          Timestamp: new Date(time),
          Value: value,
        },
      ],
    }),
  );
}

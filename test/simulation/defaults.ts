// What a simulation assumes: the settings of the CDK app, and how long requests take.
import {
  CLUSTER_CONCURRENCY,
  CLUSTER_DEADLINE,
  FUNCTION_TIMEOUT_SECONDS,
  INTERVAL,
  MEMORY,
} from '../../infra/limits.ts';
import type { SimulationSettings } from './simulation.ts';

const MINUTE_MS = 60_000;

export const DEFAULTS = {
  seed: 1,
  startsAt: Date.parse('2026-11-23T00:00:00Z'),
  intervalMs: INTERVAL.default * MINUTE_MS,
  flexibleWindowMs: Math.floor(INTERVAL.default / 6) * MINUTE_MS,
  timeoutMs: FUNCTION_TIMEOUT_SECONDS * 1000,
  clusterDeadlineMs: CLUSTER_DEADLINE.default * 1000,
  batch: Number.POSITIVE_INFINITY,
  functions: 1,
  concurrency: CLUSTER_CONCURRENCY.default,
  replicas: 2,
  secrets: 100,
  // API servers on another continent: 100 ms for a round trip, three for a connection with TLS. `npm run bench` measures
  // 4 to 10 ms for a PATCH with the webhook on one machine.
  latencies: { connect: 300, list: 110, patch: 130, ecr: 100, unreachable: 10_000, noToken: 8_500 },
  // Measured on one machine: a run over a cluster with ten namespaces, and a PATCH with its log line.
  processor: { cluster: 22, patch: 0.6 },
  memoryMb: MEMORY.default,
  awsMs: 15,
  ecr: { isDown: () => false },
  isRefresherDown: () => false,
} as const satisfies Partial<SimulationSettings>;

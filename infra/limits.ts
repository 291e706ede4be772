// The limits of a deployment's settings, derived from the lifetime of the credentials.
import { MAX_INTERVAL_MS } from '../contract/freshness.ts';
import { REPORTING_SECONDS } from '../functions/refresher/settings.ts';

const MINUTE_MS = 60_000;

/** Minutes between two runs. */
export const INTERVAL = { min: 1, max: MAX_INTERVAL_MS / MINUTE_MS, default: 60 } as const;

/** The longest time, in seconds, that Lambda lets a function run. */
export const FUNCTION_TIMEOUT_SECONDS = 900;

/** The time limit of one cluster run, in seconds. */
export const CLUSTER_DEADLINE = {
  min: 1,
  max: FUNCTION_TIMEOUT_SECONDS - REPORTING_SECONDS,
  default: 120,
} as const;

/** Clusters served at the same time. Each needs up to 8 connections, and a function may open 1,024 files. */
export const CLUSTER_CONCURRENCY = { min: 1, max: 100, default: 25 } as const;

/** The function's memory in MB. What API servers can make a run hold is limited for the minimum; the maximum is Lambda's. */
export const MEMORY = { min: 512, max: 10_240, default: 512 } as const;

/** Batches that are served at the same time, with `scaleOut`: it bounds the calls to ECR. From the simulation (docs/scale.md). */
export const BATCH_CONCURRENCY = 10;

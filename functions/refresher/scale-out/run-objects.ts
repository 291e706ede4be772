// The objects of a run in batches, in S3. They have names and reasons of clusters, no kubeconfig and no token.
import { GetObjectCommand, NoSuchKey, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { clientLimits } from '../../../lib/aws/request-limits.ts';
import type { ListedCluster } from '../clusters/clusters.ts';
import type { ClusterReport } from '../run/cluster-report.ts';
import type { FoundInTarget } from '../run/run.ts';
import { RUNS_PREFIX } from '../settings.ts';

/** What the list of a run found, beside the batches. */
export interface RunList {
  /** Milliseconds since the epoch. All observations of the run have this time, so that a step that is retried counts once. */
  readonly startedAt: number;
  /** When the batches must have ended. */
  readonly batchesUntil: number;
  /** How many there are. */
  readonly batches: number;
  readonly discoveries: readonly FoundInTarget[];
}

/** The objects of one run. Rejects with an error of S3. */
export interface RunObjects {
  putList(list: RunList): Promise<void>;
  list(): Promise<RunList>;
  putClusters(batch: number, clusters: readonly ListedCluster[]): Promise<void>;
  clusters(batch: number): Promise<ListedCluster[]>;
  putReports(batch: number, reports: readonly ClusterReport[]): Promise<void>;
  /** Undefined if the batch wrote none. */
  reports(batch: number): Promise<ClusterReport[] | undefined>;
}

/** The time for one request, in milliseconds. The largest objects have 2 MB. */
const REQUEST_MS = 30_000;
/** The time for storing the reports: less than the function keeps for its end (`REPORTING_SECONDS`). */
const REPORTS_MS = 8_000;

/** @returns the objects of a run by its name, the execution's */
export function runObjects(bucket: string): (run: string, signal: AbortSignal) => RunObjects {
  const s3 = new S3Client(clientLimits(REQUEST_MS));
  return (run, signal) => {
    const put = async (name: string, value: unknown, abortSignal = signal) => {
      const command = new PutObjectCommand({
        Bucket: bucket,
        Key: keyOf(run, name),
        Body: JSON.stringify(value),
        ContentType: 'application/json',
      });
      await s3.send(command, { abortSignal });
    };
    // The objects were written by this version of the function, or by the one before a deployment.
    const get = async (name: string) => {
      const command = new GetObjectCommand({ Bucket: bucket, Key: keyOf(run, name) });
      const { Body } = await s3.send(command, { abortSignal: signal });
      return JSON.parse((await Body?.transformToString()) ?? '');
    };
    return {
      putList: (list) => put('list', list),
      list: () => get('list'),
      putClusters: (batch, clusters) => put(`${batch}/clusters`, clusters),
      clusters: (batch) => get(`${batch}/clusters`),
      // A batch that its time limit ended has reports too.
      putReports: (batch, reports) => put(`${batch}/reports`, reports, AbortSignal.timeout(REPORTS_MS)),
      reports: (batch) =>
        get(`${batch}/reports`).catch((error: unknown) => {
          if (error instanceof NoSuchKey) return undefined;
          throw error;
        }),
    };
  };
}

function keyOf(run: string, name: string): string {
  return `${RUNS_PREFIX}${run}/${name}.json`;
}

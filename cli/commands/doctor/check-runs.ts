// The check of a cluster whose refresher runs in it: whether the CronJob's runs succeed.
import { z } from 'zod';
import { formatDuration } from '../../output/duration.ts';
import { type Finding, failed, passed, skipped } from './checks.ts';
import type { InstalledCluster } from './observe.ts';

/** Three hourly runs. */
const SUCCESS_WITHIN_MS = 3 * 3_600_000;
/** The longest name of a CronJob, to which the chart cuts it. */
const MAX_NAME_LENGTH = 52;

const CronJob = z.object({
  metadata: z.object({ creationTimestamp: z.string() }),
  spec: z.object({ suspend: z.boolean().optional() }),
  status: z.object({
    active: z.array(z.unknown()).optional(),
    lastScheduleTime: z.string().optional(),
    lastSuccessfulTime: z.string().optional(),
  }),
});

/** @throws CliError if the operator may not read the CronJob */
export async function checkRuns(cluster: InstalledCluster): Promise<Finding[]> {
  const { kubernetes, installation } = cluster;
  const name = installation.refresher.slice(0, MAX_NAME_LENGTH).replace(/-$/, '');
  const found = await kubernetes.find(
    `/apis/batch/v1/namespaces/${encodeURIComponent(installation.namespace)}/cronjobs/${encodeURIComponent(name)}`,
  );
  return [judgeRuns(found, name, cluster, Date.now())];
}

/** Judges the CronJob. Pure. @param found undefined if it does not exist @param now milliseconds since the epoch */
export function judgeRuns(
  found: unknown,
  name: string,
  { commands }: Pick<InstalledCluster, 'commands'>,
  now: number,
): Finding {
  if (found === undefined)
    return failed('cronjob-missing', `CronJob ${name} does not exist.`, {
      repair: commands.upgrade(['--set', 'refresher.inCluster.enabled=true']),
    });
  const { metadata, spec, status } = CronJob.parse(found);
  if (spec.suspend)
    return failed('cronjob-suspended', `CronJob ${name} is suspended.`, {
      repair: commands.kubectlInRelease(['patch', 'cronjob', name, '--patch', '{"spec":{"suspend":false}}']),
    });
  const timeOf = (text: string | undefined) => (text === undefined ? undefined : Date.parse(text));
  const succeededAt = timeOf(status.lastSuccessfulTime);
  const scheduledAt = timeOf(status.lastScheduleTime);
  const byHand = commands.kubectlInRelease(['create', 'job', `--from=cronjob/${name}`, 'refresh-now']);
  const investigation = {
    investigate: commands.kubectlInRelease([
      ...['describe', 'pods', '--selector', 'batch.kubernetes.io/job-name', '--show-events'],
    ]),
    hint: `The message of a pod that ended is the summary of its run (docs/in-cluster.md). To run it now: ${byHand}`,
  };
  const ago = (time: number) => `${formatDuration(now - time)} ago`;
  const last = succeededAt === undefined ? 'none has succeeded' : `the last success was ${ago(succeededAt)}`;
  const isRunning = (status.active ?? []).length > 0;
  if (scheduledAt !== undefined && !isRunning && scheduledAt > (succeededAt ?? 0))
    return failed('last-run-failed', `The run of ${ago(scheduledAt)} failed; ${last}.`, investigation);
  if (now - (succeededAt ?? Date.parse(metadata.creationTimestamp)) > SUCCESS_WITHIN_MS)
    return failed('no-recent-success', `No run has succeeded for three hours; ${last}.`, investigation);
  return succeededAt === undefined
    ? skipped('runs', `the CronJob has not run yet; run it now: ${byHand}`)
    : passed('runs', last);
}

// Reads the refresher's settings from its environment variables, and reports all invalid ones in one error.
import { z } from 'zod';
import { CLUSTERS_PREFIX, managedTagValue } from '../../contract/names.ts';
import { ENVIRONMENT } from './settings.ts';

/** A comma-separated list. */
const List = z
  .string()
  .default('')
  .transform((text) => text.split(',').filter(Boolean));

const Environment = z
  .object({
    [ENVIRONMENT.clusterDeadline]: z.coerce.number().min(1).max(900),
    [ENVIRONMENT.clusterConcurrency]: z.coerce.number().int().min(1).max(500),
    [ENVIRONMENT.assumableRoles]: List,
    [ENVIRONMENT.eksDiscovery]: List.transform((targets) =>
      targets.map((target) => {
        const [region = '', ...roleArn] = target.split('=');
        return { region, ...(roleArn.length > 0 && { roleArn: roleArn.join('=') }) };
      }),
    ),
    [ENVIRONMENT.clusterMetrics]: z.stringbool().default(false),
    [ENVIRONMENT.isInVpc]: z.stringbool().default(false),
    [ENVIRONMENT.allowLocalServers]: z.stringbool().default(false),
    [ENVIRONMENT.keylessStage]: z.string().min(1).optional(),
    [ENVIRONMENT.secretPrefix]: z.string().endsWith('/').default(CLUSTERS_PREFIX),
    [ENVIRONMENT.runsBucket]: z.string().min(1).optional(),
    [ENVIRONMENT.batchClusters]: z.coerce.number().int().min(1).max(5_000).default(500),
    [ENVIRONMENT.stateTable]: z.string().min(1),
    [ENVIRONMENT.topic]: z.string().min(1),
    [ENVIRONMENT.stackName]: z.string().min(1),
    AWS_LAMBDA_FUNCTION_NAME: z.string().min(1),
    AWS_REGION: z.string().min(1),
  })
  .transform((env) => ({
    clusterDeadlineMs: env.CLUSTER_DEADLINE_SECONDS * 1000,
    clusterConcurrency: env.CLUSTER_CONCURRENCY,
    region: env.AWS_REGION,
    assumableRoles: env.ASSUMABLE_ROLES,
    eksDiscovery: env.EKS_DISCOVERY,
    stage: env.KEYLESS_STAGE,
    secretPrefix: env.SECRET_PREFIX,
    /** The value of the tag of the EKS clusters to serve. */
    managedTag: managedTagValue(env.STACK_NAME, env.SECRET_PREFIX),
    stateTable: env.MEMORY_TABLE,
    topicArn: env.TOPIC_ARN,
    stackName: env.STACK_NAME,
    runsBucket: env.RUNS_BUCKET,
    batchClusters: env.BATCH_CLUSTERS,
    hasClusterMetrics: env.CLUSTER_METRICS,
    isInVpc: env.IS_IN_VPC,
    allowLocalServers: env.ALLOW_LOCAL_SERVERS,
    /** Dimension of the metrics, which distinguishes several deployments in one account. */
    service: env.AWS_LAMBDA_FUNCTION_NAME,
  }));

export type Config = Readonly<z.infer<typeof Environment>>;

/** Reads the settings. @throws Error that names every invalid variable */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const parsed = Environment.safeParse(env);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.')} ${issue.message}`);
  throw new Error(`The refresher cannot start with these environment variables: ${problems.join('; ')}`);
}

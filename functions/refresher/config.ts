// The refresher's settings: read from the environment once, every problem reported together.
import { z } from 'zod';
import { ENVIRONMENT } from './settings.ts';

/** Separated by commas, as an environment variable has no lists. */
const List = z
  .string()
  .default('')
  .transform((text) => text.split(',').filter(Boolean));

const Environment = z
  .object({
    [ENVIRONMENT.clusterDeadline]: z.coerce.number().min(1).max(900),
    [ENVIRONMENT.clusterConcurrency]: z.coerce.number().int().min(1).max(500),
    [ENVIRONMENT.assumableRoles]: List,
    [ENVIRONMENT.eksDiscovery]: List.transform((scopes) =>
      scopes.map((scope) => {
        const [region = '', ...roleArn] = scope.split('=');
        return { region, ...(roleArn.length > 0 && { roleArn: roleArn.join('=') }) };
      }),
    ),
    [ENVIRONMENT.allowLocalServers]: z.stringbool().default(false),
    [ENVIRONMENT.keylessStage]: z.string().min(1).optional(),
    [ENVIRONMENT.memoryTable]: z.string().min(1),
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
    memoryTable: env.MEMORY_TABLE,
    allowLocalServers: env.ALLOW_LOCAL_SERVERS,
    /** Tells the metrics of several deployments in one account apart. */
    service: env.AWS_LAMBDA_FUNCTION_NAME,
  }));

export type Config = Readonly<z.infer<typeof Environment>>;

/** Reads the settings. @throws Error that names every variable that is wrong */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const parsed = Environment.safeParse(env);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.')} ${issue.message}`);
  throw new Error(`The refresher cannot start with these environment variables: ${problems.join('; ')}`);
}

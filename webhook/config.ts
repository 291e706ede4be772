// The webhook's settings, read from environment variables once at the start; all problems are reported together.
import { z } from 'zod';
import { WEBHOOK_NAME, WEBHOOK_PORT } from '../contract/names.ts';
import { inClusterServer } from '../lib/kubernetes/in-cluster-server.ts';
import { ExternalId, LOG_LEVELS, RoleArn } from './admission/policy.ts';

/** The environment variables; the chart sets the same ones. PORT, CERT_FILE and KEY_FILE are named as in CentML/ecr-anywhere. */
export const ENVIRONMENT = {
  host: 'HOST',
  port: 'PORT',
  certFile: 'CERT_FILE',
  keyFile: 'KEY_FILE',
  timeout: 'TIMEOUT_SECONDS',
  drain: 'DRAIN_SECONDS',
  logLevel: 'LOG_LEVEL',
  refresherUsername: 'REFRESHER_USERNAME',
  provisionSecret: 'PROVISION_SECRET',
  region: 'AWS_REGION',
  policyFile: 'POLICY_FILE',
  metricsPort: 'METRICS_PORT',
  assumeRole: 'ASSUME_ROLE_ARN',
  assumeRoleExternalId: 'ASSUME_ROLE_EXTERNAL_ID',
  webIdentityRole: 'AWS_ROLE_ARN',
  webIdentityTokenFile: 'AWS_WEB_IDENTITY_TOKEN_FILE',
  accessKeyId: 'AWS_ACCESS_KEY_ID',
  profile: 'AWS_PROFILE',
  serverName: 'SERVER_NAME',
  tlsSecret: 'TLS_SECRET',
  configuration: 'WEBHOOK_CONFIGURATION',
  clientCaFile: 'CLIENT_CA_FILE',
  clientNames: 'CLIENT_NAMES',
  proofSecret: 'CALLER_PROOF_SECRET',
  proofDir: 'CALLER_PROOF_DIR',
  serviceAccountDir: 'SERVICE_ACCOUNT_DIR',
  kubernetesHost: 'KUBERNETES_SERVICE_HOST',
  kubernetesPort: 'KUBERNETES_SERVICE_PORT',
} as const;

/** The part of the API server's timeout that is reserved for the network and for writing the answer. */
const ANSWER_MARGIN_MS = 1_500;

const SecretName = z
  .string()
  .regex(
    /^[a-z0-9-]+\/[a-z0-9.-]+$/,
    'does not name a Secret: set it to a namespace and a name, such as ecr-anywhere/tls',
  );

const Environment = z
  .object({
    [ENVIRONMENT.host]: z.string().min(1).optional(),
    [ENVIRONMENT.port]: z.coerce.number().int().min(1).max(65_535).default(WEBHOOK_PORT),
    [ENVIRONMENT.certFile]: z.string().min(1).default('/etc/webhook/certs/tls.crt'),
    [ENVIRONMENT.keyFile]: z.string().min(1).default('/etc/webhook/certs/tls.key'),
    // Kubernetes allows 1 to 30 (MutatingWebhook.timeoutSeconds); below 3 no time would be left for ECR.
    [ENVIRONMENT.timeout]: z.coerce.number().int().min(3).max(30).default(10),
    // Number('') is 0: an empty value must be an error.
    [ENVIRONMENT.drain]: z.string().min(1).transform(Number).pipe(z.number().min(0).max(60)).default(5),
    // The policy document may override it.
    [ENVIRONMENT.logLevel]: z.enum(LOG_LEVELS).default('info'),
    [ENVIRONMENT.refresherUsername]: z.string().min(1).optional(),
    // The only Secret that the refresher may create. Without it, the webhook denies the refresher every CREATE.
    [ENVIRONMENT.provisionSecret]: z.string().min(1).optional(),
    [ENVIRONMENT.region]: z
      .string({ error: 'is missing: set it to the region of the registry, such as eu-central-1' })
      .regex(/^[a-z]{2,4}(-[a-z]+)+-\d+$/, 'is not an AWS region: set it to one such as eu-central-1'),
    [ENVIRONMENT.policyFile]: z.string().min(1).default('/etc/webhook/policy/policy.yaml'),
    // Without it, the webhook serves no metrics.
    [ENVIRONMENT.metricsPort]: z.coerce.number().int().min(1).max(65_535).optional(),
    [ENVIRONMENT.assumeRole]: RoleArn.optional(),
    [ENVIRONMENT.assumeRoleExternalId]: ExternalId.optional(),
    // Used by the AWS SDK; read here for the webhook's identity.
    [ENVIRONMENT.webIdentityRole]: z.string().optional(),
    [ENVIRONMENT.webIdentityTokenFile]: z.string().optional(),
    [ENVIRONMENT.accessKeyId]: z.string().optional(),
    [ENVIRONMENT.profile]: z.string().optional(),
    // The DNS name that the API server calls; the certificate must contain it.
    [ENVIRONMENT.serverName]: z.string().min(1).optional(),
    // With it, the webhook manages its certificates itself and does not read the two files.
    [ENVIRONMENT.tlsSecret]: SecretName.optional(),
    [ENVIRONMENT.configuration]: z.string().min(1).optional(),
    // With it, the webhook answers only callers with a certificate of these authorities, for one of the names.
    [ENVIRONMENT.clientCaFile]: z.string().min(1).optional(),
    [ENVIRONMENT.clientNames]: z
      .string()
      .transform((text) => text.split(',').map((name) => name.trim()))
      .refine((names) => names.every(Boolean), 'has an empty name: set it to names such as kube-apiserver')
      .optional(),
    // With one of the two, the webhook answers only requests that have the proof: that of a Secret that the webhook maintains,
    // or of the files of a mounted one. The first takes precedence.
    [ENVIRONMENT.proofSecret]: SecretName.optional(),
    [ENVIRONMENT.proofDir]: z.string().min(1).optional(),
    [ENVIRONMENT.serviceAccountDir]: z
      .string()
      .min(1)
      .default('/var/run/secrets/kubernetes.io/serviceaccount'),
    // Kubernetes sets these in every pod.
    [ENVIRONMENT.kubernetesHost]: z.string().optional(),
    [ENVIRONMENT.kubernetesPort]: z.string().optional(),
  })
  .superRefine((env, context) => {
    const apiServer = [ENVIRONMENT.kubernetesHost, ENVIRONMENT.kubernetesPort] as const;
    const needs = [
      [ENVIRONMENT.tlsSecret, [ENVIRONMENT.serverName, ENVIRONMENT.configuration, ...apiServer]],
      [ENVIRONMENT.proofSecret, apiServer],
      [ENVIRONMENT.clientCaFile, [ENVIRONMENT.clientNames]],
    ] as const;
    for (const [needing, names] of needs) {
      if (env[needing] === undefined) continue;
      for (const name of names) {
        if (env[name] === undefined)
          context.addIssue({
            code: 'custom',
            path: [name],
            message: `is missing: it is required with ${needing}`,
          });
      }
    }
  })
  .transform((env) => ({
    host: env.HOST,
    port: env.PORT,
    certFile: env.CERT_FILE,
    keyFile: env.KEY_FILE,
    /** Milliseconds from a review's arrival until it must be answered. */
    answerWithinMs: env.TIMEOUT_SECONDS * 1000 - ANSWER_MARGIN_MS,
    /** Milliseconds between SIGTERM and the end of listening. */
    drainMs: env.DRAIN_SECONDS * 1000,
    logLevel: env.LOG_LEVEL,
    refresherUsername: env.REFRESHER_USERNAME,
    provisionSecret: env.PROVISION_SECRET,
    region: env.AWS_REGION,
    policyFile: env.POLICY_FILE,
    metricsPort: env.METRICS_PORT,
    serverName: env.SERVER_NAME,
    /** The objects that hold the webhook's own certificates; undefined if it serves certificate files. */
    ownTls: env.TLS_SECRET === undefined ? undefined : ownTls(env.TLS_SECRET, env),
    /** The file of the authorities of callers, and the callers' names; undefined if the webhook requires no certificate. */
    clients:
      env.CLIENT_CA_FILE === undefined
        ? undefined
        : { caFile: env.CLIENT_CA_FILE, names: env.CLIENT_NAMES ?? [] },
    /** The Secret in which the webhook maintains the caller proof; undefined if it does not. */
    ownProof: env.CALLER_PROOF_SECRET === undefined ? undefined : ownSecret(env.CALLER_PROOF_SECRET, env),
    /** The directory of a mounted Secret with the caller proof; undefined if there is none. */
    proofDir: env.CALLER_PROOF_DIR,
    /** The role that the webhook assumes for every call to AWS. */
    assumeRole:
      env.ASSUME_ROLE_ARN === undefined
        ? undefined
        : { arn: env.ASSUME_ROLE_ARN, externalId: env.ASSUME_ROLE_EXTERNAL_ID },
    /** The webhook's AWS identity. Role and account are undefined if the settings do not name them. */
    identity: {
      region: env.AWS_REGION,
      roleArn: env.ASSUME_ROLE_ARN ?? env.AWS_ROLE_ARN,
      account: accountOf(env),
    },
  }));

/** The account of the role that the webhook uses. The SDK ignores a web identity's role if it finds a profile or keys. */
function accountOf(env: Readonly<Record<string, unknown>>): string | undefined {
  const isWebIdentity =
    env.AWS_WEB_IDENTITY_TOKEN_FILE && !env.AWS_PROFILE && env.AWS_ACCESS_KEY_ID === undefined;
  const role = env.ASSUME_ROLE_ARN ?? (isWebIdentity ? env.AWS_ROLE_ARN : undefined);
  return /^arn:aws[a-z-]*:iam::(\d{12}):role\//.exec(String(role))?.[1];
}

function ownTls(secret: string, env: Readonly<Record<string, unknown>>) {
  return {
    serverName: String(env[ENVIRONMENT.serverName]),
    objects: ownSecret(secret, env),
  };
}

/** The settings with which the webhook reads and writes one Secret, and its configuration. */
function ownSecret(secret: string, env: Readonly<Record<string, unknown>>) {
  const text = (name: string) => String(env[name]);
  const [namespace = '', name = ''] = secret.split('/');
  return {
    server: inClusterServer(text(ENVIRONMENT.kubernetesHost), text(ENVIRONMENT.kubernetesPort)),
    serviceAccountDir: text(ENVIRONMENT.serviceAccountDir),
    namespace,
    secret: name,
    configuration: text(ENVIRONMENT.configuration),
    webhook: WEBHOOK_NAME,
  };
}

export type Config = Readonly<z.infer<typeof Environment>>;

/**
 * Reads the settings from environment variables.
 *
 * @throws Error that names every invalid variable, and why it is invalid
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const parsed = Environment.safeParse(env);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.')} ${issue.message}`);
  throw new Error(`The webhook cannot start with these settings: ${problems.join('; ')}`);
}

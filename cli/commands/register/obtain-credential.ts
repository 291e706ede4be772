// Obtains the credential to register in the way that the options select, with the server and the identity it is for.
import type { Aws, Stack } from '../../aws/aws.ts';
import type { Rollback } from '../../aws/rollback.ts';
import type { Installation } from '../../kubernetes/chart.ts';
import { ApiError, Kubernetes, type Server } from '../../kubernetes/client.ts';
import { fetchIdentity, type Identity } from '../../kubernetes/identity.ts';
import { CliError } from '../../output/errors.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { type Credential, readCredentialFile } from './credential.ts';
import { type EksCluster, grantEksAccess } from './eks-access-entry.ts';
import { keylessRegistration } from './keyless.ts';
import { kubeconfigFor, type RegisteredUser } from './kubeconfig.ts';
import type { RegisterOptions } from './options.ts';
import { createToken, planToken, serviceAccountIdentity } from './service-account-token.ts';

export interface ObtainRequest {
  readonly name: string;
  readonly options: RegisterOptions;
  readonly aws: Aws;
  readonly kubernetes: Kubernetes;
  readonly installation: Installation;
  readonly eksCluster: EksCluster | undefined;
  readonly isDryRun: boolean;
  readonly rollback: Rollback;
  readonly stack: Stack;
  readonly commands: ShellCommands;
}

export interface ObtainedCredential {
  readonly credential: Credential;
  readonly server: Server;
  /** Absent if only the refresher can authenticate with the credential. */
  readonly identity?: Identity;
  readonly expectedIdentity: Identity;
  /** Text for the operator. */
  readonly note?: string;
  /** Added to the result of the command. */
  readonly details?: {
    /** The AuthenticationConfiguration (YAML) that the API server of a keyless cluster needs. */
    readonly authenticationConfig?: string;
    /** The change to the access entry of an EKS cluster; of a dry run, the change that would be made. */
    readonly accessEntry?: string;
  };
  /** The hint if the API server rejects the credential (HTTP 401). */
  readonly unauthorizedHint: string;
}

/** Obtains the credential. A dry run creates nothing. @throws CliError */
export async function obtainCredential(request: ObtainRequest): Promise<ObtainedCredential> {
  if (request.eksCluster) return obtainEksCredential(request, request.eksCluster);
  const { options, kubernetes, installation, isDryRun, aws, rollback, commands } = request;
  const server = await serverToRegister(options, kubernetes, commands);
  if (options.keyless) return obtainKeylessCredential(request, server);
  const unauthorizedHint = `Check that the address belongs to this cluster: ${commands.kubectl(['cluster-info'])}`;
  // Asks the server of the context, which certainly belongs to this cluster. --server may not.
  const identify = async (user: RegisteredUser) =>
    fetchIdentity(
      Kubernetes.of(kubeconfigFor(request.name, await kubernetes.server(), user), kubernetes.signal),
    );
  if (options.credential !== undefined) {
    const credential = await readCredentialFile(options.credential);
    const identity = await identify(credential.user).catch((error: unknown) => {
      throw error instanceof ApiError && error.status === 401
        ? new CliError(
            'credential-rejected',
            `The API server of the context ${kubernetes.context} rejects the credential in ${options.credential}.`,
            "Use a valid credential of this cluster, or omit --credential to register a token of the chart's ServiceAccount.",
          )
        : error;
    });
    return { credential, server, identity, expectedIdentity: identity, unauthorizedHint };
  }
  const expectedIdentity = serviceAccountIdentity(installation);
  const seconds = options.duration === undefined ? undefined : options.duration * 3600;
  const plan = await planToken(kubernetes, installation, seconds, commands);
  if (isDryRun) {
    // A dry run creates no token. This one only completes the kubeconfig, so that it can be checked.
    const credential = { user: { token: 'dry-run' }, isRenewed: true };
    return { credential, server, expectedIdentity, unauthorizedHint };
  }
  const clusterOf = (signal: AbortSignal) => Kubernetes.load(options, signal);
  const { token, expiresAt } = await createToken(plan, { aws, clusterOf, rollback, commands });
  const credential = { user: { token }, expiresAt, isRenewed: true };
  return {
    credential,
    server,
    identity: await identify(credential.user),
    expectedIdentity,
    unauthorizedHint,
  };
}

async function obtainEksCredential(
  { aws, stack, isDryRun, rollback, commands }: ObtainRequest,
  cluster: EksCluster,
): Promise<ObtainedCredential> {
  const granted = await grantEksAccess(aws, cluster, stack.roleArn, isDryRun, rollback, commands);
  const entryOptions = ['--cluster-name', cluster.name, '--principal-arn', stack.roleArn];
  return {
    credential: { user: granted.user, isRenewed: false },
    server: granted.server,
    expectedIdentity: { username: stack.roleArn, groups: [...granted.groups, 'system:authenticated'] },
    details: { accessEntry: granted.entry },
    unauthorizedHint: commands.aws(['eks', 'describe-access-entry', ...entryOptions], cluster.region),
  };
}

async function obtainKeylessCredential(
  { name, options, aws, stack, kubernetes, commands }: ObtainRequest,
  server: Server,
): Promise<ObtainedCredential> {
  const minor = await kubernetesMinor(kubernetes);
  const keyless = await keylessRegistration(aws, stack, name, options.issuer, minor, commands);
  const { user, authenticationConfig, command, identity } = keyless;
  return {
    credential: { user, isRenewed: false },
    server,
    expectedIdentity: identity,
    note: `The cluster's kube-apiserver needs this file as --authentication-config:\n\n${authenticationConfig}\n`,
    details: { authenticationConfig },
    unauthorizedHint: `Configure the kube-apiserver and register again with --wait 120. To print the configuration: ${command}`,
  };
}

/** The server to register: that of the context, with the address of --server. @throws CliError */
export async function serverToRegister(
  options: Pick<RegisterOptions, 'server'>,
  kubernetes: Kubernetes,
  commands: ShellCommands,
): Promise<Server> {
  const server = await kubernetes.server();
  const setCluster = (...args: string[]) =>
    commands.kubectl([
      ...['config', 'set-cluster', 'CLUSTER', ...args],
      ...['--certificate-authority=FILE', '--embed-certs'],
    ]);
  if (server.isInsecure)
    throw new CliError(
      'server-not-verifiable',
      `The context ${kubernetes.context} disables verification of the API server's certificate (insecure-skip-tls-verify). The refresher always verifies it.`,
      setCluster('--insecure-skip-tls-verify=false'),
    );
  if (options.server === undefined) return server;
  const { origin, hostname } = new URL(options.server);
  // Verification sends the credential to that address before it can tell whether it is the same cluster.
  if (server.ca === undefined && origin !== URL.parse(server.url)?.origin)
    throw new CliError(
      'server-not-verifiable',
      `The context ${kubernetes.context} has no certificate authority, so any server with a public certificate for ${hostname} would receive the credential.`,
      `Use a context whose server is that address, or add its certificate authority: ${setCluster()}`,
    );
  // The proxy leads the operator to the context's address, not the refresher to the other one.
  const { proxyUrl: _, ...rest } = server;
  return { ...rest, url: options.server };
}

async function kubernetesMinor(kubernetes: Kubernetes): Promise<number> {
  const { body } = await kubernetes.get<{ minor?: string }>('/version');
  return Number.parseInt(body.minor ?? '', 10) || 0;
}

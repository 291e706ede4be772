// Obtains the credential to register in the way that the options select, with the server and the identity it is for.
import { ApiError, Kubernetes, type Server } from '../../kubernetes/client.ts';
import { fetchIdentity, type Identity } from '../../kubernetes/identity.ts';
import { CliError } from '../../output/errors.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import type { ObtainedCredential, RegisterContext } from './context.ts';
import { readCredentialFile } from './credential.ts';
import { obtainEksAccess } from './eks-access-entry.ts';
import { obtainKeylessAccess } from './keyless.ts';
import { kubeconfigFor, type RegisteredUser } from './kubeconfig.ts';
import type { RegisterOptions } from './options.ts';
import { createToken, planToken, serviceAccountIdentity } from './service-account-token.ts';

/** Obtains the credential. A dry run creates nothing. @throws CliError */
export async function obtainCredential(context: RegisterContext): Promise<ObtainedCredential> {
  const { options, kubernetes, installation, commands } = context;
  if (options.eks) return obtainEksAccess(context);
  const server = await serverToRegister(options, kubernetes, commands);
  if (options.keyless) return obtainKeylessAccess(context, server);
  const unauthorizedHint = `Check that the address belongs to this cluster: ${commands.kubectl(['cluster-info'])}`;
  if (options.credential !== undefined) {
    const credential = await readCredentialFile(options.credential);
    const identity = await identify(
      context,
      server,
      credential.user,
      `the credential in ${options.credential}`,
    );
    return { ...credential, server, identity, expectedIdentity: identity, unauthorizedHint };
  }
  const seconds = options.duration === undefined ? undefined : options.duration * 3600;
  const plan = await planToken(kubernetes, installation, seconds, commands);
  const expectedIdentity = serviceAccountIdentity(installation);
  const common = { isRenewed: true, server, expectedIdentity, unauthorizedHint };
  // A dry run creates no token. This one only completes the kubeconfig, so that it can be checked.
  if (options.dryRun) return { ...common, user: { token: 'dry-run' } };
  const { token, expiresAt } = await createToken(plan, context);
  const identity = await identify(context, server, { token }).catch((error: unknown) => {
    // The refresher checks the token at that address, too.
    if (options.server !== undefined && error instanceof CliError && error.code === 'network')
      return undefined;
    throw error;
  });
  return { ...common, user: { token }, expiresAt, ...(identity && { identity }) };
}

/**
 * Fetches the identity of a credential from the context's server, which certainly belongs to this cluster; that of
 * --server may not. But the context's server may be a proxy with users of its own, which rejects credentials of the
 * cluster. Then the server to register is asked.
 *
 * @param file describes the credential that the operator gave; absent: a token that was created
 * @throws CliError if both reject the credential
 */
async function identify(
  { name, options, kubernetes, commands }: RegisterContext,
  server: Server,
  user: RegisteredUser,
  file?: string,
): Promise<Identity> {
  const at = (one: Server) =>
    fetchIdentity(Kubernetes.of(kubeconfigFor(name, one, user), kubernetes.signal, commands));
  const rejected = (where: string) => {
    const endpoints = commands.kubectl([
      ...['get', 'endpointslices', '--namespace', 'default'],
      ...['--selector', 'kubernetes.io/service-name=kubernetes'],
    ]);
    const direct = `If it is a proxy with users of its own, such as Rancher, use a context whose server is the API server itself (in Rancher: the authorized cluster endpoint), or name its address with --server. To see the cluster's own addresses: ${endpoints}`;
    return file === undefined
      ? new CliError('token-rejected', `${where} rejects a token that the cluster has just created.`, direct)
      : new CliError(
          'credential-rejected',
          `${where} rejects ${file}.`,
          `Use a valid credential of this cluster, or omit --credential to register a token of the chart's ServiceAccount. ${direct}`,
        );
  };
  const isRejection = (error: unknown) => error instanceof ApiError && error.status === 401;
  const ofContext = await kubernetes.server();
  return at(ofContext).catch((first: unknown) => {
    if (!isRejection(first)) throw first;
    const where = `The server of the context ${kubernetes.context} (${ofContext.url})`;
    if (options.server === undefined || server.url === ofContext.url) throw rejected(where);
    return at(server).catch((second: unknown) => {
      throw isRejection(second) ? rejected(`The server ${server.url}`) : second;
    });
  });
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

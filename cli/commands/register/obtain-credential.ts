// Obtains the credential to register in the way that the options select, with the server and the identity it is for.
import { ApiError, Kubernetes, type Server } from '../../kubernetes/client.ts';
import { fetchIdentity } from '../../kubernetes/identity.ts';
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
  const { name, options, kubernetes, installation, commands } = context;
  if (options.eks) return obtainEksAccess(context);
  const server = await serverToRegister(options, kubernetes, commands);
  if (options.keyless) return obtainKeylessAccess(context, server);
  const unauthorizedHint = `Check that the address belongs to this cluster: ${commands.kubectl(['cluster-info'])}`;
  // Asks the server of the context, which certainly belongs to this cluster. --server may not.
  const identify = async (user: RegisteredUser) =>
    fetchIdentity(Kubernetes.of(kubeconfigFor(name, await kubernetes.server(), user), kubernetes.signal));
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
    return { ...credential, server, identity, expectedIdentity: identity, unauthorizedHint };
  }
  const seconds = options.duration === undefined ? undefined : options.duration * 3600;
  const plan = await planToken(kubernetes, installation, seconds, commands);
  const expectedIdentity = serviceAccountIdentity(installation);
  const common = { isRenewed: true, server, expectedIdentity, unauthorizedHint };
  // A dry run creates no token. This one only completes the kubeconfig, so that it can be checked.
  if (options.dryRun) return { ...common, user: { token: 'dry-run' } };
  const { token, expiresAt } = await createToken(plan, context);
  return { ...common, user: { token }, expiresAt, identity: await identify({ token }) };
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

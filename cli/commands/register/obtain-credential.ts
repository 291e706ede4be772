// What is to be registered, by the way that the options name: an identity, the server that it is for, and who that is.
import { regionOfEndpoint } from '../../../lib/aws/eks-endpoint.ts';
import type { Aws, Stack } from '../../aws/aws.ts';
import type { Rollback } from '../../aws/rollback.ts';
import type { Installation } from '../../kubernetes/chart.ts';
import { Kubernetes, type Server } from '../../kubernetes/client.ts';
import { type Identity, whoIs } from '../../kubernetes/identity.ts';
import { CliError } from '../../output/errors.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import {
  type Credential,
  givenCredential,
  isUnauthorized,
  keyless,
  serviceAccountIdentity,
} from './credential.ts';
import { admitToEks, type EksTarget } from './eks-access-entry.ts';
import { kubeconfigOf, type RegisteredUser } from './kubeconfig.ts';
import type { RegisterOptions } from './options.ts';
import { mintToken, planToken } from './token.ts';

export interface Obtaining {
  readonly name: string;
  readonly options: RegisterOptions;
  readonly aws: Aws;
  readonly kubernetes: Kubernetes;
  readonly installation: Installation;
  readonly target: EksTarget | undefined;
  readonly isDry: boolean;
  readonly begun: Rollback;
  readonly stack: Stack;
  readonly commands: ShellCommands;
}

export interface Obtained {
  readonly credential: Credential;
  readonly server: Server;
  /** Absent where only the API server can tell, asked from AWS. */
  readonly identity?: Identity;
  /** Who it should be. */
  readonly expected: Identity;
  /** For people. */
  readonly note?: string;
  /** What came of it on the way. */
  readonly more?: {
    /** What the API server of a keyless cluster needs, YAML. */
    readonly authenticationConfig?: string;
    /** What was done to the access entry of an EKS cluster, or would be. */
    readonly accessEntry?: string;
  };
  /** What to do where the API server does not know it. */
  readonly whenUnknown: string;
}

/** Obtains it. Of a dry run nothing is made. @throws CliError */
export async function obtain(given: Obtaining): Promise<Obtained> {
  if (given.target) return ofEks(given, given.target);
  const { options, kubernetes, installation, isDry, aws, begun, commands } = given;
  const server = await serverFor(options, kubernetes, commands);
  if (options.keyless) return ofIssuer(given, server);
  const whenUnknown = `does the address lead to this cluster? ${commands.kubectl(['cluster-info'])}`;
  /** By the server that the operator knows to be this cluster's. */
  const whoWith = async (user: RegisteredUser) =>
    whoIs(Kubernetes.of(kubeconfigOf(given.name, await kubernetes.server(), user), kubernetes.signal));
  if (options.credential !== undefined) {
    const credential = await givenCredential(options.credential);
    const identity = await whoWith(credential.user).catch((error: unknown) => {
      throw isUnauthorized(error)
        ? new CliError(
            'credential-rejected',
            `--credential ${options.credential}: the API server of the context ${kubernetes.context} does not take it`,
            'is it of this cluster, and still valid? Without --credential a token is made',
          )
        : error;
    });
    return { credential, server, identity, expected: identity, whenUnknown };
  }
  const expected = serviceAccountIdentity(installation);
  const seconds = options.duration === undefined ? undefined : options.duration * 3600;
  const plan = await planToken(kubernetes, installation, seconds, commands);
  // Nothing is made in a dry run, so the token is one in name only.
  if (isDry)
    return { credential: { user: { token: 'dry-run' }, isRenewed: true }, server, expected, whenUnknown };
  const clusterOf = (signal: AbortSignal) => Kubernetes.load(options, signal);
  const { token, expiresAt } = await mintToken(plan, { aws, clusterOf, begun, commands });
  const credential = { user: { token }, expiresAt, isRenewed: true };
  return { credential, server, identity: await whoWith(credential.user), expected, whenUnknown };
}

async function ofEks(
  { aws, stack, isDry, begun, commands }: Obtaining,
  target: EksTarget,
): Promise<Obtained> {
  const { user, server, entry, groups } = await admitToEks(
    aws,
    target,
    stack.roleArn,
    isDry,
    begun,
    commands,
  );
  return {
    credential: { user, isRenewed: false },
    server,
    expected: { username: stack.roleArn, groups: [...groups, 'system:authenticated'] },
    more: { accessEntry: entry },
    whenUnknown: commands.aws(
      ['eks', 'describe-access-entry', '--cluster-name', target.name, '--principal-arn', stack.roleArn],
      target.region,
    ),
  };
}

async function ofIssuer(
  { name, options, aws, stack, kubernetes, commands }: Obtaining,
  server: Server,
): Promise<Obtained> {
  const minor = await minorVersion(kubernetes);
  const made = await keyless(aws, stack, name, options.issuer, minor, commands);
  const { user, authenticationConfig, command, identity: expected } = made;
  return {
    ...{ credential: { user, isRenewed: false }, server, expected },
    note: `What its kube-apiserver needs, as --authentication-config:\n\n${authenticationConfig}\n`,
    more: { authenticationConfig },
    whenUnknown: `${command} prints what its kube-apiserver needs; then register it again, with --wait 120`,
  };
}

async function serverFor(
  options: RegisterOptions,
  kubernetes: Kubernetes,
  commands: ShellCommands,
): Promise<Server> {
  const server = await kubernetes.server();
  const setCluster = (...args: string[]) =>
    commands.kubectl([
      'config',
      'set-cluster',
      'CLUSTER',
      ...args,
      '--certificate-authority=FILE',
      '--embed-certs',
    ]);
  if (server.isInsecure)
    throw new CliError(
      'server-not-verifiable',
      `the context ${kubernetes.context} does not look at the API server's certificate (insecure-skip-tls-verify), and the refresher does`,
      setCluster('--insecure-skip-tls-verify=false'),
    );
  if (options.server === undefined) return server;
  const { origin, hostname } = new URL(options.server);
  // Whatever is there is shown the token before it can say which cluster it is.
  if (server.ca === undefined && origin !== URL.parse(server.url)?.origin)
    throw new CliError(
      'server-not-verifiable',
      `--server: the context ${kubernetes.context} names no certificate authority, so anybody with a public certificate for ${hostname} would be shown the credential`,
      `a context whose server is that address; or the authority of its certificate: ${setCluster()}`,
    );
  // A proxy is the operator's way to the other address.
  const { proxyUrl: _, ...rest } = server;
  return { ...rest, url: options.server };
}

async function minorVersion(kubernetes: Kubernetes): Promise<number> {
  const { body } = await kubernetes.get<{ minor?: string }>('/version');
  return Number.parseInt(body.minor ?? '', 10) || 0;
}

/** Which EKS cluster is meant; undefined where none is. @throws CliError where that cannot be told */
export async function eksTarget(
  { eks, eksName }: RegisterOptions,
  kubernetes: Kubernetes,
  aws: Aws,
): Promise<EksTarget | undefined> {
  if (eks === undefined) return undefined;
  const ofContext = kubernetes.eks();
  const name = eksName ?? ofContext?.cluster;
  if (name === undefined)
    throw new CliError(
      'eks-cluster-unknown',
      'the context does not say which EKS cluster it is',
      'Name it with --eks-name NAME.',
    );
  const { url, proxyUrl } = await kubernetes.server();
  const region = ofContext?.region ?? regionOfEndpoint(url) ?? (await aws.region());
  return { name, region, ...(proxyUrl !== undefined && { proxyUrl }) };
}

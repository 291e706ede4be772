// EKS: what a cluster's endpoint and authority are, and tokens for it. A token names its cluster and nobody else, so it
// is sent to that endpoint only.
import { DescribeClusterCommand, EKSClient } from '@aws-sdk/client-eks';
import { STSClient } from '@aws-sdk/client-sts';
import { fromTemporaryCredentials } from '@aws-sdk/credential-providers';
import type { AwsCredentialIdentityProvider } from '@aws-sdk/types';
import { SignatureV4 } from '@smithy/signature-v4';
import type { EksIdentity } from './exec.ts';

/** What a registered EKS cluster's API server is reached with. */
export interface EksAccess {
  readonly server: string;
  /** PEM. */
  readonly ca: string;
  readonly token: string;
}

export interface Eks {
  /**
   * Looks a cluster up and signs a token for it.
   *
   * @param region where the kubeconfig does not say
   * @throws Error that names the cluster or the role
   */
  access(identity: EksIdentity['eks'], region: string, signal: AbortSignal): Promise<EksAccess>;
}

export interface EksSettings {
  /** The refresher's own region. */
  readonly region: string;
  /** The ARNs of the roles that kubeconfigs may name. */
  readonly assumableRoles: readonly string[];
}

/** Seen in CloudTrail. */
const SESSION_NAME = 'ecr-anywhere-refresher';
const TOKEN_PREFIX = 'k8s-aws-v1.';
/** The header by which a token is for one cluster (aws-iam-authenticator, README, "API Authorization from Outside a Cluster"). */
const CLUSTER_HEADER = 'x-k8s-aws-id';
/** How long STS takes the signed URL; the verifier takes up to 900, `aws eks get-token` asks for 60. */
const URL_EXPIRES_SECONDS = 60;

/** EKS as the refresher, or as roles of the allow-list. Clients and roles' credentials are kept for the next run. */
export function eksAccess({ region: ownRegion, assumableRoles }: EksSettings): Eks {
  const roles = new Map<string, AwsCredentialIdentityProvider>();
  const stsClients = new Map<string, STSClient>();
  const eksClients = new Map<string, EKSClient>();

  const credentialsOf = ({ roleArn, externalId }: EksIdentity['eks']) => {
    if (roleArn === undefined) return undefined;
    if (!assumableRoles.includes(roleArn))
      throw new Error(
        `${roleArn} is none of the roles that the refresher may assume: add it to the CDK setting assumableRoles`,
      );
    return kept(roles, `${roleArn} ${externalId ?? ''}`, () => {
      const credentials = fromTemporaryCredentials({
        params: {
          RoleArn: roleArn,
          RoleSessionName: SESSION_NAME,
          ...(externalId !== undefined && { ExternalId: externalId }),
        },
        clientConfig: { region: ownRegion },
      });
      // What a client makes of them is remembered until it expires.
      return new STSClient({ region: ownRegion, credentials }).config.credentials;
    });
  };

  return {
    async access(identity, defaultRegion, signal) {
      const region = identity.region ?? defaultRegion;
      const credentials = credentialsOf(identity);
      const key = JSON.stringify([region, identity.roleArn, identity.externalId]);
      const config = { region, ...(credentials && { credentials }) };
      const eks = kept(eksClients, key, () => new EKSClient(config));
      const sts = kept(stsClients, key, () => new STSClient(config));
      const { cluster } = await eks
        .send(new DescribeClusterCommand({ name: identity.cluster }), { abortSignal: signal })
        .catch((error: Error) => {
          const hint =
            error.name === 'AccessDeniedException' && identity.roleArn === undefined
              ? ': name the region in the CDK setting eksRegions'
              : '';
          const said = `${error.name}: ${error.message}${hint}`;
          throw new Error(`EKS cluster ${identity.cluster} in ${region}: ${said}`, { cause: error });
        });
      const { endpoint, certificateAuthority, status } = cluster ?? {};
      if (!endpoint || !certificateAuthority?.data)
        throw new Error(`EKS cluster ${identity.cluster} in ${region} has no endpoint: it is ${status}`);
      return {
        server: endpoint,
        ca: Buffer.from(certificateAuthority.data, 'base64').toString(),
        token: await tokenFor(identity.cluster, sts),
      };
    },
  };
}

/**
 * A bearer token for an EKS cluster: a signed GetCallerIdentity at the region's STS, which the API server sends there to
 * learn who signed it (aws-iam-authenticator; the URL may hold no parameter but those of the signature).
 */
export async function tokenFor(cluster: string, sts: STSClient): Promise<string> {
  const { credentials, sha256, region, endpointProvider } = sts.config;
  const signingRegion = await region();
  // Of the region, and real: not wherever this client itself is sent to in a test.
  const { hostname } = endpointProvider({ Region: signingRegion, UseGlobalEndpoint: false }).url;
  const signer = new SignatureV4({ service: 'sts', region: signingRegion, credentials, sha256 });
  const { query = {} } = await signer.presign(
    {
      method: 'GET',
      protocol: 'https:',
      hostname,
      path: '/',
      query: { Action: 'GetCallerIdentity', Version: '2011-06-15' },
      headers: { host: hostname, [CLUSTER_HEADER]: cluster },
    },
    { expiresIn: URL_EXPIRES_SECONDS, unhoistableHeaders: new Set([CLUSTER_HEADER]) },
  );
  const url = `https://${hostname}/?${new URLSearchParams(query as Record<string, string>)}`;
  return `${TOKEN_PREFIX}${Buffer.from(url).toString('base64url')}`;
}

/** The region in an EKS endpoint's name; undefined where it is none. */
export function regionOfEndpoint(server: string): string | undefined {
  return /\.([a-z]{2,4}(?:-[a-z]+)+-\d+)\.(?:eks\.|api\.aws$)/.exec(new URL(server).hostname)?.[1];
}

function kept<Value>(map: Map<string, Value>, key: string, make: () => Value): Value {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}

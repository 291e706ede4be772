// EKS: which clusters are tagged, what a cluster's endpoint and authority are, and tokens for it. A token names its
// cluster and nobody else, so it is sent to that endpoint only.

import { type Cluster, DescribeClusterCommand, EKSClient, paginateListClusters } from '@aws-sdk/client-eks';
import { STSClient } from '@aws-sdk/client-sts';
import { fromTemporaryCredentials } from '@aws-sdk/credential-providers';
import type { AwsCredentialIdentityProvider } from '@aws-sdk/types';
import { SignatureV4 } from '@smithy/signature-v4';
import pMap from 'p-map';
import { TAG } from '../../../contract/names.ts';
import { isPermanentAwsError } from '../../../lib/aws/errors.ts';
import { ClusterError } from '../../../lib/cluster-error.ts';
import type { EksIdentity } from '../../../lib/kubernetes/exec-plugin.ts';

/** What a registered EKS cluster's API server is reached with. */
export interface EksAccess {
  readonly server: string;
  /** PEM. */
  readonly ca: string;
  readonly token: string;
}

/** Where tagged clusters are looked for: a region, as the refresher or as a role. */
export interface EksScope {
  readonly region: string;
  readonly roleArn?: string | undefined;
}

/** An EKS cluster that carries the tag. */
export interface TaggedCluster {
  readonly arn: string;
  readonly isPaused: boolean;
  /** Looked up already: what is missing yet is the token. @throws Error where it cannot be reached */
  access(): Promise<EksAccess>;
}

/** What was found in a scope, and what could not be looked at. */
export interface Found {
  readonly clusters: readonly TaggedCluster[];
  readonly failures: readonly string[];
}

export interface Eks {
  /**
   * Looks a cluster up and signs a token for it.
   *
   * @param region where the kubeconfig does not say
   * @throws Error that names the cluster or the role
   */
  access(identity: EksIdentity['eks'], region: string, signal: AbortSignal): Promise<EksAccess>;
  /** Looks for the clusters that are tagged. Rejects never: what fails is in the answer. */
  tagged(scope: EksScope, signal: AbortSignal): Promise<Found>;
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
/** EKS throttles DescribeCluster at a few a second. */
const DESCRIBED_AT_ONCE = 5;
/** Of a cluster's states, those in which its API server is there (EKS API reference, Cluster.status). */
const IN_USE: ReadonlySet<string> = new Set(['ACTIVE', 'UPDATING']);

/** EKS as the refresher, or as roles of the allow-list. Clients and roles' credentials are kept for the next run. */
export function eksAccess({ region: ownRegion, assumableRoles }: EksSettings): Eks {
  const roles = new Map<string, AwsCredentialIdentityProvider>();
  const stsClients = new Map<string, STSClient>();
  const eksClients = new Map<string, EKSClient>();

  const credentialsOf = (roleArn: string, externalId: string | undefined) =>
    kept(roles, `${roleArn} ${externalId ?? ''}`, () => {
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

  const clientsOf = ({ region, roleArn, externalId }: EksScope & { externalId?: string | undefined }) => {
    const credentials = roleArn === undefined ? undefined : credentialsOf(roleArn, externalId);
    const key = JSON.stringify([region, roleArn, externalId]);
    const config = { region, ...(credentials && { credentials }) };
    return {
      eks: kept(eksClients, key, () => new EKSClient({ ...config, maxAttempts: 5, retryMode: 'adaptive' })),
      sts: kept(stsClients, key, () => new STSClient(config)),
    };
  };

  return {
    async access(identity, defaultRegion, signal) {
      const region = identity.region ?? defaultRegion;
      const { cluster: name, roleArn, externalId } = identity;
      if (roleArn !== undefined && !assumableRoles.includes(roleArn))
        throw new ClusterError(
          'setting',
          `${roleArn} is none of the roles that the refresher may assume: add it to the CDK setting assumableRoles`,
        );
      const { eks, sts } = clientsOf({ region, roleArn, externalId });
      const { cluster = {} } = await eks
        .send(new DescribeClusterCommand({ name }), { abortSignal: signal })
        .catch((error: Error) => {
          const isUnset = error.name === 'AccessDeniedException' && roleArn === undefined;
          const hint = isUnset ? ': name the region in the CDK setting eksRegions' : '';
          const said = `EKS cluster ${name} in ${region}: ${error.name}: ${error.message}${hint}`;
          const refused = isPermanentAwsError(error) ? 'kubeconfig' : 'reach';
          const code = isPermanentAwsError(error) ? 'aws-refused' : 'aws-unavailable';
          throw new ClusterError(isUnset ? 'setting' : refused, said, {
            cause: error,
            ...(!isUnset && { code }),
          });
        });
      return accessTo(name, region, cluster, sts);
    },

    async tagged(scope, signal) {
      const { eks, sts } = clientsOf(scope);
      const failures: string[] = [];
      const fail = (what: string, { name, message }: Error) => {
        failures.push(`${what}: ${name}: ${message}`);
      };
      const names: string[] = [];
      try {
        for await (const { clusters } of paginateListClusters({ client: eks }, {}, { abortSignal: signal }))
          names.push(...(clusters ?? []));
      } catch (error) {
        fail('ListClusters', error as Error);
      }
      const described = await pMap(
        names,
        async (name) => {
          try {
            return (await eks.send(new DescribeClusterCommand({ name }), { abortSignal: signal })).cluster;
          } catch (error) {
            // Deleted since it was listed.
            if ((error as Error).name !== 'ResourceNotFoundException') fail(name, error as Error);
            return undefined;
          }
        },
        { concurrency: DESCRIBED_AT_ONCE },
      );
      const clusters = described.flatMap((cluster) => {
        const { arn, name, status = '', tags = {}, resourcesVpcConfig } = cluster ?? {};
        if (!cluster || !arn || !name || tags[TAG.managed] !== 'true' || !IN_USE.has(status)) return [];
        const access = async () => {
          if (resourcesVpcConfig?.endpointPublicAccess === false)
            throw new ClusterError(
              'reach',
              'the API server has a private endpoint only: register the cluster with a kubeconfig whose proxy-url reaches it, or give it a public endpoint too',
              { code: 'endpoint-private' },
            );
          return accessTo(name, scope.region, cluster, sts);
        };
        return [{ arn, isPaused: tags[TAG.paused] === 'true', access }];
      });
      return { clusters, failures };
    },
  };
}

async function accessTo(
  name: string,
  region: string,
  { endpoint, certificateAuthority, status }: Cluster,
  sts: STSClient,
): Promise<EksAccess> {
  if (!endpoint || !certificateAuthority?.data)
    throw new ClusterError('reach', `EKS cluster ${name} in ${region} has no endpoint: it is ${status}`, {
      code: 'endpoint-missing',
    });
  return {
    server: endpoint,
    ca: Buffer.from(certificateAuthority.data, 'base64').toString(),
    token: await tokenFor(name, sts),
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
    { expiresIn: URL_EXPIRES_SECONDS },
  );
  const url = `https://${hostname}/?${new URLSearchParams(query as Record<string, string>)}`;
  return `${TOKEN_PREFIX}${Buffer.from(url).toString('base64url')}`;
}

function kept<Value>(map: Map<string, Value>, key: string, make: () => Value): Value {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}

/** What a scope is called: in reports, and as a key of what is known. */
export function scopeName({ region, roleArn }: EksScope): string {
  return `EKS in ${region}${roleArn === undefined ? '' : ` as ${roleArn}`}`;
}

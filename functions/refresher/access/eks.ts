// Finds tagged EKS clusters, looks up the endpoint and certificate authority of a cluster, and signs tokens for it. A token
// is valid for one cluster, and is sent only to the endpoint that EKS returns for it.

import { type Cluster, DescribeClusterCommand, EKSClient, paginateListClusters } from '@aws-sdk/client-eks';
import { STSClient } from '@aws-sdk/client-sts';
import { fromTemporaryCredentials } from '@aws-sdk/credential-providers';
import { SignatureV4 } from '@smithy/signature-v4';
import pMap from 'p-map';
import { TAG } from '../../../contract/names.ts';
import { describeAwsError, isPermanentAwsError } from '../../../lib/aws/errors.ts';
import { awsRequestMs, clientLimits } from '../../../lib/aws/request-limits.ts';
import { ClusterError } from '../../../lib/cluster-error.ts';
import type { EksIdentity } from '../../../lib/kubernetes/exec-plugin.ts';

/** The endpoint of an EKS cluster, and a token for it. */
export interface EksAccess {
  readonly server: string;
  /** PEM. */
  readonly ca: string;
  readonly token: string;
}

/** A region in which the refresher looks for tagged clusters, as itself or as a role. */
export interface DiscoveryTarget {
  readonly region: string;
  readonly roleArn?: string | undefined;
}

/** An EKS cluster that carries the tag. */
export interface TaggedCluster {
  readonly arn: string;
  readonly isPaused: boolean;
  /** Signs a token; the endpoint is known already. @throws ClusterError if the cluster cannot be reached */
  access(): Promise<EksAccess>;
}

/** The tagged clusters of a discovery target, and the requests that failed. */
export interface Discovery {
  readonly clusters: readonly TaggedCluster[];
  readonly failures: readonly string[];
}

export interface Eks {
  /**
   * Looks up a cluster and signs a token for it.
   *
   * @param region the region if the kubeconfig has none
   * @throws ClusterError that names the cluster or the role
   */
  access(identity: EksIdentity['eks'], region: string, signal: AbortSignal): Promise<EksAccess>;
  /** Finds the tagged clusters. Never rejects: failures are part of the result. */
  tagged(target: DiscoveryTarget, signal: AbortSignal): Promise<Discovery>;
  /**
   * Looks up a cluster that another process found in the target, and signs a token for it.
   *
   * @throws ClusterError that names the cluster
   */
  accessTagged(target: DiscoveryTarget, arn: string, signal: AbortSignal): Promise<EksAccess>;
}

export interface EksSettings {
  /** The refresher's own region. */
  readonly region: string;
  /** ARNs of the roles that kubeconfigs may name. */
  readonly assumableRoles: readonly string[];
  /** The time limit of a cluster run. */
  readonly clusterDeadlineMs: number;
  /** Whether the function is in a VPC, from which it may reach private endpoints. Default: false. */
  readonly isInVpc?: boolean;
  /** The value of the tag of the clusters to serve. Default: that of the default stack. */
  readonly managedTag?: string;
}

/** CloudTrail shows it. */
const SESSION_NAME = 'ecr-anywhere-refresher';
const TOKEN_PREFIX = 'k8s-aws-v1.';
/** The signed header that binds a token to one cluster (aws-iam-authenticator, README, "API Authorization from Outside a Cluster"). */
const CLUSTER_HEADER = 'x-k8s-aws-id';
/** How long STS accepts the signed URL. The verifier accepts up to 900; `aws eks get-token` signs for 60. */
const URL_EXPIRES_SECONDS = 60;
/** EKS throttles DescribeCluster at a few requests a second. */
const DESCRIBE_CONCURRENCY = 5;
/** The cluster states with a running API server (EKS API reference, Cluster.status). */
const IN_USE: ReadonlySet<string> = new Set(['ACTIVE', 'UPDATING']);

/** Calls EKS as the refresher, or as roles of the allow-list. Clients and credentials stay for later runs. */
export function eksAccess({
  region: ownRegion,
  assumableRoles,
  clusterDeadlineMs,
  isInVpc = false,
  managedTag = 'true',
}: EksSettings): Eks {
  const limits = clientLimits(awsRequestMs(clusterDeadlineMs));
  const roles = new Map<string, STSClient['config']['credentials']>();
  const stsClients = new Map<string, STSClient>();
  const eksClients = new Map<string, EKSClient>();

  const credentialsOf = (roleArn: string, externalId: string | undefined) =>
    getOrCreate(roles, `${roleArn} ${externalId ?? ''}`, () => {
      const credentials = fromTemporaryCredentials({
        params: {
          RoleArn: roleArn,
          RoleSessionName: SESSION_NAME,
          ...(externalId !== undefined && { ExternalId: externalId }),
        },
        // The SDK does not end this request with the signal of the request that needs the credentials.
        clientConfig: { ...limits, region: ownRegion },
      });
      // A client caches the credentials of its config until they expire.
      return new STSClient({ region: ownRegion, credentials }).config.credentials;
    });

  const clientsOf = ({
    region,
    roleArn,
    externalId,
  }: DiscoveryTarget & { externalId?: string | undefined }) => {
    const credentials = roleArn === undefined ? undefined : credentialsOf(roleArn, externalId);
    const key = JSON.stringify([region, roleArn, externalId]);
    const config = { ...limits, region, ...(credentials && { credentials }) };
    return {
      eks: getOrCreate(eksClients, key, () => new EKSClient(config)),
      sts: getOrCreate(stsClients, key, () => new STSClient(config)),
    };
  };

  /** One at a time: EKS throttles DescribeCluster, and up to ten batches describe their clusters at the same time. */
  let described: Promise<unknown> = Promise.resolve();
  const describeInTurn = (eks: EKSClient, name: string, signal: AbortSignal) => {
    const request = described.then(() => {
      signal.throwIfAborted();
      return eks.send(new DescribeClusterCommand({ name }), { abortSignal: signal });
    });
    described = request.catch(() => {});
    return request;
  };

  const accessToTagged = async (name: string, region: string, cluster: Cluster, sts: STSClient) => {
    if (cluster.resourcesVpcConfig?.endpointPublicAccess === false && !isInVpc)
      throw new ClusterError(
        'reach',
        'the API server has a private endpoint only: register the cluster with a kubeconfig whose proxy-url reaches it, deploy the refresher into a VPC that reaches it (CDK setting subnetIds), or give it a public endpoint too',
        { code: 'endpoint-private' },
      );
    return accessTo(name, region, cluster, sts);
  };

  return {
    async access(identity, defaultRegion, signal) {
      const region = identity.region ?? defaultRegion;
      const { cluster: name, roleArn, externalId } = identity;
      if (roleArn !== undefined && !assumableRoles.includes(roleArn))
        throw new ClusterError(
          'setting',
          `the refresher may not assume ${roleArn}: add it to the CDK setting assumableRoles`,
        );
      const { eks, sts } = clientsOf({ region, roleArn, externalId });
      const { cluster = {} } = await eks
        .send(new DescribeClusterCommand({ name }), { abortSignal: signal })
        .catch((error: Error) => {
          const isUnset = error.name === 'AccessDeniedException' && roleArn === undefined;
          const hint = isUnset ? ': add the region to the CDK setting eksRegions' : '';
          const message = `EKS cluster ${name} in ${region}: ${describeAwsError(error)}${hint}`;
          const place = isPermanentAwsError(error) ? 'kubeconfig' : 'reach';
          const code = isPermanentAwsError(error) ? 'aws-refused' : 'aws-unavailable';
          throw new ClusterError(isUnset ? 'setting' : place, message, {
            cause: error,
            ...(!isUnset && { code }),
          });
        });
      return accessTo(name, region, cluster, sts);
    },

    async tagged(target, signal) {
      const { eks, sts } = clientsOf(target);
      const failures: string[] = [];
      const fail = (request: string, error: Error) => {
        failures.push(`${request}: ${describeAwsError(error)}`);
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
            // The cluster was deleted after it was listed.
            if ((error as Error).name !== 'ResourceNotFoundException') fail(name, error as Error);
            return undefined;
          }
        },
        { concurrency: DESCRIBE_CONCURRENCY },
      );
      const clusters = described.flatMap((cluster) => {
        const { arn, name, status = '', tags = {} } = cluster ?? {};
        if (!cluster || !arn || !name || tags[TAG.managed] !== managedTag || !IN_USE.has(status)) return [];
        const access = () => accessToTagged(name, target.region, cluster, sts);
        return [{ arn, isPaused: tags[TAG.paused] === 'true', access }];
      });
      return { clusters, failures };
    },

    async accessTagged(target, arn, signal) {
      const { eks, sts } = clientsOf(target);
      const name = arn.slice(arn.lastIndexOf('/') + 1);
      const { cluster = {} } = await describeInTurn(eks, name, signal).catch((cause: Error) => {
        const isPermanent = isPermanentAwsError(cause);
        throw new ClusterError(
          'reach',
          `EKS cluster ${name} in ${target.region}: ${describeAwsError(cause)}`,
          {
            cause,
            code: isPermanent ? 'aws-refused' : 'aws-unavailable',
          },
        );
      });
      return accessToTagged(name, target.region, cluster, sts);
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
 * A bearer token for an EKS cluster: a presigned URL of GetCallerIdentity at the STS of the region. EKS calls the URL to
 * identify the signer (aws-iam-authenticator, which allows no other parameters in the URL).
 */
export async function tokenFor(cluster: string, sts: STSClient): Promise<string> {
  const { credentials, sha256, region, endpointProvider } = sts.config;
  const signingRegion = await region();
  // The real endpoint of the region, also if a test sends this client to another one.
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

function getOrCreate<Value>(map: Map<string, Value>, key: string, create: () => Value): Value {
  const existing = map.get(key);
  if (existing !== undefined) return existing;
  const created = create();
  map.set(key, created);
  return created;
}

/** Registered names and ARNs contain no spaces. */
const TARGET = 'EKS in ';

/** The name of a discovery target in reports, and its key in the cluster state. */
export function discoveryTargetName({ region, roleArn }: DiscoveryTarget): string {
  return `${TARGET}${region}${roleArn === undefined ? '' : ` as ${roleArn}`}`;
}

/** Whether a name in the cluster state is a discovery target's. */
export function isDiscoveryTarget(name: string): boolean {
  return name.startsWith(TARGET);
}

// Imitates the EKS API for the AWS SDK: ListClusters, DescribeCluster and access entries of the clusters that a test
// defines.
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';

export interface EksCluster {
  readonly endpoint?: string;
  /** PEM. */
  readonly ca?: string;
  readonly status?: string;
  readonly tags?: Readonly<Record<string, string>>;
  readonly isPrivate?: boolean;
  /** Default: API_AND_CONFIG_MAP. */
  readonly authenticationMode?: string;
  /** Its region and account; absent: those of each request. */
  readonly region?: string;
  readonly account?: string;
}

export interface EksCall {
  /** Empty for ListClusters. */
  readonly cluster: string;
  /** The access key that signed the request. */
  readonly accessKeyId: string;
  readonly region: string;
}

/** A request, before it is answered. */
export interface EksAction extends EksCall {
  /** Such as DescribeCluster. */
  readonly action: string;
}

export interface EksDouble extends AsyncDisposable {
  readonly url: string;
  readonly clusters: Map<string, EksCluster>;
  readonly calls: readonly EksCall[];
  /** The access entries: Kubernetes groups by `CLUSTER PRINCIPAL`. */
  readonly entries: Map<string, readonly string[]>;
  /** ARNs of access policies, by the same keys. */
  readonly policies: Map<string, readonly string[]>;
  /** Names of the actions that changed an access entry. */
  readonly changes: string[];
  /** Throttles the next requests. */
  throttle(count: number): void;
  /** Denies every request. */
  isDenied: boolean;
  /** Whether IAM allows a request. Default: all. */
  isAllowed: (action: EksAction) => boolean | Promise<boolean>;
  /** Clusters that are listed, and for which all other requests are denied. */
  readonly undescribed: Set<string>;
  /** Clusters that are listed, and deleted before the next request. */
  readonly gone: Set<string>;
  /** The account of an access key. Default: one account for all. */
  accountOf: (accessKeyId: string) => string;
}

const ACCOUNT = '123456789012';
/** The number of clusters or access policies on a page. */
const PAGE = 3;

/** Starts it on a free loopback port. */
export async function startEks(): Promise<EksDouble> {
  const clusters = new Map<string, EksCluster>();
  const calls: EksCall[] = [];
  const entries: EksDouble['entries'] = new Map();
  const policies: EksDouble['policies'] = new Map();
  const changes: string[] = [];
  let throttled = 0;
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://eks');
    const { cluster, action, principal } = actionOf(request.method, pathname);
    const [, accessKeyId = '', region = ''] =
      /Credential=([^/]+)\/\d+\/([^/]+)\/eks\//.exec(request.headers.authorization ?? '') ?? [];
    calls.push({ cluster, accessKeyId, region });
    // Read now, because the client may close the connection while a hook waits.
    const { principalArn = principal, kubernetesGroups } = await bodyOf(request);
    const answer = (body: object) =>
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    const fail = (status: number, code: string, message: string) =>
      response
        .writeHead(status, { 'content-type': 'application/json', 'x-amzn-errortype': code })
        .end(JSON.stringify({ message }));
    if (throttled > 0) {
      throttled -= 1;
      return fail(429, 'TooManyRequestsException', 'Rate exceeded');
    }
    if (!(await double.isAllowed({ action, cluster, accessKeyId, region })))
      return fail(403, 'AccessDeniedException', `User is not authorized to perform: eks:${action}`);
    if (double.isDenied || double.undescribed.has(cluster))
      return fail(403, 'AccessDeniedException', `User is not authorized to perform: eks:${action}`);
    const account = double.accountOf(accessKeyId);
    const isVisible = (one: EksCluster) =>
      (one.region ?? region) === region && (one.account ?? account) === account;
    if (action === 'ListClusters') {
      const names = [...clusters].flatMap(([name, one]) => (isVisible(one) ? [name] : []));
      const { page, next } = pageOf(names, searchParams);
      return answer({ clusters: page, ...next });
    }
    const found = clusters.get(cluster);
    if (!found || !isVisible(found) || double.gone.has(cluster))
      return fail(404, 'ResourceNotFoundException', `No cluster found for name: ${cluster}.`);
    const { endpoint, ca, status = 'ACTIVE', tags = {}, isPrivate = false } = found;
    const { authenticationMode = 'API_AND_CONFIG_MAP' } = found;
    if (action !== 'DescribeCluster') {
      if (authenticationMode === 'CONFIG_MAP')
        return fail(
          400,
          'InvalidRequestException',
          "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this operation.",
        );
      const key = `${cluster} ${principalArn}`;
      const groups = entries.get(key);
      if (action === 'CreateAccessEntry' && groups)
        return fail(409, 'ResourceInUseException', 'The specified access entry resource is already in use.');
      if (action !== 'CreateAccessEntry' && !groups)
        return fail(404, 'ResourceNotFoundException', 'The specified principalArn could not be found.');
      if (action === 'ListAssociatedAccessPolicies') {
        const { page, next } = pageOf(policies.get(key) ?? [], searchParams);
        const associatedAccessPolicies = page.map((policyArn) => ({
          policyArn,
          accessScope: { type: 'cluster' },
        }));
        return answer({ clusterName: cluster, principalArn, associatedAccessPolicies, ...next });
      }
      if (action !== 'DescribeAccessEntry') changes.push(action);
      if (action === 'DeleteAccessEntry') {
        entries.delete(key);
        return answer({});
      }
      // An update without groups keeps them.
      entries.set(key, kubernetesGroups ?? groups ?? []);
      return answer({
        accessEntry: { clusterName: cluster, principalArn, kubernetesGroups: entries.get(key) },
      });
    }
    const data = ca === undefined ? undefined : Buffer.from(ca).toString('base64');
    answer({
      cluster: {
        name: cluster,
        arn: `arn:aws:eks:${region}:${account}:cluster/${cluster}`,
        status,
        endpoint,
        tags,
        accessConfig: { authenticationMode },
        resourcesVpcConfig: { endpointPublicAccess: !isPrivate, endpointPrivateAccess: isPrivate },
        ...(data && { certificateAuthority: { data } }),
      },
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const double: EksDouble = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    clusters,
    calls,
    entries,
    policies,
    changes,
    throttle(count) {
      throttled = count;
    },
    isDenied: false,
    isAllowed: () => true,
    undescribed: new Set(),
    gone: new Set(),
    accountOf: () => ACCOUNT,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return double;
}

/** The requested page, and the token of the next one. */
function pageOf(all: readonly string[], query: URLSearchParams) {
  const start = Number(query.get('nextToken') ?? 0);
  const end = start + PAGE;
  return { page: all.slice(start, end), next: end < all.length ? { nextToken: String(end) } : {} };
}

/** The action and its resource, by the request's path (EKS API reference). */
function actionOf(method = '', pathname: string): { action: string; cluster: string; principal: string } {
  const [, name = '', entries, arn, policies] =
    /^\/clusters\/([^/]+)(?:\/(access-entries)(?:\/([^/]+)(?:\/(access-policies))?)?)?$/.exec(pathname) ?? [];
  const cluster = decodeURIComponent(name);
  const principal = decodeURIComponent(arn ?? '');
  if (cluster === '') return { action: 'ListClusters', cluster, principal };
  if (entries === undefined) return { action: 'DescribeCluster', cluster, principal };
  if (policies !== undefined) return { action: 'ListAssociatedAccessPolicies', cluster, principal };
  const verbs: Record<string, string> = {
    GET: 'Describe',
    DELETE: 'Delete',
    POST: arn ? 'Update' : 'Create',
  };
  return { action: `${verbs[method]}AccessEntry`, cluster, principal };
}

async function bodyOf(
  request: IncomingMessage,
): Promise<{ principalArn?: string; kubernetesGroups?: string[] }> {
  return JSON.parse((await text(request)) || '{}');
}

// EKS at the wire: ListClusters and DescribeCluster, as the AWS SDK calls them, with what a test says of each cluster.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface EksCluster {
  readonly endpoint?: string;
  /** PEM. */
  readonly ca?: string;
  readonly status?: string;
  readonly tags?: Readonly<Record<string, string>>;
  readonly isPrivate?: boolean;
  /** Where it is, and whose. Default: wherever it is looked for. */
  readonly region?: string;
  readonly account?: string;
}

export interface EksCall {
  /** Empty: they were listed. */
  readonly cluster: string;
  /** As whom: the access key that signed it. */
  readonly accessKeyId: string;
  readonly region: string;
}

export interface EksDouble extends AsyncDisposable {
  readonly url: string;
  readonly clusters: Map<string, EksCluster>;
  readonly calls: readonly EksCall[];
  /** So many of the next calls are throttled. */
  throttle(count: number): void;
  /** Or refused. */
  isDenied: boolean;
  /** Of these clusters, nothing may be known but the name. */
  readonly undescribed: Set<string>;
  /** Of these clusters, nothing is known but the name: they are gone. */
  readonly gone: Set<string>;
  /** The account of an access key. Default: everybody's is the same. */
  accountOf: (accessKeyId: string) => string;
}

const ACCOUNT = '123456789012';
/** Clusters on a page. */
const PAGE = 3;

/** Starts it on a free loopback port. */
export async function startEks(): Promise<EksDouble> {
  const clusters = new Map<string, EksCluster>();
  const calls: EksCall[] = [];
  let throttled = 0;
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://eks');
    const cluster = decodeURIComponent(/^\/clusters\/([^/]+)$/.exec(pathname)?.[1] ?? '');
    const [, accessKeyId = '', region = ''] =
      /Credential=([^/]+)\/\d+\/([^/]+)\/eks\//.exec(request.headers.authorization ?? '') ?? [];
    calls.push({ cluster, accessKeyId, region });
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
    const action = cluster === '' ? 'ListClusters' : 'DescribeCluster';
    if (double.isDenied || double.undescribed.has(cluster))
      return fail(403, 'AccessDeniedException', `User is not authorized to perform: eks:${action}`);
    const account = double.accountOf(accessKeyId);
    const isTheirs = (one: EksCluster) =>
      (one.region ?? region) === region && (one.account ?? account) === account;
    if (action === 'ListClusters') {
      const names = [...clusters].flatMap(([name, one]) => (isTheirs(one) ? [name] : []));
      const start = Number(searchParams.get('nextToken') ?? 0);
      const end = start + PAGE;
      return answer({
        clusters: names.slice(start, end),
        ...(end < names.length && { nextToken: String(end) }),
      });
    }
    const found = clusters.get(cluster);
    if (!found || !isTheirs(found) || double.gone.has(cluster))
      return fail(404, 'ResourceNotFoundException', `No cluster found for name: ${cluster}.`);
    const { endpoint, ca, status = 'ACTIVE', tags = {}, isPrivate = false } = found;
    const data = ca === undefined ? undefined : Buffer.from(ca).toString('base64');
    answer({
      cluster: {
        name: cluster,
        arn: `arn:aws:eks:${region}:${account}:cluster/${cluster}`,
        status,
        endpoint,
        tags,
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
    throttle(count) {
      throttled = count;
    },
    isDenied: false,
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

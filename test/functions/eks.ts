// EKS at the wire: DescribeCluster, as the AWS SDK calls it, with what a test says of each cluster.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface EksCluster {
  readonly endpoint?: string;
  /** PEM. */
  readonly ca?: string;
  readonly status?: string;
}

export interface EksCall {
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
}

/** Starts it on a free loopback port. */
export async function startEks(): Promise<EksDouble> {
  const clusters = new Map<string, EksCluster>();
  const calls: EksCall[] = [];
  let throttled = 0;
  const server = createServer((request, response) => {
    const cluster = decodeURIComponent(/^\/clusters\/([^/?]+)$/.exec(request.url ?? '')?.[1] ?? '');
    const [, accessKeyId = '', region = ''] =
      /Credential=([^/]+)\/\d+\/([^/]+)\/eks\//.exec(request.headers.authorization ?? '') ?? [];
    calls.push({ cluster, accessKeyId, region });
    const fail = (status: number, code: string, message: string) =>
      response
        .writeHead(status, { 'content-type': 'application/json', 'x-amzn-errortype': code })
        .end(JSON.stringify({ message }));
    if (throttled > 0) {
      throttled -= 1;
      return fail(429, 'TooManyRequestsException', 'Rate exceeded');
    }
    if (double.isDenied)
      return fail(403, 'AccessDeniedException', 'User is not authorized to perform: eks:DescribeCluster');
    const found = clusters.get(cluster);
    if (!found) return fail(404, 'ResourceNotFoundException', `No cluster found for name: ${cluster}.`);
    const { endpoint, ca, status = 'ACTIVE' } = found;
    const data = ca === undefined ? undefined : Buffer.from(ca).toString('base64');
    response.writeHead(200, { 'content-type': 'application/json' }).end(
      JSON.stringify({
        cluster: { name: cluster, status, endpoint, ...(data && { certificateAuthority: { data } }) },
      }),
    );
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
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return double;
}

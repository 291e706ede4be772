// The time limits of requests to AWS, for the clients of all programs. Left alone, the SDK waits five minutes for a
// connection that is silent.

const MAX_CONNECT_MS = 5_000;

/**
 * Options of a client's request handler. An attempt that exceeds one of them fails with a TimeoutError, which the SDK
 * retries.
 *
 * @param attemptMs the longest time until the response begins, and then between two parts of it, in milliseconds
 */
export function requestLimits(attemptMs: number) {
  return {
    connectionTimeout: Math.min(attemptMs / 2, MAX_CONNECT_MS),
    requestTimeout: attemptMs,
    // A response that stops half way does not count as a slow one.
    socketTimeout: attemptMs,
    // Without it the SDK would only log a warning.
    throwOnRequestTimeout: true,
  };
}

/** No request of the refresher takes longer, and no attempt must fail on a machine that is busy for a moment. */
const ATTEMPT_MS = { min: 1_000, max: 10_000 };

/**
 * Options of a client whose requests end in time, all attempts included.
 *
 * @param withinMs the time for one request, in milliseconds
 */
export function clientLimits(withinMs: number, maxAttempts = 5) {
  // The pauses between the attempts take about as long as one more attempt.
  const share = Math.round(withinMs / (maxAttempts + 1));
  const attemptMs = Math.min(Math.max(share, ATTEMPT_MS.min), ATTEMPT_MS.max);
  // The SDK ignores HTTPS_PROXY and NO_PROXY otherwise.
  const httpsAgent = { keepAlive: true, proxyEnv: process.env };
  return {
    maxAttempts,
    retryMode: 'adaptive',
    requestHandler: { ...requestLimits(attemptMs), httpsAgent },
  };
}

/**
 * The time for one request to AWS in a cluster run, in milliseconds. Before its first request to the API server, a cluster
 * run waits for at most four, one after another: its registration in a batch, its registration alone, AssumeRole, and
 * DescribeCluster. If each takes its whole time, a third of the deadline is left for the cluster.
 */
export function awsRequestMs(clusterDeadlineMs: number): number {
  return Math.round(clusterDeadlineMs / 6);
}

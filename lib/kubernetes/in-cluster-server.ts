// The URL of the API server, from the environment variables that Kubernetes sets in each Pod.

/** @param host KUBERNETES_SERVICE_HOST: a name, or an IPv4 or IPv6 address @param port KUBERNETES_SERVICE_PORT */
export function inClusterServer(host: string, port: number | string): string {
  return `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

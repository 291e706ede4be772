// Sends requests to an API server with the identity of a kubeconfig, and any body that a test needs.
import { type RequestOptions, request } from 'node:https';
import { KubeConfig } from '@kubernetes/client-node';

export interface CallAnswer {
  status: number;
  text: string;
}
export type Call = (
  method: string,
  path: string,
  body?: unknown,
  contentType?: string,
) => Promise<CallAnswer>;

/** A caller with the identity of a kubeconfig. */
export async function callerOf(kubeconfig: string): Promise<Call> {
  const config = new KubeConfig();
  config.loadFromString(kubeconfig);
  const options: RequestOptions = {};
  await config.applyToHTTPSOptions(options);
  return (method, path, body, contentType = 'application/json') =>
    new Promise((resolve, reject) => {
      const text = body === undefined ? '' : JSON.stringify(body);
      // Node sends no content-length for a DELETE by itself.
      const length = { 'content-length': Buffer.byteLength(text) };
      const headers = { ...options.headers, 'content-type': contentType, ...(text && length) };
      const url = `${config.getCurrentCluster()?.server}${path}`;
      const asked = request(url, { ...options, method, headers }, (response) => {
        let answer = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          answer += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text: answer }));
      });
      asked.on('error', reject);
      asked.end(text);
    });
}

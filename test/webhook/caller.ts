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
  return (method, path, body, contentType = 'application/json') => {
    const text = body === undefined ? '' : JSON.stringify(body);
    // Node sends no content-length for a DELETE by itself.
    const length = { 'content-length': Buffer.byteLength(text) };
    const headers = { ...options.headers, 'content-type': contentType, ...(text && length) };
    return send(`${config.getCurrentCluster()?.server}${path}`, { ...options, method, headers }, text);
  };
}

/** Sends one request over TLS. @param body empty: none */
export function send(url: string, options: RequestOptions, body = ''): Promise<CallAnswer> {
  return new Promise((resolve, reject) => {
    const asked = request(url, options, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

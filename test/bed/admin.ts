// An administrator's client for a control plane, with keep-alive connections, where kubectl would be too slow.
import { readFile } from 'node:fs/promises';
import { Agent } from 'undici';
import { readKubeconfig } from '../../lib/kubernetes/kubeconfig.ts';
import { trust } from '../../lib/kubernetes/trust.ts';
import type { ControlPlane } from './control-plane.ts';

/** Sends a request; a PATCH is a merge patch. @throws Error with the API server's message */
export type Admin = <Answer = unknown>(method: string, path: string, body?: unknown) => Promise<Answer>;

/** Returns a client. */
export async function connectAdmin(cluster: ControlPlane): Promise<{ admin: Admin } & AsyncDisposable> {
  const access = readKubeconfig(await readFile(cluster.adminKubeconfigPath, 'utf8'));
  const agent = new Agent({ connections: 16, connect: trust(access.ca ?? '') });
  return {
    async admin<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
      const response = await agent.request({
        origin: access.server,
        method: method as 'GET',
        path,
        headers: {
          authorization: `Bearer ${'token' in access.identity ? access.identity.token : ''}`,
          'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json',
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
      const text = await response.body.text();
      if (response.statusCode >= 300) throw new Error(`${method} ${path}: ${response.statusCode}: ${text}`);
      return JSON.parse(text) as Answer;
    },
    [Symbol.asyncDispose]: () => agent.destroy(),
  };
}

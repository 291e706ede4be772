// The administrator's requests to a control plane, over connections that stay open: for what kubectl is too slow for.
import { readFile } from 'node:fs/promises';
import { Agent } from 'undici';
import { readKubeconfig } from '../../lib/kubernetes/kubeconfig.ts';
import type { ControlPlane } from './control-plane.ts';

/** Asks the API server; a PATCH is a merge patch. @throws Error with what it said */
export type Admin = <Answer = unknown>(method: string, path: string, body?: unknown) => Promise<Answer>;

/** Connects. */
export async function connectAdmin(cluster: ControlPlane): Promise<{ admin: Admin } & AsyncDisposable> {
  const access = readKubeconfig(await readFile(cluster.adminKubeconfigPath, 'utf8'));
  const agent = new Agent({ connections: 16, connect: { ca: access.ca ?? '' } });
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

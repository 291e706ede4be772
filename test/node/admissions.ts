// A steady stream of admissions, to show what a disturbance of the webhook's replicas costs.
import { expect } from 'vitest';
import { SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import { connectAdmin } from '../bed/admin.ts';
import type { ControlPlane } from '../bed/control-plane.ts';

const CONNECTIONS = 4;

export interface Admissions extends AsyncDisposable {
  /** The messages of those that failed. */
  readonly failed: readonly string[];
  /** Waits for more that succeed. */
  continue(count?: number): Promise<void>;
}

/** Creates managed Secrets, in dry runs, from several connections at once, until disposal. */
export async function startAdmissions(cluster: ControlPlane, namespace: string): Promise<Admissions> {
  const client = await connectAdmin(cluster);
  const secret = {
    ...{ apiVersion: 'v1', kind: 'Secret', type: SECRET_TYPE },
    metadata: { generateName: 'stream-', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
  };
  const failed: string[] = [];
  let admitted = 0;
  let isOver = false;
  const stream = async () => {
    while (!isOver)
      await client.admin('POST', `/api/v1/namespaces/${namespace}/secrets?dryRun=All`, secret).then(
        () => {
          admitted += 1;
        },
        (error: Error) => failed.push(error.message),
      );
  };
  const streams = Array.from({ length: CONNECTIONS }, stream);
  return {
    failed,
    async continue(count = 50) {
      const target = admitted + count;
      await expect.poll(() => admitted, { timeout: 60_000 }).toBeGreaterThanOrEqual(target);
    },
    async [Symbol.asyncDispose]() {
      isOver = true;
      await Promise.all(streams);
      await client[Symbol.asyncDispose]();
    },
  };
}

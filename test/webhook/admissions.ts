// A steady stream of managed Secrets through the API server, each of which has to get its credentials.
import { setTimeout as sleep } from 'node:timers/promises';
import { ANNOTATION, NAMESPACE_LABEL, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import { type Admin, connectAdmin } from '../bed/admin.ts';
import type { ControlPlane } from '../bed/control-plane.ts';

const TEAM = 'stream';
const AT_A_TIME = 4;
const PAUSE_MS = 20;

export interface Admissions extends AsyncDisposable {
  /** How many have been answered. */
  readonly count: number;
  /** Why some were not; each is a defect unless the test says otherwise. */
  readonly failures: readonly string[];
  /** Waits until so many more have been answered, well or not. */
  more(count: number): Promise<void>;
  forgetFailures(): void;
}

/** Creates a Secret, as a dry run. @throws Error with what the API server said, or that it was not served */
export async function tryToCreate(admin: Admin, namespace = TEAM): Promise<void> {
  const { metadata } = await admin<{ metadata: { annotations?: Record<string, string> } }>(
    'POST',
    `/api/v1/namespaces/${namespace}/secrets?dryRun=All`,
    {
      type: SECRET_TYPE,
      metadata: { generateName: 'ecr-', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
      // Without a webhook Kubernetes itself would refuse one that has no data.
      data: { [SECRET_KEY]: Buffer.from('{"auths":{}}').toString('base64') },
    },
  );
  if (!metadata.annotations?.[ANNOTATION.expiresAt]) throw new Error('created without credentials');
}

/** Begins; the namespace is made if it is not there. */
export async function startAdmissions(cluster: ControlPlane): Promise<Admissions> {
  const connection = await connectAdmin(cluster);
  const { admin } = connection;
  await admin('POST', '/api/v1/namespaces', {
    metadata: { name: TEAM, labels: { [NAMESPACE_LABEL.key]: NAMESPACE_LABEL.value } },
  }).catch((error: Error) => {
    if (!error.message.includes('409')) throw error;
  });
  let isRunning = true;
  let count = 0;
  let failures: string[] = [];
  const all = Promise.all(
    Array.from({ length: AT_A_TIME }, async () => {
      while (isRunning) {
        await tryToCreate(admin).catch(({ message }: Error) => failures.push(message));
        count += 1;
        await sleep(PAUSE_MS);
      }
    }),
  );
  return {
    get count() {
      return count;
    },
    get failures() {
      return failures;
    },
    async more(wanted) {
      const end = count + wanted;
      while (count < end) await sleep(PAUSE_MS);
    },
    forgetFailures() {
      failures = [];
    },
    async [Symbol.asyncDispose]() {
      isRunning = false;
      await all;
      await connection[Symbol.asyncDispose]();
    },
  };
}

// Creates managed Secrets through the API server in several parallel streams; each Secret must get its credentials.
import { setTimeout as sleep } from 'node:timers/promises';
import { ANNOTATION, NAMESPACE_LABEL, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import { type Admin, connectAdmin } from '../bed/admin.ts';
import type { ControlPlane } from '../bed/control-plane.ts';

const TEAM = 'stream';
const STREAMS = 4;
/** The failure of a Secret that the API server created without calling the webhook. */
export const UNSERVED = 'created without credentials';
const PAUSE_MS = 20;

export interface Admissions extends AsyncDisposable {
  /** The number of answered requests. */
  readonly count: number;
  /** The messages of failed requests. Each is a defect unless the test expects it. */
  readonly failures: readonly string[];
  /** Waits until this many more requests are answered, with or without success. */
  more(count: number): Promise<void>;
  /** Waits until every stream has had this failure (undefined: none) on a request that started after the call. */
  untilEach(failure: string | undefined): Promise<void>;
  forgetFailures(): void;
}

/** Creates a Secret, as a dry run. @throws Error with the message of the API server, or UNSERVED */
export async function tryToCreate(admin: Admin, namespace = TEAM): Promise<void> {
  const { metadata } = await admin<{ metadata: { annotations?: Record<string, string> } }>(
    'POST',
    `/api/v1/namespaces/${namespace}/secrets?dryRun=All`,
    {
      type: SECRET_TYPE,
      metadata: { generateName: 'ecr-', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
      // Without the webhook, Kubernetes refuses a Secret of this type without data.
      data: { [SECRET_KEY]: Buffer.from('{"auths":{}}').toString('base64') },
    },
  );
  if (!metadata.annotations?.[ANNOTATION.expiresAt]) throw new Error(UNSERVED);
}

/** Starts the streams; creates their namespace if it does not exist. */
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
  /** Streams that had the outcome of `untilEach`, and the number of that call. */
  let call = 0;
  let expected: string | undefined;
  const arrived = new Set<number>();
  const all = Promise.all(
    Array.from({ length: STREAMS }, async (_, stream) => {
      while (isRunning) {
        const startedIn = call;
        const failure = await tryToCreate(admin).then(
          () => undefined,
          ({ message }: Error) => message,
        );
        if (failure !== undefined) failures.push(failure);
        if (startedIn === call && failure === expected) arrived.add(stream);
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
    async more(additional) {
      const end = count + additional;
      while (count < end) await sleep(PAUSE_MS);
    },
    async untilEach(failure) {
      call += 1;
      expected = failure;
      arrived.clear();
      while (arrived.size < STREAMS) await sleep(PAUSE_MS);
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

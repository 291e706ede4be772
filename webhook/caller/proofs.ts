// Holds the proofs that the webhook accepts: from a Secret that the webhook itself creates and rotates, or from the mounted
// files of a Secret that the operator manages.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { OwnSecret } from '../tls/objects.ts';
import { keepUp, TICK_MS, type Upkeep } from '../tls/upkeep.ts';
import { acceptedOf, isAccepted, nextStep, PROOF_KEYS } from './proof.ts';

/** The time between two reads while there is no proof, or after a failed read. */
const RETRY_MS = 2_000;
/** A request with an unknown proof has the Secret read again, at most this often: any pod may send such requests. */
const REREAD_AFTER_MS = 1_000;
/** The limit of steps in one check. */
const MAX_STEPS = 10;

/** An annotation of the Secret with which an operator requests another proof. */
const ROTATE_ANNOTATION = 'ecr-anywhere.centml.ai/rotate-proof';

export interface Proofs {
  /** Whether the webhook accepts a proof. Reads the Secret again if it does not know the proof. */
  accepts(proof: string | undefined): Promise<boolean>;
  /** Why the webhook accepts no proof at all; undefined if it accepts one. */
  problem(): string | undefined;
  stop(): Promise<void>;
}

/**
 * Creates and rotates the proof in the webhook's own Secret until `stop`. All replicas do so, as they do with the
 * certificates: a write with an old resource version is refused, and the replica then uses what another one wrote.
 */
export function maintainProofs(secret: OwnSecret, logger: Logger): Proofs {
  let isStepDue = () => true;
  const read = async (): Promise<Buffer[]> => {
    for (let steps = 0; steps < MAX_STEPS; steps += 1) {
      const stored = await secret.secret();
      if (!stored) {
        await secret.createSecret();
        logger.warn('caller proof Secret was missing and is created');
        continue;
      }
      const { data, annotations, resourceVersion } = stored;
      const dueStep = () => nextStep(data, annotations[ROTATE_ANNOTATION], Date.now());
      const step = dueStep();
      isStepDue = () => dueStep() !== undefined;
      if (!step)
        return acceptedOf(Object.fromEntries(PROOF_KEYS.map((key) => [key, Buffer.from(data[key] ?? '')])));
      if (await secret.writeSecret(step.change, resourceVersion))
        logger.info({ what: step.what }, 'caller proof changed');
    }
    throw new Error(`The Secret of the caller proof still changes after ${MAX_STEPS} steps.`);
  };
  const upkeep = { isDue: () => isStepDue(), watches: [secret.watchSecret] };
  return keep(read, upkeep, () => secret.close(), logger);
}

/** Reads the proofs from the files of a mounted Secret, and follows their changes until `stop`. */
export function watchProofFiles(dir: string, logger: Logger): Proofs {
  const read = async (): Promise<Buffer[]> => {
    const files = await Promise.all(
      PROOF_KEYS.map(async (key) => [key, await readIfPresent(join(dir, key))]),
    );
    return acceptedOf(Object.fromEntries(files));
  };
  return keep(read, { isDue: () => true, watches: [] }, async () => {}, logger);
}

function readIfPresent(file: string): Promise<Buffer | undefined> {
  return readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
}

/** Reads when the upkeep is due, and when a request needs it. */
function keep(
  read: () => Promise<Buffer[]>,
  { isDue, watches }: Pick<Upkeep, 'isDue' | 'watches'>,
  close: () => Promise<void>,
  logger: Logger,
): Proofs {
  let accepted: readonly Buffer[] = [];
  let failure = '';
  let startedAt = Number.NEGATIVE_INFINITY;
  let reading: Promise<void> | undefined;
  const update = (): Promise<void> => {
    reading ??= (async () => {
      startedAt = performance.now();
      try {
        accepted = await read();
        failure = accepted.length > 0 ? '' : 'the Secret has no value under the key "proof"';
      } catch (error) {
        const { message } = error as Error;
        if (message !== failure) logger.error({ message }, 'caller proof not read');
        failure = message;
      } finally {
        reading = undefined;
      }
    })();
    return reading;
  };
  const ending = new AbortController();
  const keeping = (async () => {
    await update();
    await keepUp(
      {
        async check() {
          // A read that has already started may miss the change.
          await reading;
          await update();
        },
        isDue: () => failure !== '' || isDue(),
        everyMs: () => (failure === '' ? TICK_MS : RETRY_MS),
        watches,
      },
      ending.signal,
      logger,
    );
  })();
  return {
    async accepts(proof) {
      if (proof === undefined) return false;
      if (isAccepted(proof, accepted)) return true;
      if (reading === undefined && performance.now() - startedAt < REREAD_AFTER_MS) return false;
      await update();
      return isAccepted(proof, accepted);
    },
    problem: () =>
      accepted.length > 0
        ? undefined
        : `the proof by which the webhook recognises the API server is not known: ${failure || 'not read yet'}`,
    async stop() {
      ending.abort();
      await keeping;
      await close();
    },
  };
}

// tls.mode self: creates and renews the certificates and caBundle while the webhook runs. Every replica does so without a
// leader: a write with an old resource version is refused, and the replica then uses what another one wrote.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type OwnObjects, ROTATE_ANNOTATION } from './objects.ts';
import { dataOf, type Material, nextStep, type Situation, type Step, trustedBy } from './rotation.ts';
import type { KeyPair, Tls } from './tls.ts';
import { keepUp } from './upkeep.ts';
import { expiryOf, isTrusted } from './x509.ts';

const FIRST_CHECK_EVERY_MS = 1_000;
/**
 * The time that a start may take. The server does not answer liveness probes yet, and the third failed probe (after 30 s)
 * would end the container without a log line that names the cause.
 */
const FIRST_PAIR_WITHIN_MS = 18_000;
/** The limit of steps in one check. A replica that loses a race reads again; more than a few times indicates an error. */
const MAX_STEPS = 10;

/**
 * Obtains a certificate, and keeps it and caBundle current until `stop`.
 *
 * @param name the DNS name at which the API servers call the webhook
 * @param onPair called with each new certificate
 * @throws Error if there is no certificate after 18 s
 */
export async function maintainSelfSignedTls(
  objects: OwnObjects,
  name: string,
  onPair: (pair: KeyPair) => void,
  logger: Logger,
): Promise<Tls> {
  let held: Material | undefined;
  let served: KeyPair | undefined;
  let trusted = '';
  /** The message of the last failed check; empty after a good one. */
  let failure = '';
  /** What the last good check found. */
  let found: Omit<Situation, 'now'> | undefined;

  /** Takes steps until none is due. @returns false if there is no end to them */
  const reconcile = async (): Promise<boolean> => {
    for (let steps = 0; steps < MAX_STEPS; steps += 1) {
      // Read the configuration first: a bundle of an older Secret must not overwrite that of a newer one.
      const configuration = await objects.configuration();
      const secret = await objects.secret();
      if (!secret) {
        await objects.createSecret();
        logger.warn('certificate Secret was missing and is created');
        continue;
      }
      const { data, annotations, resourceVersion } = secret;
      const bundle = configuration?.caBundle ?? '';
      const situation = { stored: data, held, bundle, rotateRequest: annotations[ROTATE_ANNOTATION], name };
      const step = await nextStep({ ...situation, now: Date.now() });
      if (step.what !== 'nothing') {
        if (await objects.writeSecret(dataOf(step.material), resourceVersion)) logStep(step);
        continue;
      }
      held = step.material;
      const expected = trustedBy(held);
      if (configuration && bundle !== expected) {
        if (!(await objects.writeCaBundle(configuration, expected))) continue;
        logger.info('caBundle written');
        trusted = expected;
      } else {
        trusted = bundle;
      }
      found = { ...situation, held, bundle: trusted };
      return true;
    }
    return false;
  };

  const logStep = ({ what, why, material }: Step) => {
    const expiresAt = new Date(expiryOf(material.serving.cert)).toISOString();
    logger.info({ what, why, expiresAt }, 'certificates changed');
  };

  const check = async () => {
    try {
      if (!(await reconcile()))
        throw new Error(
          `The certificate Secret still changes after ${MAX_STEPS} steps. Does another program write it?`,
        );
      failure = '';
    } catch (error) {
      const { message } = error as Error;
      if (message !== failure) logger.error({ message }, 'certificate upkeep failed');
      failure = message;
    }
    if (!held) return;
    const { serving } = held;
    // Keep the served certificate while the API servers trust it and do not trust the new one yet.
    const isBetter = !served || isTrusted(serving.cert, trusted) || !isTrusted(served.cert, trusted);
    if (isBetter && served?.cert !== serving.cert) {
      served = serving;
      onPair(serving);
    }
  };

  const ending = new AbortController();
  const startedAt = performance.now();
  for (await check(); !served; await check()) {
    if (performance.now() - startedAt > FIRST_PAIR_WITHIN_MS)
      throw new Error(`There is no serving certificate after ${FIRST_PAIR_WITHIN_MS / 1_000} s: ${failure}`);
    await sleep(FIRST_CHECK_EVERY_MS);
  }
  const isDue = async () => {
    if (failure !== '' || !found) return true;
    return nextStep({ ...found, now: Date.now() }).then(
      ({ what }) => what !== 'nothing',
      // The check reports the error.
      () => true,
    );
  };
  const watches = [objects.watchConfiguration, objects.watchSecret];
  const keeping = keepUp({ check, isDue, watches }, ending.signal, logger);

  const first = served;
  return {
    pair: () => served ?? first,
    trusted: () => trusted,
    isFailing: () => failure !== '',
    async stop() {
      ending.abort();
      await keeping;
      await objects.close();
    },
  };
}

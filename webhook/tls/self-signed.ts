// tls.mode self: looks after the certificates and the caBundle while the webhook runs. Every replica does; none leads,
// as the versions of the objects decide who was first.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { OwnObjects } from './objects.ts';
import { dataOf, type Material, nextStep, type Step, trustedBy } from './rotation.ts';
import type { KeyPair, Tls } from './tls.ts';
import { expiryOf, isTrusted } from './x509.ts';

/** Between two looks, by the machine's uptime; what is due is judged by wall time. */
const LOOK_AGAIN_MS = 5_000;
/** Replicas that were started together do not stay together. */
const JITTER_MS = 1_000;
const FIRST_LOOK_AGAIN_MS = 1_000;
/** So long a start may wait for the API server: nobody answers liveness probes meanwhile, and three end it unheard. */
const FIRST_PAIR_WITHIN_MS = 18_000;
/** Replicas that lose a race look at what the winner did; more than a few in a row are no race. */
const MAX_STEPS = 10;

/**
 * Makes sure that there is a certificate to serve, and goes on looking after it.
 *
 * @param name the DNS name that the API servers call
 * @param onPair hears of each new certificate
 * @throws Error where none could be had for a while
 */
export async function selfTls(
  objects: OwnObjects,
  name: string,
  onPair: (pair: KeyPair) => void,
  logger: Logger,
): Promise<Tls> {
  let mine: Material | undefined;
  let served: KeyPair | undefined;
  let trusted = '';
  let said = '';

  /** Changes the Secret until nothing is left to be done; whoever was slower takes what the others made. */
  const settle = async (): Promise<boolean> => {
    for (let steps = 0; steps < MAX_STEPS; steps += 1) {
      // Read before the Secret, so that no bundle of an older Secret is written over that of a newer one.
      const configuration = await objects.configuration();
      const secret = await objects.secret();
      if (!secret) {
        await objects.createSecret();
        logger.warn('certificate Secret was missing and is created');
        continue;
      }
      const { data, command, resourceVersion } = secret;
      const bundle = configuration?.caBundle ?? '';
      const step = await nextStep({ stored: data, mine, bundle, command, name, now: Date.now() });
      if (step.what !== 'nothing') {
        if (await objects.writeSecret(dataOf(step.material), resourceVersion)) tell(step);
        continue;
      }
      mine = step.material;
      const wanted = trustedBy(mine);
      if (configuration && bundle !== wanted) {
        if (!(await objects.writeCaBundle(configuration, wanted))) continue;
        logger.info('caBundle written');
        trusted = wanted;
      } else {
        trusted = bundle;
      }
      return true;
    }
    return false;
  };

  const tell = ({ what, why, material }: Step) => {
    const expiresAt = new Date(expiryOf(material.serving.cert)).toISOString();
    logger.info({ what, why, expiresAt }, 'certificates changed');
  };

  const look = async () => {
    try {
      if (!(await settle())) throw new Error('the Secret changes again and again');
      said = '';
    } catch (error) {
      const { message } = error as Error;
      if (message !== said) logger.error({ message }, 'certificate upkeep failed');
      said = message;
    }
    if (!mine) return;
    const { serving } = mine;
    // One whose authority the API servers do not know yet is no better than the one before.
    const isBetter = !served || isTrusted(serving.cert, trusted) || !isTrusted(served.cert, trusted);
    if (isBetter && served?.cert !== serving.cert) {
      served = serving;
      onPair(serving);
    }
  };

  const ending = new AbortController();
  const startedAt = performance.now();
  for (await look(); !served; await look()) {
    if (performance.now() - startedAt > FIRST_PAIR_WITHIN_MS)
      throw new Error(`There is no serving certificate: ${said}`);
    await sleep(FIRST_LOOK_AGAIN_MS);
  }
  const looking = (async () => {
    while (!ending.signal.aborted) {
      await sleep(LOOK_AGAIN_MS + Math.random() * JITTER_MS, undefined, { signal: ending.signal }).catch(
        () => {},
      );
      if (!ending.signal.aborted) await look();
    }
  })();

  const first = served;
  return {
    pair: () => served ?? first,
    trusted: () => trusted,
    isFailing: () => said !== '',
    async stop() {
      ending.abort();
      await looking;
      await objects.close();
    },
  };
}

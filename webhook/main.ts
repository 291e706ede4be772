// The in-cluster webhook: wiring only.
import { readFile } from 'node:fs/promises';
import { pino } from 'pino';
import { admission } from './admission.ts';
import { isSamePair, readKeyPair } from './certificates.ts';
import { readConfig } from './config.ts';
import { fetchFromEcr } from './ecr.ts';
import { EcrTokens } from './ecr-tokens.ts';
import { serveMetrics, webhookMetrics } from './metrics.ts';
import { ownRegistry, type Policy, readPolicy } from './policy.ts';
import { webhookServer } from './server.ts';
import { watch } from './watch.ts';

const LOG = { base: null, timestamp: pino.stdTimeFunctions.isoTime };

// Node itself would show the line of the bundle that threw, tens of kilobytes, before it says why.
process.once('uncaughtException', (error) => {
  pino(LOG).fatal({ message: error.message, stack: error.stack }, 'ended by an error');
  process.exit(1);
});

const config = readConfig(process.env);
const logger = pino({ ...LOG, level: config.logLevel });

const { policyFile, identity } = config;
async function readPolicyFile(): Promise<{ text: string; policy: Policy }> {
  if (policyFile === undefined) return { text: '', policy: ownRegistry(identity) };
  try {
    const text = await readFile(policyFile, 'utf8');
    return { text, policy: readPolicy(text, identity) };
  } catch (error) {
    throw new Error(`The policy ${policyFile} cannot be used: ${(error as Error).message}`);
  }
}
let inUse = await readPolicyFile();
logger.level = inUse.policy.logLevel ?? config.logLevel;
const policy = () => inUse.policy;

const tokens = new EcrTokens(
  fetchFromEcr({
    region: config.region,
    withinMs: config.answerWithinMs,
    assumeRole: config.assumeRole,
    onCall: (source, result) => metrics.called(source, result),
  }),
  config.answerWithinMs,
);
const metrics = webhookMetrics(tokens, policy);

const readKeys = () => readKeyPair(config.certFile, config.keyFile);
const pair = await readKeys();
const answer = admission({
  policy,
  refresherUsername: config.refresherUsername,
  tokens,
  logger,
  onAnswered: metrics.answered,
});
const server = webhookServer(pair, answer, logger);

const watches = [
  watch(
    readKeys,
    isSamePair,
    pair,
    (next) => {
      server.useKeyPair(next);
      logger.info('new serving certificate in use');
    },
    ({ message }) => logger.error({ message }, 'serving certificate not replaced'),
  ),
  watch(
    async () => {
      const read = await readPolicyFile();
      metrics.policyRead(true);
      return read;
    },
    (a, b) => a.text === b.text,
    inUse,
    (next) => {
      inUse = next;
      logger.level = next.policy.logLevel ?? config.logLevel;
      logger.info({ registries: next.policy.registries.length }, 'new policy in use');
    },
    ({ message }) => {
      metrics.policyRead(false);
      logger.error({ message }, 'policy not replaced');
    },
  ),
];

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, async () => {
    logger.info({ signal, drainMs: config.drainMs }, 'draining');
    for (const stop of watches) stop();
    await server.drain(config.drainMs, config.answerWithinMs);
    await stopMetrics();
    logger.info('stopped');
  });
}

await server.listen(config.host, config.port);
const { metricsPort } = config;
const stopMetrics =
  metricsPort === undefined ? async () => {} : await serveMetrics(metrics, config.host, metricsPort);
logger.info(
  { port: config.port, region: config.region, registries: policy().registries.length, node: process.version },
  'serving',
);

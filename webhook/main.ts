// The in-cluster webhook: wiring only.
import { pino } from 'pino';
import { admission } from './admission.ts';
import { readKeyPair, watchKeyPair } from './certificates.ts';
import { readConfig } from './config.ts';
import { EcrTokens, fetchFromEcr } from './ecr-tokens.ts';
import { webhookServer } from './server.ts';

const LOG = { base: null, timestamp: pino.stdTimeFunctions.isoTime };

// Node itself would show the line of the bundle that threw, tens of kilobytes, before it says why.
process.once('uncaughtException', (error) => {
  pino(LOG).fatal({ message: error.message, stack: error.stack }, 'ended by an error');
  process.exit(1);
});

const config = readConfig(process.env);
const logger = pino({ ...LOG, level: config.logLevel });

const tokens = new EcrTokens(fetchFromEcr(config.answerWithinMs), config.answerWithinMs);
const policy = { registries: [{ region: config.region }], refresherUsername: config.refresherUsername };

const pair = await readKeyPair(config.certFile, config.keyFile);
const server = webhookServer(pair, admission(policy, tokens, logger), logger);
const stopWatching = watchKeyPair(
  config.certFile,
  config.keyFile,
  pair,
  (next) => {
    server.useKeyPair(next);
    logger.info('new serving certificate in use');
  },
  (error) => logger.error({ message: error.message }, 'serving certificate not replaced'),
);

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, async () => {
    logger.info({ signal, drainMs: config.drainMs }, 'draining');
    stopWatching();
    await server.drain(config.drainMs, config.answerWithinMs);
    logger.info('stopped');
  });
}

await server.listen(config.host, config.port);
logger.info({ port: config.port, region: config.region, node: process.version }, 'serving');

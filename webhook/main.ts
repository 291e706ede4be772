// The entry point of the in-cluster webhook: it only wires the parts together.
import './stop-signals.ts';
import { readFile } from 'node:fs/promises';
import { pino } from 'pino';
import { admission } from './admission/admission.ts';
import { NO_POLICY, type Policy, readPolicy } from './admission/policy.ts';
import { fetchFromEcr } from './aws/ecr.ts';
import { EcrTokens } from './aws/ecr-tokens.ts';
import { watchClientCa } from './caller/client-certificate.ts';
import { maintainProofs, watchProofFiles } from './caller/proofs.ts';
import { readConfig } from './config.ts';
import { serveMetrics, webhookMetrics } from './metrics.ts';
import { readiness } from './readiness.ts';
import { type WebhookServer, webhookServer } from './server.ts';
import { onStopSignal } from './stop-signals.ts';
import { watchTlsFiles } from './tls/files.ts';
import { OwnObjects } from './tls/objects.ts';
import { maintainSelfSignedTls } from './tls/self-signed.ts';
import type { KeyPair } from './tls/tls.ts';
import { expiryOf } from './tls/x509.ts';
import { watch } from './watch-file.ts';

const LOG = { base: null, timestamp: pino.stdTimeFunctions.isoTime };

// Node would print the bundle's line that threw, tens of kilobytes, before the message.
process.once('uncaughtException', (error) => {
  pino(LOG).fatal({ message: error.message, stack: error.stack }, 'ended by an error');
  process.exit(1);
});

const config = readConfig(process.env);
const logger = pino({ ...LOG, level: config.logLevel });
onStopSignal((signal) => {
  logger.info({ signal }, 'stopped');
  process.exit(0);
});

const { policyFile, identity } = config;
interface PolicyInUse {
  /** The document; undefined without a valid one. */
  readonly text: string | undefined;
  readonly policy: Policy;
}
async function readPolicyFile(): Promise<PolicyInUse> {
  try {
    const text = await readFile(policyFile, 'utf8');
    return { text, policy: readPolicy(text, identity) };
  } catch (error) {
    throw new Error(`The policy ${policyFile} is invalid: ${(error as Error).message}`);
  }
}
let policyProblem: string | undefined;
let inUse = await readPolicyFile().catch(({ message }: Error): PolicyInUse => {
  // A process that ended would be started again and again, and would not say why in its metrics.
  logger.error({ message }, 'no policy in use');
  policyProblem = message;
  return { text: undefined, policy: NO_POLICY };
});
logger.level = inUse.policy.logLevel ?? config.logLevel;
const policy = () => inUse.policy;

const tokens = new EcrTokens(
  fetchFromEcr({
    region: config.region,
    withinMs: config.answerWithinMs,
    assumeRole: config.assumeRole,
    onCall: (source, result) => metrics.recordCall(source, result),
  }),
  config.answerWithinMs,
);

let server: WebhookServer | undefined;
const { ownTls, ownProof, proofDir } = config;
const proofs = ownProof
  ? maintainProofs(new OwnObjects(ownProof), logger)
  : proofDir === undefined
    ? undefined
    : watchProofFiles(proofDir, logger);
const clients =
  config.clients &&
  (await watchClientCa(
    config.clients.caFile,
    config.clients.names,
    () => server?.useClientAuthorities(),
    logger,
  ));
const expiryTime = ({ cert }: KeyPair) => new Date(expiryOf(cert)).toISOString();
const useKeyPair = (next: KeyPair) => {
  server?.useKeyPair(next);
  if (server) logger.info({ expiresAt: expiryTime(next) }, 'new serving certificate in use');
};
const tls = ownTls
  ? await maintainSelfSignedTls(new OwnObjects(ownTls.objects), ownTls.serverName, useKeyPair, logger)
  : await watchTlsFiles(config.certFile, config.keyFile, useKeyPair, logger);
const metrics = webhookMetrics(tokens, policy, tls);
const answer = admission({
  policy,
  refresherUsername: config.refresherUsername,
  provisionSecret: config.provisionSecret,
  tokens,
  proofs,
  logger,
  onAnswer: metrics.recordAdmission,
});
const readyToServe = readiness(policy, {
  host: config.host ?? 'localhost',
  port: config.port,
  serverName: config.serverName,
  trusted: tls.trusted,
});
server = webhookServer(
  tls.pair(),
  answer,
  config.answerWithinMs,
  async () => proofs?.problem() ?? readyToServe(),
  logger,
  clients,
  metrics.recordUnauthenticated,
);
const { listen, drain } = server;

const stopPolicy = watch(
  async () => {
    const read = await readPolicyFile();
    metrics.recordPolicy(true);
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
    metrics.recordPolicy(false);
    logger.error({ message }, inUse.policy.isInvalid ? 'no policy in use' : 'policy not replaced');
  },
  policyProblem,
);

await listen(config.host, config.port);
let stopMetrics = async () => {};
onStopSignal(async (signal) => {
  logger.info({ signal, drainMs: config.drainMs }, 'draining');
  stopPolicy();
  clients?.stop();
  await Promise.all([tls.stop(), drain(config.drainMs, config.answerWithinMs)]);
  await proofs?.stop();
  await stopMetrics();
  logger.info('stopped');
});
const { metricsPort } = config;
if (metricsPort !== undefined) stopMetrics = await serveMetrics(metrics, config.host, metricsPort);
logger.info(
  {
    port: config.port,
    region: config.region,
    registries: policy().registries.length,
    certificateExpiresAt: expiryTime(tls.pair()),
    node: process.version,
  },
  'serving',
);

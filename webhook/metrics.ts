// What Prometheus can read of the webhook: figures only, no name of a Secret, no credential. Served over plain HTTP on
// a port of its own, so that nobody who scrapes has to reach the port that the API server calls.
import Fastify from 'fastify';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Answered } from './admission/admission.ts';
import type { Policy } from './admission/policy.ts';
import type { EcrResult } from './aws/ecr.ts';
import type { EcrTokens } from './aws/ecr-tokens.ts';
import type { TokenSource } from './aws/registries.ts';
import { listen } from './server.ts';
import type { Tls } from './tls/tls.ts';
import { expiryOf } from './tls/x509.ts';

const PREFIX = 'ecr_anywhere_';

/** An admission takes a millisecond, or as long as ECR may. */
const SECONDS_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export interface Metrics {
  answered(answer: Answered): void;
  called(source: TokenSource, result: EcrResult): void;
  /** The policy document was read; `isValid`: and is in use. */
  policyRead(isValid: boolean): void;
  /** In Prometheus' text format. */
  text(): Promise<string>;
}

/** @param policy the one in use at the moment */
export function webhookMetrics(tokens: EcrTokens, policy: () => Policy, tls: Tls): Metrics {
  const register = new Registry();
  const registers = [register];
  collectDefaultMetrics({ register });

  const admissions = new Counter({
    name: `${PREFIX}admissions_total`,
    help: 'Admissions, by what was done and why.',
    labelNames: ['operation', 'action', 'reason'],
    registers,
  });
  const seconds = new Histogram({
    name: `${PREFIX}admission_duration_seconds`,
    help: 'Time from a review to its answer.',
    labelNames: ['action'],
    buckets: SECONDS_BUCKETS,
    registers,
  });
  const calls = new Counter({
    name: `${PREFIX}ecr_calls_total`,
    help: 'Attempts to get an authorization token from AWS, by result.',
    labelNames: ['service', 'region', 'role', 'result'],
    registers,
  });
  const ofRegistries = (name: string, help: string, value: (source: TokenSource) => number | undefined) =>
    new Gauge({
      name: `${PREFIX}${name}`,
      help,
      labelNames: ['registry', 'region', 'role'],
      registers,
      collect() {
        this.reset();
        for (const registry of policy().registries) {
          const { region, role } = registry.source;
          const figure = value(registry.source);
          if (figure === undefined) continue;
          this.set({ registry: tokens.known(registry).host ?? '', region, role: role?.arn ?? '' }, figure);
        }
      },
    });
  const inSeconds = (ms: number | undefined) => (ms === undefined ? undefined : ms / 1000);
  ofRegistries(
    'token_obtained_timestamp_seconds',
    'When the cached token of a registry was obtained.',
    (source) => inSeconds(tokens.status(source).obtainedAt),
  );
  ofRegistries('token_expiry_timestamp_seconds', 'When the cached token of a registry expires.', (source) =>
    inSeconds(tokens.status(source).expiresAt),
  );
  ofRegistries(
    'registry_failing',
    '1 while the last call for a token of the registry has failed.',
    (source) => (tokens.status(source).failing ? 1 : 0),
  );
  const valid = new Gauge({
    name: `${PREFIX}policy_valid`,
    help: '1 if the policy document that lies there is the one in use; 0 if it is wrong and an earlier one is used.',
    registers,
  });
  valid.set(1);
  new Gauge({
    name: `${PREFIX}certificate_expiry_timestamp_seconds`,
    help: 'When the serving certificate expires.',
    registers,
    collect() {
      this.set(expiryOf(tls.pair().cert) / 1000);
    },
  });
  new Gauge({
    name: `${PREFIX}certificate_failing`,
    help: '1 while the certificates cannot be looked after, or those that lie there are wrong.',
    registers,
    collect() {
      this.set(tls.isFailing() ? 1 : 0);
    },
  });

  return {
    answered({ operation, action, reason, ms }) {
      admissions.inc({ operation, action, reason });
      seconds.observe({ action }, ms / 1000);
    },
    called({ service, region, role }, result) {
      calls.inc({ service, region, role: role?.arn ?? '', result });
    },
    policyRead: (isValid) => valid.set(isValid ? 1 : 0),
    text: () => register.metrics(),
  };
}

/** Serves them at /metrics. @returns what ends it */
export async function serveMetrics(
  metrics: Metrics,
  host: string | undefined,
  port: number,
): Promise<() => Promise<void>> {
  const server = Fastify({ logger: false, forceCloseConnections: true });
  server.get('/metrics', async (_request, reply) => {
    reply.type('text/plain; version=0.0.4; charset=utf-8');
    return metrics.text();
  });
  await listen(server, host, port);
  return () => server.close();
}

// The webhook's Prometheus metrics: numbers only, no name of a Secret, no credential. They are served over plain HTTP on
// a separate port, so that Prometheus does not need access to the port that the API server calls.
import Fastify from 'fastify';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { DenialReason } from '../contract/denials.ts';
import type { AdmissionResult } from './admission/admission.ts';
import type { Policy } from './admission/policy.ts';
import type { EcrResult } from './aws/ecr.ts';
import type { EcrTokens } from './aws/ecr-tokens.ts';
import type { TokenSource } from './aws/registries.ts';
import { listen } from './server.ts';
import type { Tls } from './tls/tls.ts';
import { expiryOf } from './tls/x509.ts';

const PREFIX = 'ecr_anywhere_';

/** Limits of the metrics' port, which any pod may reach: Prometheus opens one connection. */
const MAX_CONNECTIONS = 50;
const REQUEST_MS = 10_000;

/** An admission takes a millisecond, or as long as the webhook may wait for ECR. */
const SECONDS_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export interface Metrics {
  recordAdmission(result: AdmissionResult): void;
  /** Called after each request of a caller without an accepted client certificate. */
  recordUnauthenticated(): void;
  /** Called after each attempt to get a token. */
  recordCall(source: TokenSource, result: EcrResult): void;
  /** @param isValid whether the policy document that was read is in use */
  recordPolicy(isValid: boolean): void;
  /** In Prometheus' text format. */
  text(): Promise<string>;
}

/** @param policy returns the policy in use */
export function webhookMetrics(tokens: EcrTokens, policy: () => Policy, tls: Tls): Metrics {
  const register = new Registry();
  const registers = [register];
  collectDefaultMetrics({ register });

  const admissions = new Counter({
    name: `${PREFIX}admissions_total`,
    help: 'Admissions, by action and reason.',
    labelNames: ['operation', 'action', 'reason'],
    registers,
  });
  const seconds = new Histogram({
    name: `${PREFIX}admission_duration_seconds`,
    help: 'Time to answer an AdmissionReview.',
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
  const registryGauge = (name: string, help: string, value: (source: TokenSource) => number | undefined) =>
    new Gauge({
      name: `${PREFIX}${name}`,
      help,
      labelNames: ['registry', 'region', 'role'],
      registers,
      collect() {
        this.reset();
        for (const registry of policy().registries) {
          const { region, role } = registry.source;
          const number = value(registry.source);
          if (number === undefined) continue;
          this.set({ registry: tokens.withHost(registry).host ?? '', region, role: role?.arn ?? '' }, number);
        }
      },
    });
  const inSeconds = (ms: number | undefined) => (ms === undefined ? undefined : ms / 1000);
  registryGauge(
    'token_obtained_timestamp_seconds',
    'When the cached token of a registry was obtained.',
    (source) => inSeconds(tokens.status(source).obtainedAt),
  );
  registryGauge('token_expiry_timestamp_seconds', 'When the cached token of a registry expires.', (source) =>
    inSeconds(tokens.status(source).expiresAt),
  );
  registryGauge('registry_failing', '1 if the last request for a token of the registry failed.', (source) =>
    tokens.status(source).failing ? 1 : 0,
  );
  const valid = new Gauge({
    name: `${PREFIX}policy_valid`,
    help: '1 if the current policy document is in use; 0 if it is invalid: then the previous one is in use, or none since the start.',
    registers,
  });
  valid.set(policy().isInvalid ? 0 : 1);
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
    help: '1 if the webhook cannot renew its certificates, or the certificate files are invalid.',
    registers,
    collect() {
      this.set(tls.isFailing() ? 1 : 0);
    },
  });

  return {
    recordAdmission({ operation, action, reason, ms }) {
      admissions.inc({ operation, action, reason });
      seconds.observe({ action }, ms / 1000);
    },
    recordUnauthenticated: () =>
      admissions.inc({
        operation: '',
        action: 'deny',
        reason: 'caller-not-authenticated' satisfies DenialReason,
      }),
    recordCall({ service, region, role }, result) {
      calls.inc({ service, region, role: role?.arn ?? '', result });
    },
    recordPolicy: (isValid) => valid.set(isValid ? 1 : 0),
    text: () => register.metrics(),
  };
}

/** Serves the metrics at /metrics. @returns a function that stops the server */
export async function serveMetrics(
  metrics: Metrics,
  host: string | undefined,
  port: number,
): Promise<() => Promise<void>> {
  const server = Fastify({
    logger: false,
    forceCloseConnections: true,
    bodyLimit: 1024,
    requestTimeout: REQUEST_MS,
    http: { headersTimeout: REQUEST_MS, requestTimeout: REQUEST_MS },
  });
  server.server.maxConnections = MAX_CONNECTIONS;
  server.get('/metrics', async (_request, reply) => {
    reply.type('text/plain; version=0.0.4; charset=utf-8');
    return metrics.text();
  });
  await listen(server, host, port);
  return () => server.close();
}
